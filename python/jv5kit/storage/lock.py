"""One writer at a time: a lock on a file that names its holder."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import TYPE_CHECKING, Self

from jv5kit.errors import IndexLockedError

if TYPE_CHECKING:
    from pathlib import Path


class WriteLock:
    """The right to write an index, held until :meth:`release` or the end of the process, however it ends.

    Raises:
        IndexLockedError: another process, or another part of this one, holds it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        while True:
            # Not through a link, which may lead to somebody's file.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            self._file = os.fdopen(descriptor, "a+b")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.seek(0)
                holder = self._file.read(200).decode(errors="replace").strip() or "another process"
                self._file.close()
                raise IndexLockedError(f"{folder} is being written by {holder}; wait until it is done") from None
            # A writer that made nothing removes its lock: one that is no longer there by this name locks nobody out.
            if path.exists() and path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                break
            self._file.close()
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._file.flush()

    def release(self) -> None:
        """Let others write."""
        self._file.close()

    def __enter__(self) -> Self:
        """The lock is held from its making on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self.release()
