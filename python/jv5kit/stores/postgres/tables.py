"""The tables: a catalogue of the indexes of a database, and three for each index.

===================  ==========================================================================================
``jv5kit_indexes``   name, settings, rotation and counts of each index
``jv5kit_writers``   the last commit of each writer at work, by which one that lost its connection knows where it is
``…_N_codes``        what is scanned: row, code, and the fields that filters compare
``…_N_documents``    what is looked up: the document, its int8 row, and its words where they are indexed
``…_N_fields``       the fields of the metadata, with the kinds of their values
===================  ==========================================================================================

N is the number of an index, which another one of its name does not get: a reader of the old one notices. Metadata is
kept as it was given (``json``), so that it comes back as it was; ``fields`` is ``jsonb``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from psycopg import errors

from jv5kit import _native
from jv5kit.errors import IndexDamagedError, IndexFormatError, IndexNotFoundError
from jv5kit.rotation import Rotation
from jv5kit.storage.state import Settings

if TYPE_CHECKING:
    from jv5kit.stores.postgres.address import Address
    from jv5kit.stores.postgres.connection import Connection

FORMAT = 1
"""The format of the tables that this version makes, and the newest that it reads."""

LEXICAL = "english"
"""The text search configuration: of those that come with PostgreSQL the nearest to what indexes in folders have."""

LEXICAL_CHARACTERS = 65_536
"""Characters of a text that the lexical index takes: what has more words is beyond the largest ``tsvector``, 1 MB."""

_CATALOGUE = (
    """CREATE TABLE IF NOT EXISTS jv5kit_indexes (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE,
        format integer NOT NULL, settings text NOT NULL, rotation bytea, next_row bigint NOT NULL,
        documents bigint NOT NULL, commits bigint NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS jv5kit_writers (
        writer uuid PRIMARY KEY, number bigint NOT NULL REFERENCES jv5kit_indexes ON DELETE CASCADE,
        commits bigint NOT NULL, at timestamptz NOT NULL
    )""",
)

_LOCK = int.from_bytes(b"jv5kit", "big")
"""The advisory lock of those who make or remove an index."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An index as the catalogue has it.

    Attributes:
        number: of its tables.
        settings: what built it.
        rotation: what embeddings go through, or None.
        next_row: number of the next row.
        documents: how many there are.
        commits: counts the changes.
    """

    number: int
    settings: Settings
    rotation: Rotation | None
    next_row: int
    documents: int
    commits: int

    @classmethod
    def read(cls, connection: Connection, address: Address, known: Stored | None = None) -> Self:
        """The index at an address; of one that is known only the counts are read.

        Raises:
            IndexNotFoundError: there is none.
            IndexFormatError: it is of a newer version.
            IndexDamagedError: its rotation is not what was written.
        """
        statement = (
            "SELECT format, number, next_row, documents, commits, "
            "CASE WHEN number IS DISTINCT FROM %s THEN settings END, "
            "CASE WHEN number IS DISTINCT FROM %s THEN rotation END FROM jv5kit_indexes WHERE name = %s"
        )
        number = None if known is None else known.number
        try:
            found = connection.execute(statement, (number, number, address.index)).fetchone()
        except errors.UndefinedTable:
            found = None
        if found is None:
            raise IndexNotFoundError(f"there is no index {address.name}; make one with 'jv5kit index --store URL'")
        form, number, *counts, settings, rotation = found
        if form > FORMAT:
            raise IndexFormatError(f"{address.name} has format {form}, and this version of jv5kit reads up to {FORMAT}")
        if known is not None and known.number == number:
            return cls(number, known.settings, known.rotation, *counts)
        read = Settings(**json.loads(settings))
        return cls(number, read, _rotation(rotation, read, address.name), *counts)


def _rotation(stored: bytes | None, settings: Settings, name: str) -> Rotation | None:
    if settings.rotation is None:
        return None
    if stored is None or _native.crc32c(stored) != settings.rotation:
        raise IndexDamagedError.of(name, "its rotation does not match its checksum")
    return Rotation.stored(np.frombuffer(stored, "<f4").reshape(settings.source_dim, settings.source_dim))


class Tables:
    """The tables of one index.

    Attributes:
        codes: the name of the table that is scanned.
        documents: that of the table that rows are looked up in.
        fields: that of the fields of the metadata.
        graph: that of the HNSW graph, if there is one.
    """

    def __init__(self, number: int) -> None:
        self.codes, self.documents, self.fields, self.graph = (
            f"jv5kit_{number:d}_{name}" for name in ("codes", "documents", "fields", "graph")
        )

    def create(self, connection: Connection, settings: Settings) -> None:
        """Make the tables of an index of some settings."""
        rows = "int8_row bytea NOT NULL, scale real NOT NULL, " if settings.rescore == "int8" else ""
        statements = [
            f"CREATE TABLE {self.codes} (row bigint PRIMARY KEY, code bit({settings.dim:d}) NOT NULL, fields jsonb)",
            f"CREATE TABLE {self.documents} (row bigint PRIMARY KEY, {rows}"
            'id text COLLATE "C" NOT NULL UNIQUE, title text, text text NOT NULL, metadata json NOT NULL)',
            f'CREATE TABLE {self.fields} (field text COLLATE "C" PRIMARY KEY, kinds text[] NOT NULL, '
            "unfilterable text[] NOT NULL)",
            # Strict operators alone use it, so documents without metadata need not be in it.
            f"CREATE INDEX ON {self.codes} USING gin (fields jsonb_path_ops) WHERE fields IS NOT NULL",
        ]
        if settings.lexical:
            title, text = (f"coalesce(left({name}, {LEXICAL_CHARACTERS}), '')" for name in ("title", "text"))
            statements += [
                f"ALTER TABLE {self.documents} ADD words tsvector GENERATED ALWAYS AS "
                f"(to_tsvector('{LEXICAL}', {title}) || to_tsvector('{LEXICAL}', {text})) STORED",
                f"CREATE INDEX ON {self.documents} USING gin (words)",
            ]
        for statement in statements:
            connection.execute(statement)

    def drop(self, connection: Connection) -> None:
        """Remove the tables."""
        connection.execute(f"DROP TABLE IF EXISTS {self.codes}, {self.documents}, {self.fields}")

    def grow_graph(self, connection: Connection) -> None:
        """Make the graph, unless it is there: rows that come later go into it by themselves."""
        connection.execute(f"CREATE INDEX IF NOT EXISTS {self.graph} ON {self.codes} USING hnsw (code bit_hamming_ops)")

    def analyze(self, connection: Connection) -> None:
        """Let the planner know how many rows there are, before the server finds the time."""
        connection.execute(f"ANALYZE {self.codes}, {self.documents}")

    def bytes_on_disk(self, connection: Connection) -> int:
        """Bytes of the tables, with their indexes."""
        found = connection.execute(
            "SELECT sum(pg_total_relation_size(t::regclass)) FROM unnest(%s::text[]) t",
            ([self.codes, self.documents, self.fields],),
        )
        return int(one(found.fetchone())[0])


def lock_catalogue(connection: Connection) -> None:
    """Let nobody else make or remove an index until the transaction under way ends; make the catalogue if need be."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    for statement in _CATALOGUE:
        connection.execute(statement)


def one(row: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """The row of a statement that always gives one."""
    assert row is not None
    return row
