"""The writer of an index: each batch is a transaction, and many writers may be at work at once.

A transaction begins by locking the row of the index in the catalogue, so that rows are numbered in the order of their
commits. It ends by noting, under the name of the writer, how many commits that has made: where the connection is lost,
and nobody can tell whether the transaction was committed, the next one looks there first. (The number of a transaction
would not do: a standby that takes over gives the numbers anew that it never heard of.)
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from psycopg import errors

from jv5kit import _native
from jv5kit.building import ChangedError
from jv5kit.errors import IndexExistsError, IndexNotFoundError, Jv5kitError
from jv5kit.storage.catalog import ReplacedError
from jv5kit.storage.vectors import same_vectors, vector_specs
from jv5kit.stores.postgres.failures import LostError
from jv5kit.stores.postgres.filtering import Gathered, as_sql
from jv5kit.stores.postgres.reading import documents_of, fetch
from jv5kit.stores.postgres.rows import copy_codes, copy_documents
from jv5kit.stores.postgres.tables import FORMAT, Stored, Tables, lock_catalogue, one

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from jv5kit.filters import Filter
    from jv5kit.rotation import Rotation
    from jv5kit.storage.state import Settings
    from jv5kit.stores.postgres.address import Address
    from jv5kit.stores.postgres.connection import Connection, Server
    from jv5kit.types import Document

MAX_ID_BYTES = 2_000
"""Of the longest id; an entry of a B-tree takes a third of a page."""

_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', true) "
    "WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
)
"""What is acknowledged must outlive the server, and the primary where a standby is to have it."""


class PostgresWriter:
    """The right to write an index, shared with others. Make one with :meth:`create` or :meth:`open`, and close it.

    A new index exists from its first commit on: the same transaction takes away an index that it replaces.
    """

    max_id_bytes = MAX_ID_BYTES

    def __init__(self, server: Server, address: Address, settings: Settings) -> None:
        self.settings = settings
        self.rotation: Rotation | None = None
        self.next_row = self.documents = 0
        self._server = server
        self._address = address
        self._number: int | None = None
        self._force = False
        self._own: list[range] = []
        # Ids of a new index are new, as a rule. Where one is not, the commit that tries is refused.
        self._looks = False
        # Of this writer, for the note of its commits.
        self._id, self._commits = uuid.uuid4(), 0

    @classmethod
    def create(cls, server: Server, address: Address, settings: Settings, *, force: bool) -> Self:
        """Begin a new index; nothing of it is there before its first commit."""
        writer = cls(server, address, settings)
        writer._force = force
        return writer

    @classmethod
    def open(cls, server: Server, address: Address) -> Self:
        """Go on with an index.

        Raises:
            IndexNotFoundError: there is none.
        """
        stored = server.ask(lambda connection: Stored.read(connection, address))
        writer = cls(server, address, stored.settings)
        writer.rotation = stored.rotation
        writer.next_row, writer.documents = stored.next_row, stored.documents
        writer._number = stored.number
        writer._looks = True
        return writer

    @property
    def name(self) -> str:
        """The URL, as messages have it."""
        return self._address.name

    def added(self, row: int) -> bool:
        """Whether this writer has added a row."""
        return any(row in rows for rows in self._own)

    def find(self, ids: Sequence[str]) -> dict[str, tuple[list[int], Document]]:
        """The row and the document of each id that is in the index; none, as long as all ids were new so far."""
        if not self._looks:
            return {}
        tables = Tables(self._present())
        found = self._ask(lambda connection: documents_of(connection, tables, "id", list(ids)))
        return {document.id: ([row], document) for row, document in found.items()}

    def same_rows(self, rows: NDArray[np.int64], tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether each of some documents of the index (rows, ascending) has the given tensors' row."""
        tables, settings = Tables(self._present()), self.settings
        stored = self._ask(lambda connection: fetch(connection, tables, settings, rows.tolist()))
        there = np.flatnonzero(np.isin(rows, stored.row_numbers))
        # A row is asked for as often as its id is in the batch.
        positions = np.searchsorted(stored.row_numbers, rows[there])
        # What another writer has deleted meanwhile is not the same.
        same = np.zeros(len(rows), np.bool_)
        same[there] = True
        for name, *_ in vector_specs(settings, len(rows)):
            same[there] &= same_vectors(settings, name, stored.tensor(name)[positions], tensors[name][there])
        return same

    def set_rotation(self, rotation: Rotation) -> None:
        """Give a new index, before its first commit, its rotation."""
        self.rotation = rotation
        self.settings = replace(self.settings, rotation=_native.crc32c(_matrix(rotation)))

    def commit(
        self,
        documents: Sequence[Document],
        tensors: Mapping[str, NDArray[Any]],
        delete: Sequence[int] = (),
    ) -> None:
        """Add documents and their rows, and delete others, all or nothing.

        Raises:
            ChangedError: an id is taken, or a row to delete is gone, since they were looked up.
        """
        gathered = Gathered([document.metadata for document in documents])

        def change(connection: Connection, tables: Tables, first: int) -> int:
            if _delete(connection, tables, list(delete)) < len(delete):
                raise ChangedError
            try:
                copy_documents(connection, tables, first, documents, tensors)
            except errors.UniqueViolation:
                self._looks = True
                raise ChangedError from None
            copy_codes(connection, tables, first, tensors["codes"], gathered.values)
            gathered.write(connection, tables)
            return len(delete)

        self._change(change, len(documents))

    def delete(self, ids: Sequence[str] | None, condition: Filter | None) -> tuple[int, set[str]]:
        """Delete the documents of some ids, or those that a filter keeps; how many, and the ids that were there."""
        found: set[str] = set()

        def change(connection: Connection, tables: Tables, _: int) -> int:
            found.clear()
            if condition is not None:
                text, parameters = as_sql(condition)
                statement = f"SELECT row FROM {tables.codes} WHERE {text}"
                rows = [row for (row,) in connection.execute(statement, parameters)]
            else:
                statement = f"SELECT row, id FROM {tables.documents} WHERE id = ANY(%s)"
                wanted = connection.execute(statement, (list(ids or ()),)).fetchall()
                rows = [row for row, _ in wanted]
                found.update(identifier for _, identifier in wanted)
            return _delete(connection, tables, rows)

        return self._change(change, 0), found

    def grow_graph(self) -> None:
        """Make the graph of an index that is to have one, unless it is there."""
        if not self.settings.hnsw:
            return
        tables = Tables(self._present())

        def grow(connection: Connection) -> None:
            with connection.transaction():
                # One of several writers makes it.
                self._locked(connection)
                tables.grow_graph(connection)

        self._ask(grow)

    def close(self) -> None:
        """End. A new index without documents comes into being here."""
        if self._number is None:
            self._change(lambda *_: 0, 0)
        tables = Tables(self._present())
        self._ask(tables.analyze)
        self.abandon()

    def abandon(self) -> None:
        """End, and leave things as the last commit left them."""
        if self._commits:
            forget = "DELETE FROM jv5kit_writers WHERE writer = %s"
            # Otherwise it goes with time.
            with suppress(Jv5kitError, ReplacedError):
                self._server.ask(lambda connection: connection.execute(forget, (self._id,)), patience=0)
        self._commits = 0

    def _present(self) -> int:
        assert self._number is not None
        return self._number

    def _ask(self, question: Callable[[Connection], Any]) -> Any:
        try:
            return self._server.ask(question)
        except ReplacedError:
            raise self._replaced() from None

    def _replaced(self) -> Jv5kitError:
        return Jv5kitError(
            f"{self.name} was removed or replaced by another index meanwhile; nothing was added, try again"
        )

    def _change(self, work: Callable[[Connection, Tables, int], int], added: int) -> int:
        """Change the index in one transaction, which finds out itself whether it is done already.

        Args:
            work: changes the tables, numbering new rows from a number on, and returns how many documents it deleted.
            added: documents that it adds.

        Returns:
            How many documents were deleted.
        """
        deleted = first = 0

        def change(connection: Connection) -> None:
            nonlocal deleted, first
            with connection.transaction():
                connection.execute(_DURABLE)
                number, next_row = self._locked(connection)
                done = self._done(connection)
                if done is None:
                    first = next_row
                    if number is None:
                        number = self._create(connection)
                    tables = Tables(number)
                    deleted = work(connection, tables, first)
                    connection.execute(
                        "UPDATE jv5kit_indexes SET next_row = next_row + %s, documents = documents + %s, "
                        "commits = commits + 1 WHERE number = %s",
                        (added, added - deleted, number),
                    )
                    self._note(connection, number)
                else:
                    number = done
                counted = connection.execute("SELECT documents FROM jv5kit_indexes WHERE number = %s", (number,))
                (documents,) = one(counted.fetchone())
                if not documents:
                    connection.execute(f"DELETE FROM {Tables(number).fields}")
            self._number, self.documents = number, documents

        try:
            self._ask(change)
        except LostError as error:
            raise LostError(
                f"{error}; whether the last batch is there is not known: documents that are there already are passed "
                "over when they are added again"
            ) from None
        self._commits += 1
        if added:
            # One range, as long as nobody else comes between.
            start = self._own.pop().start if self._own and self._own[-1].stop == first else first
            self._own.append(range(start, first + added))
            self.next_row = first + added
        return deleted

    def _locked(self, connection: Connection) -> tuple[int | None, int]:
        """The index, locked until the transaction ends: its number, None if it is not there yet, and its next row."""
        if self._number is None:
            lock_catalogue(connection)
            return None, 0
        found = connection.execute(
            "SELECT number, next_row FROM jv5kit_indexes WHERE number = %s FOR UPDATE", (self._number,)
        ).fetchone()
        if found is None:
            raise ReplacedError
        number, next_row = found
        return number, next_row

    def _done(self, connection: Connection) -> int | None:
        """The number of the index, if what the transaction under way is for is there already."""
        found = connection.execute(
            "SELECT number FROM jv5kit_writers WHERE writer = %s AND commits > %s", (self._id, self._commits)
        ).fetchone()
        return None if found is None else int(found[0])

    def _note(self, connection: Connection, number: int) -> None:
        """Note that the transaction under way is done when it is committed."""
        connection.execute(
            "INSERT INTO jv5kit_writers VALUES (%s, %s, %s, now()) "
            "ON CONFLICT (writer) DO UPDATE SET commits = excluded.commits, at = excluded.at",
            (self._id, number, self._commits + 1),
        )
        if not self._commits:
            connection.execute("DELETE FROM jv5kit_writers WHERE at < now() - interval '7 days'")

    def _create(self, connection: Connection) -> int:
        """Make the index, and take away the one that it replaces; its number."""
        found = connection.execute(
            "SELECT number FROM jv5kit_indexes WHERE name = %s FOR UPDATE", (self._address.index,)
        ).fetchone()
        if found is not None:
            check_free(connection, self._address, force=self._force)
            connection.execute("DELETE FROM jv5kit_indexes WHERE number = %s", found)
            Tables(found[0]).drop(connection)
        values = (
            self._address.index,
            FORMAT,
            self.settings.to_json(),
            None if self.rotation is None else _matrix(self.rotation),
        )
        (number,) = one(
            connection.execute(
                "INSERT INTO jv5kit_indexes (name, format, settings, rotation, next_row, documents, commits) "
                "VALUES (%s, %s, %s, %s, 0, 0, 0) RETURNING number",
                values,
            ).fetchone()
        )
        Tables(number).create(connection, self.settings)
        return int(number)


def check_free(connection: Connection, address: Address, *, force: bool) -> None:
    """Refuse a name that an index has, unless it is to be replaced.

    Raises:
        IndexExistsError: it has.
    """
    if force:
        return
    try:
        stored = Stored.read(connection, address)
    except IndexNotFoundError:
        return
    raise IndexExistsError(
        f"{address.name} is an index already ({stored.documents} documents); add to it with --append (Index.add), or "
        "replace it with --force (force=True)"
    )


def _delete(connection: Connection, tables: Tables, rows: Sequence[int]) -> int:
    """Delete rows; how many were there."""
    if not rows:
        return 0
    connection.execute(f"DELETE FROM {tables.codes} WHERE row = ANY(%s)", (rows,))
    return connection.execute(f"DELETE FROM {tables.documents} WHERE row = ANY(%s)", (rows,)).rowcount


def _matrix(rotation: Rotation) -> bytes:
    return np.ascontiguousarray(rotation.matrix, "<f4").tobytes()
