"""The catalogue, ``index.sqlite``: settings, segments and documents.

SQLite has no checksums of its own. Here each document's row carries one, verified when it is returned, and the settings
and segments have one digest, written in the same transaction and verified whenever they are read.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jv5kit import _native
from jv5kit.errors import IndexDamagedError, IndexFormatError, IndexNotFoundError, Jv5kitError
from jv5kit.types import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jv5kit.types import Precision

FORMAT = 1
"""Version of the format on disk; a newer one is refused."""

APPLICATION_ID = 0x6A763521
"""Marks the file as ours, in SQLite's header."""

FILE = "index.sqlite"

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE catalog (settings TEXT NOT NULL, digest INTEGER NOT NULL);
CREATE TABLE segments (
    number INTEGER PRIMARY KEY, first_row INTEGER NOT NULL, rows INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE documents (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT, text TEXT NOT NULL, metadata TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
"""

_SIGNS_OF_DAMAGE = ("no such table", "no such column", "Could not decode", "file format", "malformed")
"""What SQLite says of a damaged schema or text, in an error that is otherwise one of use."""

_IDS_A_QUERY = 500
"""Values bound to one statement; every build of SQLite takes 999."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What built an index, so that a query is encoded the same way.

    Attributes:
        dim: dimensions stored.
        precision: how embeddings are stored.
        source_dim: dimensions of the embeddings before truncation; queries may have either.
        model: the model's name, or None where embeddings were given.
        fingerprint: of the model's files.
        query_prompt: put before each query.
        document_prompt: put before each document.
        generation: counts the indexes that were at this place; a row number means a document of one of them.
    """

    dim: int
    precision: Precision
    source_dim: int
    model: str | None = None
    fingerprint: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A segment as the catalogue knows it."""

    number: int
    first_row: int
    rows: int
    checksum: int

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.number:06d}.safetensors"


@dataclass(frozen=True, slots=True)
class State:
    """One committed state of an index."""

    settings: Settings
    segments: tuple[SegmentEntry, ...]

    @property
    def rows(self) -> int:
        """Documents in the index."""
        return sum(segment.rows for segment in self.segments)


class ReplacedError(Exception):
    """The index was replaced by another one while it was read: read again."""


class Catalog:
    """A connection to ``index.sqlite``; safe from several threads.

    Raises:
        IndexNotFoundError: there is no index.
        IndexFormatError: its format is newer than this version knows.
        IndexDamagedError: the file is no sound catalogue.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.path = folder / FILE
        if not self.path.is_file() or self.path.is_symlink():
            raise IndexNotFoundError(f"{folder} is no jv5kit index (it has no {FILE})")
        if (folder / "segments").is_symlink():
            raise IndexDamagedError.of(folder / "segments", "it is a symbolic link")
        self._lock = threading.RLock()
        self._write = write
        with self.damage():
            self._connection = _connect(self.path, write=write)
            self._inode = self.path.stat().st_ino
            try:
                self._check_header()
            except BaseException:
                self._connection.close()
                raise

    @staticmethod
    def create(folder: Path, settings: Settings) -> None:
        """Make the catalogue of an empty index; it has its name when it is whole."""
        path = folder / f"{FILE}.tmp"
        with _connection_errors(folder / FILE):
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(f"BEGIN;{_SCHEMA}")
                text = _settings_json(settings)
                connection.execute("INSERT INTO catalog VALUES (?, ?)", (text, _digest(text, ())))
                connection.execute("COMMIT")
                # Last, so that nothing is in a WAL: one that could not be checkpointed would keep the wrong name.
                connection.execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
        path.replace(folder / FILE)

    def close(self) -> None:
        """Close the connection; that of a writer leaves everything in the one file, with nothing in a WAL beside it."""
        with self._lock:
            if self._write:
                # SQLite does so itself only where no reader is left. What is in is in, whether this works or not.
                with suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA busy_timeout = 100")
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def version(self) -> int:
        """A number that changes whenever another connection commits."""
        with self._lock, self.damage():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def is_gone(self) -> bool:
        """Whether the file was removed, and perhaps another one put in its place."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def state(self) -> State:
        """The newest committed state, verified."""
        with self._lock, self.damage(), self._transaction("BEGIN"):
            return self._state()

    def documents(self, rows: Sequence[int], settings: Settings) -> dict[int, Document]:
        """The documents of some rows, verified.

        Raises:
            ReplacedError: the index has other settings by now than those under which the rows were found.
        """
        with self._lock, self.damage(), self._transaction("BEGIN"):
            (text,) = self._connection.execute("SELECT settings FROM catalog").fetchone()
            if Settings(**json.loads(text)) != settings:
                raise ReplacedError
            found = dict(self._select("row", rows))
        missing = set(rows) - set(found)
        if missing:
            raise IndexDamagedError.of(self.path, f"the document of row {min(missing)} is missing")
        return found

    def find(self, ids: Sequence[str]) -> dict[str, tuple[int, Document]]:
        """Row and document of each id that is in the index."""
        return {document.id: (row, document) for row, document in self._select("id", ids)}

    def commit(
        self,
        documents: Sequence[tuple[Document, str]],
        first_row: int,
        state: State,
    ) -> None:
        """Add documents with their metadata as JSON, and make ``state`` the state of the index, in one transaction.

        A state of another generation replaces all that was there.
        """
        records = [
            (row, document.id, document.title, document.text, metadata, _document_checksum(row, document, metadata))
            for row, (document, metadata) in enumerate(documents, first_row)
        ]
        entries = [(entry.number, entry.first_row, entry.rows, entry.checksum) for entry in state.segments]
        settings = _settings_json(state.settings)
        with self._lock, self.damage(), self._transaction("BEGIN IMMEDIATE"):
            if self._state().settings.generation != state.settings.generation:
                self._connection.execute("DELETE FROM documents")
            self._connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", records)
            self._connection.execute("DELETE FROM segments")
            self._connection.executemany("INSERT INTO segments VALUES (?, ?, ?, ?)", entries)
            self._connection.execute(
                "UPDATE catalog SET settings = ?, digest = ?", (settings, _digest(settings, entries))
            )

    @contextmanager
    def damage(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        with _connection_errors(self.path):
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _state(self) -> State:
        """The state that the transaction under way sees, verified."""
        catalog = self._connection.execute("SELECT settings, digest FROM catalog").fetchall()
        entries = self._connection.execute(
            "SELECT number, first_row, rows, checksum FROM segments ORDER BY first_row"
        ).fetchall()
        if len(catalog) != 1 or not isinstance(catalog[0][0], str) or catalog[0][1] != _digest(catalog[0][0], entries):
            raise IndexDamagedError.of(self.path, "its settings and segments do not match their checksum")
        return State(Settings(**json.loads(catalog[0][0])), tuple(SegmentEntry(*entry) for entry in entries))

    def _select(self, column: str, values: Sequence[Any]) -> Iterator[tuple[int, Document]]:
        for start in range(0, len(values), _IDS_A_QUERY):
            part = values[start : start + _IDS_A_QUERY]
            marks = ",".join("?" * len(part))
            with self._lock, self.damage():
                records = self._connection.execute(
                    f"SELECT row, id, title, text, metadata, checksum FROM documents WHERE {column} IN ({marks})", part
                ).fetchall()
            for row, identifier, title, text, metadata, checksum in records:
                yield row, self._verified(row, identifier, title, text, metadata, checksum)

    def _verified(self, row: int, identifier: Any, title: Any, text: Any, metadata: Any, checksum: Any) -> Document:
        strings = all(isinstance(value, str) for value in (identifier, title or "", text, metadata))
        if strings:
            document = Document(identifier, text, title)
            if _document_checksum(row, document, metadata) == checksum:
                document.metadata.update(json.loads(metadata))
                return document
        raise IndexDamagedError.of(self.path, f"the document of row {row} does not match its checksum")

    def _check_header(self) -> None:
        application_id = self._connection.execute("PRAGMA application_id").fetchone()[0]
        if application_id != APPLICATION_ID:
            raise IndexNotFoundError(f"{self.path} is an SQLite database, but not one of jv5kit's")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise IndexFormatError(
                f"{self.path} has format {version}; this jv5kit reads up to {FORMAT}: pip install --upgrade jv5kit"
            )
        if version < 1:
            raise IndexDamagedError.of(self.path, f"it claims format {version}")


def _connect(path: Path, *, write: bool) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
    try:
        connection = _open(uri)
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        # A reader of a WAL database needs a shared-memory file beside it. Where there is none and it may not make one,
        # it reads the file alone, which has everything once the last writer closed it.
        wal = path.with_name(f"{path.name}-wal")
        if write or os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size):
            raise
        connection = _open(f"{uri}&immutable=1")
    connection.execute("PRAGMA busy_timeout = 10000")
    if write:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


def _open(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


@contextmanager
def _connection_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.ProgrammingError as error:
        if "closed" in str(error):
            raise Jv5kitError(f"{path}: the index was closed; open it again") from None
        raise
    except (sqlite3.IntegrityError, sqlite3.InterfaceError):
        raise
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise IndexDamagedError.of(path, str(error)) from error
    except sqlite3.OperationalError as error:
        if any(sign in str(error) for sign in _SIGNS_OF_DAMAGE):
            raise IndexDamagedError.of(path, str(error)) from error
        raise Jv5kitError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IndexDamagedError.of(path, str(error)) from error


def _settings_json(settings: Settings) -> str:
    return json.dumps(asdict(settings), ensure_ascii=False, sort_keys=True)


def _digest(settings: str, entries: Sequence[tuple[int, int, int, int]]) -> int:
    return _native.crc32c(json.dumps([settings, [list(entry) for entry in entries]]).encode())


def _document_checksum(row: int, document: Document, metadata: str) -> int:
    # No string holds a NUL, so the fields cannot run into each other.
    fields = (str(row), document.id, document.title or "", document.text, metadata)
    return _native.crc32c("\0".join(fields).encode())
