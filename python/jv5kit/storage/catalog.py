"""The catalogue, ``index.sqlite``: settings, segments, deletions and documents.

SQLite has no checksums of its own. Here each document's row carries one, verified when it is returned; settings and
segments have one digest, written in the same transaction and verified whenever they are read, which covers the
checksums of the deletions. Documents are looked up by row only, and which rows there are is known from the segments, so
that a row that is missing is noticed as well. (Ids are looked up in the segments, see :mod:`jv5kit.storage.ids`.)
"""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jv5kit import _native
from jv5kit.errors import IndexDamagedError, IndexNotFoundError
from jv5kit.storage import connection, lexical
from jv5kit.storage.head import read_head
from jv5kit.storage.state import SegmentEntry, Settings, State, digest
from jv5kit.types import Document

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from jv5kit.storage.connection import Journal

    Record = tuple[int, str, str | None, str, str, int]

FILE = "index.sqlite"

SCHEMA = """
CREATE TABLE catalog (
    settings TEXT NOT NULL, next_row INTEGER NOT NULL, graph TEXT NOT NULL, number INTEGER NOT NULL,
    digest INTEGER NOT NULL
);
CREATE TABLE segments (
    number INTEGER PRIMARY KEY, first_row INTEGER NOT NULL, rows INTEGER NOT NULL, checksum INTEGER NOT NULL,
    layout TEXT NOT NULL, deleted INTEGER NOT NULL, deletions INTEGER NOT NULL
);
CREATE TABLE deletions (
    segment INTEGER NOT NULL, block INTEGER NOT NULL, rows BLOB NOT NULL, PRIMARY KEY (segment, block)
) WITHOUT ROWID;
CREATE TABLE dead (row INTEGER PRIMARY KEY);
CREATE TABLE documents (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL, title TEXT, text TEXT NOT NULL, metadata TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
"""

_ROWS_A_QUERY = 500
"""Values bound to one statement; every build of SQLite takes 999."""


_TRACES = -1
"""Among the dead rows: texts of purged documents may still be in the file."""


class ReplacedError(Exception):
    """What was read is of an older state, whose documents are gone: take up the newest one."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction does.

    Attributes:
        state: the state of the index afterwards. A state of another generation replaces all that was there.
        documents: to add, as records.
        deletions: blocks of the bitmaps of deleted rows, ``(segment, block, bitmap)``.
        dead: rows whose documents are deleted; what older states still show of them stays until they are purged.
        purge: remove the documents of dead rows.
    """

    state: State
    documents: Sequence[Record] = ()
    deletions: Sequence[tuple[int, int, bytes]] = ()
    dead: Sequence[int] = ()
    purge: Sequence[int] = field(default=())


def record(row: int, document: Document, metadata: str) -> Record:
    """A document, its metadata as JSON, as a row of the catalogue; an empty title is none."""
    checksum = _checksum(row, document.id, document.title, document.text, metadata)
    return (row, document.id, document.title or None, document.text, metadata, checksum)


class Catalog:
    """A connection to ``index.sqlite``, see :func:`~jv5kit.storage.connection.connect`; safe from several threads.

    Raises:
        IndexNotFoundError: there is no index.
        IndexFormatError: its format is newer than this version knows.
        IndexDamagedError: the file is no sound catalogue.
    """

    def __init__(self, folder: Path, *, write: bool = False, journal: Journal = "wal", immutable: bool = False) -> None:
        self.path = folder / FILE
        if not self.path.is_file() or self.path.is_symlink():
            in_shards = "; it is one in shards, which this is not for" if (folder / "shards.json").exists() else ""
            raise IndexNotFoundError(f"{folder} is no jv5kit index (it has no {FILE}){in_shards}")
        if (folder / "segments").is_symlink():
            raise IndexDamagedError.of(folder / "segments", "it is a symbolic link")
        self._lock = threading.RLock()
        self._write = write
        with self.damage():
            self._connection, self._follows = connection.connect(
                self.path, write=write, journal=journal, immutable=immutable
            )
            self._file = self._file_now()
            try:
                self.format = connection.format_of(self._connection, self.path)
            except BaseException:
                self._connection.close()
                raise

    @staticmethod
    def create(folder: Path, settings: Settings, journal: Journal = "wal") -> None:
        """Make the catalogue of an empty index; it has its name when it is whole."""
        path = folder / f"{FILE}.tmp"
        with connection.our_errors(folder / FILE):
            created = connection.create(path, SCHEMA, settings.format)
            try:
                state = State(settings)
                created.execute("INSERT INTO catalog VALUES (?, ?, ?, ?, ?)", (*state.record(), state.digest()))
                if settings.lexical:
                    lexical.create(created)
                created.execute("COMMIT")
                # Last, so that nothing is in a WAL: one that could not be checkpointed would keep the wrong name.
                created.execute(f"PRAGMA journal_mode = {journal}")
            finally:
                created.close()
        path.replace(folder / FILE)

    def close(self) -> None:
        """Close the connection; that of a writer leaves everything in the one file, with nothing in a WAL beside it."""
        with self._lock:
            if self._write:
                # SQLite does so itself only where no reader is left. What is in is in, whether this works or not.
                with suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA busy_timeout = 0")
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def version(self) -> int:
        """A number that changes whenever another connection commits."""
        with self._lock, self.damage():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def is_gone(self) -> bool:
        """Whether the file was removed, and perhaps another one put in its place; or written, if that is not seen."""
        try:
            return self._file_now() != self._file
        except FileNotFoundError:
            return True

    def _file_now(self) -> tuple[int, ...]:
        found = self.path.stat()
        return (found.st_ino,) if self._follows else (found.st_ino, found.st_size, found.st_mtime_ns)

    def state(self) -> State:
        """The newest committed state, verified."""
        with self._lock, self.damage():
            acknowledged = self._acknowledged()
            with self.transaction("BEGIN"):
                return self._state(acknowledged)

    def load(self, known: Collection[SegmentEntry] = ()) -> tuple[State, dict[int, dict[int, bytes]]]:
        """The newest committed state, and the bitmaps of deleted rows, by segment and block, of what is not known."""
        select = "SELECT block, rows FROM deletions WHERE segment = ? ORDER BY block"
        with self._lock, self.damage():
            acknowledged = self._acknowledged()
            with self.transaction("BEGIN"):
                state = self._state(acknowledged)
                changed = [entry.number for entry in state.segments if entry.deleted and entry not in known]
                return state, {number: dict(self._connection.execute(select, (number,))) for number in changed}

    def documents(self, rows: Sequence[int], state: State) -> dict[int, Document]:
        """The documents of some rows that are in ``state``, verified.

        Raises:
            ReplacedError: the index has another state by now, in which some are gone.
            IndexDamagedError: a document is not what was written, or is missing.
        """
        with self._lock, self.damage(), self.transaction("BEGIN"):
            self._refuse_another(state)
            found = dict(self.select(rows))
            missing = set(rows) - set(found)
            if missing:
                if self._state() != state:
                    raise ReplacedError
                raise IndexDamagedError.of(self.path, f"the document of row {min(missing)} is missing")
        return found

    def select(self, rows: Sequence[int]) -> Iterator[tuple[int, Document]]:
        """Row and document of each row that there is, verified."""
        for start in range(0, len(rows), _ROWS_A_QUERY):
            part = rows[start : start + _ROWS_A_QUERY]
            marks = ",".join("?" * len(part))
            with self._lock, self.damage():
                records = self._connection.execute(f"SELECT * FROM documents WHERE row IN ({marks})", part).fetchall()
            for found in records:
                yield found[0], self._verified(*found)

    def stream(self, first: int, last: int) -> Iterator[tuple[int, Document]]:
        """Row and document of all rows from ``first`` to ``last``, in order, verified."""
        while True:
            with self._lock, self.damage():
                records = self._connection.execute(
                    "SELECT * FROM documents WHERE row BETWEEN ? AND ? ORDER BY row LIMIT ?", (first, last, 10_000)
                ).fetchall()
            for found in records:
                yield found[0], self._verified(*found)
            if len(records) < 10_000:
                return
            first = records[-1][0] + 1

    def dead(self) -> list[int]:
        """Rows whose documents are deleted, but not yet purged."""
        if self.format == 1:
            return []
        with self._lock, self.damage():
            return [row for (row,) in self._connection.execute("SELECT row FROM dead WHERE row >= 0 ORDER BY row")]

    def holds_traces(self) -> bool:
        """Whether documents were purged since :meth:`shrink` wiped their texts for the last time."""
        with self._lock, self.damage():
            return self._connection.execute("SELECT 1 FROM dead WHERE row = ?", (_TRACES,)).fetchone() is not None

    @contextmanager
    def lexical_rows(self, query: str, state: State) -> Iterator[Iterator[int]]:
        """Rows whose texts match a query of words, the best first, deleted ones among them; read them within.

        Raises:
            ReplacedError: there is another index by now than that of ``state``.
        """
        # Ended here: a generator that an error keeps would be ended by any thread, and the lock is this one's.
        with self._lock, self.damage(), self.transaction("BEGIN"):
            self._refuse_another(state)
            with closing(lexical.rows(self._connection, query)) as rows:
                yield rows

    def commit(self, change: Change) -> None:
        """Make a change, in one transaction."""
        with self._lock, self.damage(), self.transaction("BEGIN IMMEDIATE"):
            self.apply(change)

    def apply(self, change: Change) -> None:
        """Make a change within the transaction under way."""
        execute, state = self._connection.execute, change.state
        old = self._settings()
        if old.generation != state.settings.generation:
            for table in ("documents", "deletions", "dead"):
                execute(f"DELETE FROM {table}")
            execute(f"PRAGMA user_version = {state.settings.format}")
            if old.lexical:
                lexical.drop(self._connection)
            if state.settings.lexical:
                lexical.create(self._connection)
        self._connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", change.documents)
        if state.settings.lexical:
            lexical.add(self._connection, change.documents)
            lexical.remove(self._connection, change.purge)
        present = {entry.number for entry in state.segments}
        gone = {number for (number,) in execute("SELECT number FROM segments")} - present
        execute("DELETE FROM segments")
        self._connection.executemany(
            "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)", [entry.record() for entry in state.segments]
        )
        self._connection.executemany("INSERT OR REPLACE INTO deletions VALUES (?, ?, ?)", change.deletions)
        self._connection.executemany("DELETE FROM deletions WHERE segment = ?", [(number,) for number in gone])
        self._connection.executemany("INSERT INTO dead VALUES (?)", [(row,) for row in change.dead])
        if change.purge:
            execute("INSERT OR IGNORE INTO dead VALUES (?)", (_TRACES,))
        for row in change.purge:
            execute("DELETE FROM documents WHERE row = ?", (row,))
            execute("DELETE FROM dead WHERE row = ?", (row,))
        execute(
            "UPDATE catalog SET settings = ?, next_row = ?, graph = ?, number = ?, digest = ?",
            (*state.record(), state.digest()),
        )

    def execute_script(self, *statements: str) -> None:
        """Run statements that take no values."""
        for statement in statements:
            self._connection.execute(statement)

    def shrink(self) -> None:
        """Give the space of purged documents back to the disk, and wipe their texts."""
        with self._lock, self.damage():
            if self._settings().lexical:
                lexical.wipe(self._connection)
            self.execute_script("VACUUM", f"DELETE FROM dead WHERE row = {_TRACES}", "PRAGMA wal_checkpoint(TRUNCATE)")

    def problems(self, *, words: bool) -> list[str]:
        """What SQLite's own check of the file, and of the lexical index if that is asked for, finds wrong.

        The latter takes a connection that may write.
        """
        with self._lock, self.damage():
            found = [text for (text,) in self._connection.execute("PRAGMA integrity_check(10)") if text != "ok"]
            if words and self._settings().lexical:
                found += lexical.problems(self._connection)
        return [f"{self.path}: {problem}" for problem in found]

    @contextmanager
    def damage(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        with connection.our_errors(self.path):
            yield

    @contextmanager
    def transaction(self, begin: str) -> Iterator[None]:
        """All that is done within happens together, or not at all."""
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _acknowledged(self) -> int:
        """The number of the last acknowledged commit, read before the state that must have it."""
        return 0 if self.format == 1 else read_head(self.path.parent)

    def _refuse_another(self, state: State) -> None:
        """Refuse to go on where the transaction under way sees another index than that of ``state``."""
        (text,) = self._connection.execute("SELECT settings FROM catalog").fetchone()
        if text != state.settings.to_json() and Settings(**json.loads(text)) != state.settings:
            raise ReplacedError

    def _settings(self) -> Settings:
        (text,) = self._connection.execute("SELECT settings FROM catalog").fetchone()
        return Settings(**json.loads(text))

    def _state(self, acknowledged: int = 0) -> State:
        """The state that the transaction under way sees, verified; ``acknowledged`` commits must be in it."""
        if self.format == 1:
            # Another process may have brought the index to the present format.
            self.format = connection.format_of(self._connection, self.path)
        catalog = self._connection.execute("SELECT * FROM catalog").fetchall()
        entries = self._connection.execute("SELECT * FROM segments ORDER BY first_row").fetchall()
        if len(catalog) != 1 or not isinstance(catalog[0][0], str):
            raise IndexDamagedError.of(self.path, "its settings are not there")
        *record, found = catalog[0]
        if self.format == 1:
            expected = _native.crc32c(json.dumps([*record, [list(entry) for entry in entries]]).encode())
            record += [sum(rows for _, _, rows, *_ in entries)]
        else:
            expected = digest(record, entries)
        if found != expected:
            raise IndexDamagedError.of(self.path, "its settings and segments do not match their checksum")
        settings, *others = record
        state = State(Settings(**json.loads(settings)), tuple(SegmentEntry(*entry) for entry in entries), *others)
        if state.commit < acknowledged:
            raise IndexDamagedError.of(
                self.path, f"it ends with commit {state.commit}, but commit {acknowledged} was acknowledged"
            )
        return state

    def _verified(self, row: int, identifier: Any, title: Any, text: Any, metadata: Any, checksum: Any) -> Document:
        # A number is no title, not even 0.
        strings = all(isinstance(value, str) for value in (identifier, "" if title is None else title, text, metadata))
        if strings and _checksum(row, identifier, title, text, metadata) == checksum:
            return Document(identifier, text, title or None, json.loads(metadata))
        raise IndexDamagedError.of(self.path, f"the document of row {row} does not match its checksum")


def _checksum(row: int, identifier: str, title: str | None, text: str, metadata: str) -> int:
    # No string holds a NUL, so the fields cannot run into each other.
    return _native.crc32c("\0".join((str(row), identifier, title or "", text, metadata)).encode())
