"""What is read of the tables: documents, rows to score, and the rows nearest to a code or to some words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jv5kit.storage import lexical
from jv5kit.storage.catalog import ReplacedError
from jv5kit.stores.postgres.adapters import Code
from jv5kit.stores.postgres.rows import Fetched
from jv5kit.stores.postgres.tables import LEXICAL
from jv5kit.types import Document, Hit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.storage.state import Settings
    from jv5kit.stores.postgres.connection import Connection
    from jv5kit.stores.postgres.tables import Tables

    Condition = tuple[str, list[Any]]

PLAIN_WIDTH = 40
"""Candidates that the graph looks at unless it is told otherwise (``hnsw.ef_search``)."""

MOST_WIDTH = 1000
"""The most that pgvector takes."""

ITERATIVE = (0, 8)
"""The first version of pgvector that looks on where a filter leaves too few."""

_DOCUMENT = "d.id, d.title, d.text, d.metadata"


def documents_of(
    connection: Connection, tables: Tables, column: Literal["id", "row"], values: Sequence[str] | Sequence[int]
) -> dict[int, Document]:
    """The documents of some ids or rows, by row."""
    statement = f"SELECT d.row, {_DOCUMENT} FROM {tables.documents} d WHERE {column} = ANY(%b)"
    return {row: _document(*rest) for row, *rest in connection.execute(statement, (values,), binary=True)}


def fetch(connection: Connection, tables: Tables, settings: Settings, rows: Sequence[int]) -> Fetched:
    """What is scored of some rows."""
    statement = (
        f"SELECT {_scored(settings)} FROM {tables.codes} c JOIN {tables.documents} d USING (row) WHERE c.row = ANY(%s)"
    )
    with connection.cursor(binary=True) as cursor:
        return Fetched(cursor.execute(statement, (list(rows),)), settings.dim)


@dataclass(frozen=True, slots=True)
class Nearest:
    """The question for the ``count`` rows with the codes nearest to one.

    Attributes:
        tables: of the index.
        code: of the query.
        count: of rows.
        condition: what the rows pass, as SQL and its parameters; None is no condition.
        graph: the version of pgvector, to search by the graph, approximately; None compares with every row.
    """

    tables: Tables
    code: bytes
    count: int
    condition: Condition | None
    graph: tuple[int, ...] | None = None

    def candidates(self, connection: Connection, settings: Settings) -> Fetched:
        """The rows, to be scored as settings say.

        Raises:
            ReplacedError: a row has no document.
        """
        joined = settings.rescore == "int8"
        return Fetched(self._ask(connection, _scored(settings), joined=joined), settings.dim)

    def hits(self, connection: Connection, dim: int) -> list[Hit]:
        """Their documents, with the scores of their distances in so many bits, best first.

        Raises:
            ReplacedError: a row has no document.
        """
        found = self._ask(connection, f"c.distance, c.row, {_DOCUMENT}", joined=True)
        # By distance, then by row.
        found.sort()
        scores = _scores(dim)
        return [
            Hit(identifier, scores[int(distance)], title, text, metadata)
            for distance, _, identifier, title, text, metadata in found
        ]

    def _ask(self, connection: Connection, columns: str, *, joined: bool) -> list[tuple[Any, ...]]:
        where, parameters = self.condition or ("true", [])
        # What is added keeps the planner from taking the graph where the answer is to be exact.
        distance, order = ("(code <~> %s) + 0", "distance, row") if self.graph is None else ("code <~> %s", "distance")
        # The limit is no parameter, so that a plan is good for every query with it.
        statement = (
            f"SELECT {columns} FROM (SELECT row, code, {distance} AS distance FROM {self.tables.codes} WHERE {where} "
            f"ORDER BY {order} LIMIT {self.count:d}) c"
            + (f" LEFT JOIN {self.tables.documents} d USING (row)" if joined else "")
        )
        values = [Code(self.code), *parameters]
        with connection.cursor(binary=True) as cursor:
            if self.graph is None or (self.condition is None and 2 * self.count <= PLAIN_WIDTH):
                cursor.execute(statement, values)
            else:
                # In a pipeline they go together, as one transaction.
                with connection.pipeline():
                    _widen(connection, self.count, iterative=self.graph >= ITERATIVE)
                    cursor.execute(statement, values)
            found = cursor.fetchall()
        if joined and any(row[-1] is None for row in found):
            raise ReplacedError
        return found


@cache
def _scores(dim: int) -> list[float]:
    """The cosine, in float32, that each distance of codes of so many bits stands for."""
    scores: list[float] = (1 - 2 / dim * np.arange(dim + 1)).astype(np.float32).tolist()
    return scores


def _widen(connection: Connection, count: int, *, iterative: bool) -> None:
    """Let the graph look at enough candidates for so many rows, in the transaction under way.

    Where the server, the database or the user has a wider search set, that stays.
    """
    on = ", set_config('hnsw.iterative_scan', 'strict_order', true)" if iterative else ""
    width = "greatest(current_setting('hnsw.ef_search', true)::integer, %s)::text"
    connection.execute(f"SELECT set_config('hnsw.ef_search', {width}, true){on}", (min(2 * count, MOST_WIDTH),))


def _scored(settings: Settings) -> str:
    """The columns that rows are scored by."""
    return "c.row, c.code, d.int8_row, d.scale" if settings.rescore == "int8" else "c.row, c.code"


def _document(identifier: str, title: str | None, text: str, metadata: dict[str, Any]) -> Document:
    return Document(identifier, text, title, metadata)


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
    where, parameters = condition or ("true", [])
    statement = (
        f"SELECT row FROM {tables.documents} JOIN {tables.codes} USING (row), to_tsquery('{LEXICAL}', %s) query "
        f"WHERE words @@ query AND {where} ORDER BY ts_rank(words, query, 1) DESC, row LIMIT %s"
    )
    query = " | ".join(f"'{word}'" for word in words)
    return [row for (row,) in connection.execute(statement, [query, *parameters, count])]
