"""Connections to ``index.sqlite``, and what SQLite's errors mean."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from jv5kit.errors import IndexDamagedError, IndexFormatError, IndexNotFoundError, Jv5kitError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Journal = Literal["wal", "delete"]

FORMAT = 3
"""Newest version of the format on disk; a newer one is refused. :attr:`Settings.format` has that of an index."""

APPLICATION_ID = 0x6A763521
"""Marks the file as ours, in SQLite's header."""

_SIGNS_OF_DAMAGE = ("no such table", "no such column", "Could not decode", "file format", "malformed")
"""What SQLite says of a damaged schema or text, in an error that is otherwise one of use."""


def connect(
    path: Path, *, write: bool, journal: Journal = "wal", immutable: bool = False
) -> tuple[sqlite3.Connection, bool]:
    """Open the database of an index; one connection may serve several threads, one at a time.

    Args:
        path: of the database.
        write: open it for writing too.
        journal: of a writer: the rollback journal (``"delete"``) where the folder may be on a network, whose machines
            share no memory for a WAL.
        immutable: nobody will ever write it again, so that neither locks nor files beside it are looked for.

    Returns:
        The connection, and whether it follows what others write.
    """
    follows = not immutable
    uri = f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}{'&immutable=1' if immutable else ''}"
    try:
        connection = _open(uri)
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        # A reader of a WAL database needs a shared-memory file beside it. Where there is none and it may not make one,
        # it reads the file alone, which has everything once the last writer closed it.
        wal = path.with_name(f"{path.name}-wal")
        if write or os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size):
            raise
        connection, follows = _open(f"{uri}&immutable=1"), False
    connection.execute("PRAGMA busy_timeout = 10000")
    if write:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        # Of a rollback journal it is the removal that commits: it has to last as well.
        connection.execute(f"PRAGMA synchronous = {'FULL' if journal == 'wal' else 'EXTRA'}")
    return connection, follows


def create(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """Make the database of an index of some format, with its tables; a transaction is under way that makes the rest."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    mark = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"
    connection.executescript(f"BEGIN;{mark}{schema}")
    return connection


def format_of(connection: sqlite3.Connection, path: Path) -> int:
    """The format of an index.

    Raises:
        IndexNotFoundError: it is the database of another program.
        IndexFormatError: the format is newer than this version knows.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise IndexNotFoundError(f"{path} is an SQLite database, but not one of jv5kit's")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > FORMAT:
        raise IndexFormatError(
            f"{path} has format {version}; this jv5kit reads up to {FORMAT}: pip install --upgrade jv5kit"
        )
    if version < 1:
        raise IndexDamagedError.of(path, f"it claims format {version}")
    return version


@contextmanager
def our_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        if "closed" in str(error):
            raise Jv5kitError(f"{path}: the index was closed; open it again") from None
        raise
    except sqlite3.InterfaceError:
        raise
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise IndexDamagedError.of(path, str(error)) from error
    except sqlite3.OperationalError as error:
        if any(sign in str(error) for sign in _SIGNS_OF_DAMAGE):
            raise IndexDamagedError.of(path, str(error)) from error
        raise Jv5kitError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IndexDamagedError.of(path, str(error)) from error


def _open(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
