"""Queries against an index in PostgreSQL: the server finds the candidates, the client scores them.

The kernels are those that score the rows of a folder, so the hits are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import InputError
from jv5kit.quantize import quantize_embeddings
from jv5kit.querying import fused, hits_of, settings_for, warn_of_unknown
from jv5kit.scan import Rows, Stage, cosines, scan, scan_codes
from jv5kit.storage.catalog import ReplacedError
from jv5kit.stores.postgres.filtering import Fields, as_sql
from jv5kit.stores.postgres.reading import ITERATIVE, MOST_WIDTH, documents_of, fetch, matching_words, nearest
from jv5kit.stores.postgres.tables import Tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jv5kit.querying import How, Queries
    from jv5kit.stores.postgres.connection import Connection
    from jv5kit.stores.postgres.reading import Condition
    from jv5kit.stores.postgres.rows import Fetched
    from jv5kit.stores.postgres.tables import Stored
    from jv5kit.types import Hit

    Ranked = tuple[list[float], list[int]]


def answer(
    connection: Connection, stored: Stored, vector: tuple[int, ...], queries: Queries, how: How
) -> list[list[Hit]]:
    """The hits of each query; ``vector`` is the version of pgvector.

    Raises:
        InputError: a query or the filter does not fit the index.
        ReplacedError: documents that were found are gone: the index has another state by now.
    """
    asked = _Asked(connection, stored, vector, queries, how)
    found = [asked.best(query) for query in range(len(queries))]
    wanted = sorted({row for _, rows in found for row in rows})
    with Stage(how.stages, "documents"):
        documents = documents_of(connection, asked.tables, "row", wanted) if wanted else {}
    if len(documents) < len(wanted):
        raise ReplacedError
    if how.condition is not None and not wanted:
        warn_of_unknown(how.condition, Fields.read(connection, asked.tables).known)
    return hits_of(found, documents, dict.fromkeys(wanted))


class _Asked:
    """Some queries to an index, checked."""

    def __init__(
        self, connection: Connection, stored: Stored, vector: tuple[int, ...], queries: Queries, how: How
    ) -> None:
        self.tables = Tables(stored.number)
        self._settings = settings_for(stored.settings, queries, how)
        if self._settings.precision == "int8":
            raise InputError(
                "mode='int8' compares with all int8 rows, which are kept on the server to rescore with, not to be "
                "scanned: ask in mode 'ubinary+int8', with a larger oversample"
            )
        self._connection = connection
        self._vector = vector
        self._queries = queries
        self._how = how
        self._codes = quantize_embeddings(queries.embeddings) if queries.codes is None else queries.codes
        self._condition: Condition | None = None
        if how.condition is not None:
            with Stage(how.stages, "filter"):
                how.condition.check([Fields.read(connection, self.tables, how.condition.fields)])
                self._condition = as_sql(how.condition)

    def best(self, query: int) -> Ranked:
        """The scores and the numbers of the best rows of a query."""
        how, part = self._how, slice(query, query + 1)
        rescored = self._queries.codes is None and self._settings.rescore != "none"
        with Stage(how.stages, "scan"):
            found = self._nearest(query, how.depth * (how.oversample if rescored else 1))
        rows = Rows(self._settings, [found], [None])
        if not found.rows:
            scores, numbers = np.empty((1, 0), np.float32), np.empty((1, 0), np.int64)
        elif self._queries.codes is not None:
            scores, numbers = scan_codes(rows, self._codes[part], how.top_k, how.stages)
        else:
            scores, numbers = scan(rows, self._queries.embeddings[part], how.depth, how.oversample, how.stages)
        if not how.hybrid:
            return scores[0].tolist(), numbers[0].tolist()
        return self._fused(query, (scores[0], numbers[0]))

    def _nearest(self, query: int, count: int) -> Fetched:
        code, settings = self._codes[query].tobytes(), self._settings
        # Without iterative scans a filter could leave too few, and there is no graph search of that many.
        if settings.hnsw and count <= MOST_WIDTH and (self._condition is None or self._vector >= ITERATIVE):
            found = nearest(self._connection, self.tables, settings, code, count, self._condition, self._vector)
            if found.rows == count:
                return found
        return nearest(self._connection, self.tables, settings, code, count, self._condition)

    def _fused(self, query: int, found: tuple[NDArray[np.float32], NDArray[np.int64]]) -> Ranked:
        """The best rows by the fusion with the ranking by words."""
        texts, how = self._queries.texts, self._how
        assert texts is not None
        with Stage(how.stages, "lexical"):
            ranked = matching_words(self._connection, self.tables, texts[query], how.depth, self._condition)

        def score(missing: NDArray[np.int64]) -> NDArray[np.float32]:
            fetched = fetch(self._connection, self.tables, self._settings, missing.tolist())
            if fetched.rows < len(missing):
                raise ReplacedError
            rows = Rows(self._settings, [fetched], [None])
            return cosines(rows, self._queries.embeddings[query], np.searchsorted(fetched.row_numbers, missing))

        return fused(found, np.array(ranked, np.int64), score, how)
