"""A hub of our own on this machine, so that its real client is tested without any network."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "46ed7da500112233445566778899aabbccddeeff"


@dataclass
class Hub:
    """What is served, and what was asked for.

    Attributes:
        folders: repositories by id, each with one commit.
        refused: error codes of the hub by repository that is not shown.
        revisions: names of the one commit.
        fetched: files that were downloaded.
        endpoint: where it answers.
    """

    folders: dict[str, Path]
    refused: dict[str, str] = field(default_factory=dict)
    revisions: tuple[str, ...] = ("main", "v1", COMMIT)
    fetched: set[str] = field(default_factory=set)
    endpoint: str = ""

    def environment(self, home: Path, **variables: str) -> dict[str, Any]:
        """Variables of a process that uses this hub, with a cache of its own; strings, to be given by name."""
        own = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return own | {"HF_TOKEN": "", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | variables


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve a hub."""

    class Handler(BaseHTTPRequestHandler):
        """Answers as the hub does."""

        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            match parts:
                case ["api", "models", owner, name, "revision" | "tree" as what, revision]:
                    found = self._find(f"{owner}/{name}", revision)
                    if isinstance(found, Path):
                        files = sorted(path for path in found.rglob("*") if path.is_file())
                        entries = [
                            {"type": "file", "path": str(path.relative_to(found)), "size": len(path.read_bytes())}
                            | {"oid": sha1(path.read_bytes()).hexdigest()}
                            for path in files
                        ]
                        info = {"id": f"{owner}/{name}", "sha": COMMIT, "private": False, "gated": False, "tags": []}
                        siblings = [{"rfilename": entry["path"]} for entry in entries]
                        self._send(json.dumps(entries if what == "tree" else info | {"siblings": siblings}).encode())
                case [owner, name, "resolve", revision, *path]:
                    found = self._find(f"{owner}/{name}", revision)
                    if isinstance(found, Path):
                        file = found.joinpath(*path)
                        if not file.is_file():
                            self._refuse("EntryNotFound", 404)
                            return
                        if body:
                            hub.fetched.add("/".join(path))
                        content = file.read_bytes()
                        self._send(content, {"ETag": f'"{sha1(content).hexdigest()}"'}, body=body)
                case _:
                    self._refuse("RepoNotFound", 404)

        def _find(self, repository: str, revision: str) -> Path | None:
            code = hub.refused.get(repository)
            if code is not None or repository not in hub.folders:
                self._refuse(code or "RepoNotFound", 403 if code == "GatedRepo" else 404)
            elif revision not in hub.revisions:
                self._refuse("RevisionNotFound", 404)
            else:
                return hub.folders[repository]
            return None

        def _refuse(self, code: str, status: int) -> None:
            self._send(b"{}", {"X-Error-Code": code, "X-Error-Message": code}, status=status)

        def _send(
            self, content: bytes, headers: dict[str, str] | None = None, *, status: int = 200, body: bool = True
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if body and self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
