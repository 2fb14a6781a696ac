"""What is read of the tables: documents, rows to score, and the rows nearest to a code or to some words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format

from jv5kit.storage import lexical
from jv5kit.stores.postgres.rows import Fetched
from jv5kit.stores.postgres.tables import LEXICAL
from jv5kit.types import Document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.storage.state import Settings
    from jv5kit.stores.postgres.connection import Connection
    from jv5kit.stores.postgres.tables import Tables

    Condition = tuple[sql.Composable, list[Any]]

SEARCH_WIDTH = 64
"""Candidates that the graph looks at, at least (``hnsw.ef_search``)."""

MOST_WIDTH = 1000
"""The most that pgvector takes."""

_SCORED: LiteralString = "c.row, c.code, d.int8_row, d.scale"
_BITS: LiteralString = "c.row, c.code"


class Code(bytes):
    """A code as a parameter: ``bit(n)`` in binary."""


class _CodeDumper(Dumper):
    oid = 1560
    format = Format.BINARY

    def dump(self, obj: Code) -> bytes:
        return (8 * len(obj)).to_bytes(4, "big") + obj


def documents_of(
    connection: Connection, tables: Tables, column: LiteralString, values: Sequence[str] | Sequence[int]
) -> dict[int, Document]:
    """The documents of some ids (column ``id``) or rows (column ``row``), by row."""
    found = connection.execute(
        tables.text(
            "SELECT row, id, title, text, metadata FROM {documents} WHERE {column} = ANY(%b)",
            column=sql.Identifier(column),
        ),
        (values,),
    )
    return {row: Document(id, text, title, metadata) for row, id, title, text, metadata in found}


def fetch(connection: Connection, tables: Tables, settings: Settings, rows: Sequence[int]) -> Fetched:
    """What is scored of some rows."""
    statement = tables.text(
        "SELECT {columns} FROM {codes} c JOIN {documents} d USING (row) WHERE c.row = ANY(%s)",
        columns=sql.SQL(_SCORED if settings.rescore == "int8" else _BITS),
    )
    with connection.cursor(binary=True) as cursor:
        return Fetched(cursor.execute(statement, (list(rows),)), settings.dim)


def nearest(
    connection: Connection,
    tables: Tables,
    settings: Settings,
    code: bytes,
    count: int,
    condition: Condition | None,
    graph: tuple[int, ...] | None = None,
) -> Fetched:
    """The ``count`` rows with the codes nearest to one.

    Args:
        connection: to the server.
        tables: of the index.
        settings: as the index is looked at: with int8 rows the answer has those too.
        code: of the query.
        count: of rows.
        condition: what the rows pass, as SQL and its parameters.
        graph: the version of pgvector, to search by the graph, approximately; None compares with every row.
    """
    where, parameters = condition or (sql.SQL("true"), [])
    scored = settings.rescore == "int8"
    # What is added keeps the planner from taking the graph where the answer is to be exact.
    order = "code <~> %s" if graph is not None else "(code <~> %s) + 0, row"
    statement = tables.text(
        "SELECT {columns} FROM (SELECT row, code FROM {codes} WHERE {where} ORDER BY {order} LIMIT %s) c {join}",
        columns=sql.SQL(_SCORED if scored else _BITS),
        where=where,
        order=sql.SQL(order),
        join=tables.text("JOIN {documents} d USING (row)" if scored else ""),
    )
    connection.adapters.register_dumper(Code, _CodeDumper)
    with connection.cursor(binary=True) as cursor:
        if graph is None:
            cursor.execute(statement, [*parameters, Code(code), count])
        else:
            width = min(max(SEARCH_WIDTH, 2 * count), MOST_WIDTH)
            # One way to the server and back.
            with connection.pipeline(), connection.transaction():
                connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(width)))
                if graph >= ITERATIVE:
                    connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
                cursor.execute(statement, [*parameters, Code(code), count])
        return Fetched(cursor, settings.dim)


def matching_words(
    connection: Connection, tables: Tables, text: str, count: int, condition: Condition | None
) -> list[int]:
    """The ``count`` rows with the best words of a text, best first.

    The rank (``ts_rank``, by the length of the document) counts words, in titles as in texts, but does not know which
    are rare, as BM25 does. Over four words out of a page of Python's documentation the mean reciprocal rank of that
    page was 0.81, by BM25 0.82; by ``ts_rank_cd``, which wants words close to each other, it was 0.20.
    """
    words = lexical.words_of(text)
    if not words:
        return []
    where, parameters = condition or (sql.SQL("true"), [])
    statement = tables.text(
        "SELECT row FROM {documents} JOIN {codes} USING (row), to_tsquery({language}, %s) query "
        "WHERE words @@ query AND {where} ORDER BY ts_rank(words, query, 1) DESC, row LIMIT %s",
        language=sql.Literal(LEXICAL),
        where=where,
    )
    query = " | ".join(f"'{word}'" for word in words)
    return [row for (row,) in connection.execute(statement, [query, *parameters, count])]


ITERATIVE = (0, 8)
"""The first version of pgvector that looks on where a filter leaves too few."""
