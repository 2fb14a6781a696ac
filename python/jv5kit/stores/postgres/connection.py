"""The way to a server: connections that threads share, and what is done when one is lost.

Whatever is asked is asked again on a new connection when the old one is lost, for as long as a standby may take to
become the primary. So a question must bear being asked twice: one that writes finds out itself whether it is done.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from jv5kit.errors import InputError, Jv5kitError
from jv5kit.logs import logger
from jv5kit.storage.catalog import ReplacedError
from jv5kit.stores.postgres.adapters import Code, CodeDumper, JsonLoader
from jv5kit.stores.postgres.failures import cannot_connect, failure, is_lost, is_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jv5kit.stores.postgres.address import Address

    Connection = psycopg.Connection[tuple[Any, ...]]

PATIENCE = 30.0
"""Seconds that a server may be away."""

PAUSE = 0.1
"""Seconds from one attempt to reach it to the next, at first."""

LONGEST_PAUSE = 1.0

LEAST_VECTOR = (0, 7)
"""The first version of pgvector that has an operator for the Hamming distance of bits."""

_DEFAULTS = {
    # A host that is gone says nothing; the system would wait for minutes, or hours.
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "fallback_application_name": "jv5kit",
}

T = TypeVar("T")


class Server:
    """The server of an address, reached when it is first asked; from several threads, each by a connection of its own.

    Attributes:
        name: as messages have it.
        vector: the version of pgvector there, once :meth:`check` has looked; ``(0,)`` where it is not installed.
    """

    def __init__(self, address: Address) -> None:
        self.name = address.name
        self.vector: tuple[int, ...] = (0,)
        given = conninfo_to_dict(address.conninfo)
        defaults = {
            name: value
            for name, value in _DEFAULTS.items()
            if name not in given and f"PG{name.upper()}" not in os.environ
        }
        # With the password, if the URL has one.
        self._conninfo = make_conninfo(address.conninfo, client_encoding="utf8", **defaults)
        self._several = "," in str(given.get("host", given.get("hostaddr", "")))
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._reached = False
        self._closed = False

    def __repr__(self) -> str:
        """Without the password."""
        return f"Server({self.name!r})"

    def ask(self, question: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """Ask a question; where the connection is lost, ask it again on another one.

        Args:
            question: called with a connection.
            patience: seconds to wait for a server that is away, by default :data:`PATIENCE`.

        Raises:
            LostError: the server could not be reached for so long, or never before.
            ReplacedError: a table of the question is not there (any more).
            Jv5kitError: the server refused to answer.
        """
        until, pause = 0.0, PAUSE
        while True:
            connection: Connection | None = None
            try:
                with self._connection() as connection:
                    return question(connection)
            except errors.UndefinedTable:
                raise ReplacedError from None
            except psycopg.Error as error:
                # Where there are several servers, one that only reads has become a standby.
                moved = self._several and isinstance(error, errors.ReadOnlySqlTransaction)
                if moved or not is_lost(error, connection):
                    problem = failure(error, self.name)
                else:
                    problem = cannot_connect(error, self.name)
                    moved = self._reached and not is_refused(error)
                if not moved:
                    raise problem from None
            self._drop_idle()
            now = time.monotonic()
            until = until or now + (PATIENCE if patience is None else patience)
            if now >= until:
                raise problem from None
            logger.info("%s was lost; trying again", self.name)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def check(self) -> None:
        """Look at what the server has.

        Raises:
            InputError: its pgvector is older than :data:`LEAST_VECTOR`, or the database is not in UTF-8.
        """
        found = self.ask(
            lambda connection: connection.execute(
                "SELECT current_setting('server_encoding'), "
                "(SELECT extversion FROM pg_extension WHERE extname = 'vector')"
            ).fetchone()
        )
        encoding, version = found or ("", None)
        if encoding != "UTF8":
            raise InputError(f"{self.name}: the database is in {encoding}; one in UTF8 is needed")
        self.vector = _numbers(version)
        if version is not None and self.vector < LEAST_VECTOR:
            least = ".".join(map(str, LEAST_VECTOR))
            raise InputError(
                f"{self.name}: the database has pgvector {version}, and {least} or newer is needed: install it on the "
                "server, then run ALTER EXTENSION vector UPDATE in the database"
            )

    def install_vector(self) -> None:
        """Make pgvector usable in the database, if it is not yet.

        Raises:
            InputError: the server does not have it, or only another user may.
        """
        self.check()
        if self.vector != (0,):
            return
        advice = "run CREATE EXTENSION vector in the database as a superuser"

        def create(connection: Connection) -> str | None:
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except errors.InsufficientPrivilege:
                return f"the database does not use pgvector, and this user may not change that: {advice}"
            except (errors.FeatureNotSupported, errors.UndefinedFile):
                least = ".".join(map(str, LEAST_VECTOR))
                return f"pgvector is not installed on the server: install {least} or newer, then {advice}"
            return None

        if problem := self.ask(create):
            raise InputError(f"{self.name}: {problem}")
        self.check()

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        self._drop_idle()

    def __enter__(self) -> Self:
        """It is reached when it is asked."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection of one's own, in autocommit."""
        if self._closed:
            raise Jv5kitError(f"{self.name} is closed")
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        finally:
            if connection.pgconn.transaction_status == TransactionStatus.IDLE and not self._closed:
                with self._lock:
                    self._idle.append(connection)
            else:
                # Broken, or left in the middle of an answer.
                connection.close()

    def _connect(self) -> Connection:
        connection = psycopg.connect(self._conninfo, autocommit=True)
        connection.adapters.register_dumper(Code, CodeDumper)
        connection.adapters.register_loader("json", JsonLoader)
        # A writer that has waited for another one's lock has to see what that one did, whatever the server's default.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        self._reached = True
        return connection

    def _drop_idle(self) -> None:
        with self._lock:
            dropped, self._idle = self._idle, []
        for connection in dropped:
            connection.close()


def _numbers(version: object) -> tuple[int, ...]:
    """A version as numbers that can be compared."""
    return tuple(int(part) for part in str(version or 0).split(".") if part.isdecimal())
