"""Queries against an index in PostgreSQL: the server finds the candidates, the client scores them.

The kernels are those that score the rows of a folder, so the hits are the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import InputError
from jv5kit.quantize import quantize_embeddings
from jv5kit.querying import fused, hits_of, settings_for, warn_of_unknown
from jv5kit.scan import Rows, Stage, cosines, scan
from jv5kit.storage.catalog import ReplacedError
from jv5kit.stores.postgres.filtering import Fields, as_sql
from jv5kit.stores.postgres.reading import ITERATIVE, MOST_WIDTH, Nearest, documents_of, fetch, matching_words
from jv5kit.stores.postgres.tables import Tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jv5kit.querying import How, Queries
    from jv5kit.stores.postgres.connection import Connection
    from jv5kit.stores.postgres.reading import Condition
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
    hits = asked.hits()
    if how.condition is not None and not any(hits):
        warn_of_unknown(how.condition, Fields.read(connection, asked.tables).known)
    return hits


class _Asked:
    """Some queries to an index, checked.

    Attributes:
        tables: of the index.
    """

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
        if queries.codes is not None and self._settings.rescore != "none":
            # There is nothing to rescore them with.
            self._settings = replace(self._settings, rescore="none")
        self._rescored = self._settings.rescore != "none"
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

    def hits(self) -> list[list[Hit]]:
        """The hits of each query.

        Raises:
            ReplacedError: documents that were found are gone.
        """
        every = range(len(self._queries))
        if not self._rescored and not self._how.hybrid:
            return [self._nearest_hits(query) for query in every]
        found = [self._best(query) for query in every]
        wanted = sorted({row for _, rows in found for row in rows})
        with Stage(self._how.stages, "documents"):
            documents = documents_of(self._connection, self.tables, "row", wanted) if wanted else {}
        if len(documents) < len(wanted):
            raise ReplacedError
        return hits_of(found, documents, dict.fromkeys(wanted))

    def _nearest_hits(self, query: int) -> list[Hit]:
        """The best rows by their distances, which bring their documents with them."""
        with Stage(self._how.stages, "scan"):
            asked = self._nearest(query, self._how.top_k)
            hits = asked.hits(self._connection, self._settings.dim)
            if asked.graph is not None and len(hits) < asked.count:
                hits = replace(asked, graph=None).hits(self._connection, self._settings.dim)
        return hits

    def _best(self, query: int) -> Ranked:
        """The scores and the numbers of the best rows of a query."""
        how = self._how
        with Stage(how.stages, "scan"):
            asked = self._nearest(query, how.depth * (how.oversample if self._rescored else 1))
            found = asked.candidates(self._connection, self._settings)
            if asked.graph is not None and found.rows < asked.count:
                found = replace(asked, graph=None).candidates(self._connection, self._settings)
        scores, numbers = np.empty((1, 0), np.float32), np.empty((1, 0), np.int64)
        if found.rows:
            rows, embedding = Rows(self._settings, [found], [None]), self._queries.embeddings[[query]]
            scores, numbers = scan(rows, embedding, how.depth, how.oversample, how.stages)
        if not how.hybrid:
            return scores[0].tolist(), numbers[0].tolist()
        return self._fused(query, (scores[0], numbers[0]))

    def _nearest(self, query: int, count: int) -> Nearest:
        """The question for so many rows; by the graph, where that can give as many."""
        # Without iterative scans a filter could leave too few.
        able = count <= MOST_WIDTH and (self._condition is None or self._vector >= ITERATIVE)
        graph = self._vector if self._settings.hnsw and able else None
        return Nearest(self.tables, self._codes[query].tobytes(), count, self._condition, graph)

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
