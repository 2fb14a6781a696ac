"""Queries against one state of an index: texts or arrays become embeddings, embeddings become the best documents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypedDict

import numpy as np

from jv5kit import graph
from jv5kit.embeddings import as_array, as_rows, check_rows, truncate_embeddings, whole_number
from jv5kit.errors import InputError
from jv5kit.hybrid import DEPTH, fuse
from jv5kit.logs import logger
from jv5kit.scan import Rows, Stage, cosines, scan, scan_codes
from jv5kit.search_modes import in_mode
from jv5kit.storage.passages import passage_of
from jv5kit.types import Hit
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from jv5kit.filters import Filter
    from jv5kit.rotation import Rotation
    from jv5kit.scan import Found
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document, Passage, SearchMode

    Where = str | Mapping[str, Any] | Filter

_ROWS_READ = 512
"""Rows of the lexical ranking that are looked up at a time, until enough of them pass the filter."""


class SearchOptions(TypedDict, total=False):
    """The options of :meth:`jv5kit.Index.search`, which explains them."""

    filter: Where | None
    oversample: int
    hybrid: bool
    words: str | Sequence[str] | None
    stages: dict[str, float] | None
    mode: SearchMode | None


@dataclass(frozen=True, slots=True)
class How:
    """How queries are to be answered; :meth:`jv5kit.Index.search` explains it."""

    top_k: int
    condition: Filter | None
    oversample: int
    hybrid: bool
    words: str | Sequence[str] | None
    stages: dict[str, float]
    mode: SearchMode | None = None

    @property
    def depth(self) -> int:
        """Ranks of the nearest rows that are needed."""
        return max(self.top_k, DEPTH) if self.hybrid else self.top_k

    @classmethod
    def of(
        cls,
        top_k: int,
        *,
        filter: Where | None = None,
        oversample: int = 4,
        hybrid: bool = False,
        words: str | Sequence[str] | None = None,
        stages: dict[str, float] | None = None,
        mode: SearchMode | None = None,
    ) -> Self:
        """The arguments of a search, checked.

        Raises:
            InputError: a number is none, or too small, or the filter cannot be read.
        """
        top_k, oversample = whole_number("top_k", top_k), whole_number("oversample", oversample)
        for name, value in (("top_k", top_k), ("oversample", oversample)):
            if value < 1:
                raise InputError(f"{name}={value}; it must be at least 1")
        condition = None if filter is None else parse_filter(filter)
        return cls(top_k, condition, oversample, hybrid, words, {} if stages is None else stages, mode)


def search(
    snapshot: Snapshot, given: Any, encode: Callable[[Settings, Sequence[str]], NDArray[np.float32]], how: How
) -> list[Hit] | list[list[Hit]]:
    """The hits of one query, or a list of them for each of several.

    Raises:
        InputError: a query or a filter does not fit the index.
        ReplacedError: documents that were found are gone: the index has another state by now.
    """
    settings = snapshot.state.settings
    with Stage(how.stages, "encode"):
        queries = queries_of(given, how.words, settings, snapshot.rotation, partial(encode, settings))
    found = answer(snapshot, queries, how)
    with Stage(how.stages, "documents"):
        wanted = sorted({number for _, numbers in found for number in numbers})
        documents = snapshot.catalog.documents(wanted, snapshot.state)
        spans = snapshot.passages(np.array(wanted, np.int64)).tolist()
        passages = {number: passage_of(span) for number, span in zip(wanted, spans, strict=True)}
    if how.condition is not None and not wanted:
        warn_of_unknown(how.condition, snapshot.fields())
    hits = hits_of(found, documents, passages)
    return hits[0] if queries.single else hits


def hits_of(
    found: Sequence[tuple[list[float], list[int]]],
    documents: Mapping[int, Document],
    passages: Mapping[int, Passage | None],
) -> list[list[Hit]]:
    """The hits of each query: its scores and row numbers with the documents."""
    results = []
    for scores, numbers in found:
        rows = [(score, documents[number], passages[number]) for score, number in zip(scores, numbers, strict=True)]
        results.append([Hit(one.id, score, one.title, one.text, one.metadata, part) for score, one, part in rows])
    return results


def warn_of_unknown(condition: Filter, known: Mapping[str, Any]) -> None:
    """Nothing was found by a filter: say so if that is because no document has a field; ``known`` are those there."""
    for field in sorted(condition.fields - known.keys()):
        logger.warning("no document has the field %r; fields to filter by: %s", field, ", ".join(known) or "none")


@dataclass(frozen=True, slots=True)
class Queries:
    """One or several queries.

    Attributes:
        single: whether it was one query, not a sequence.
        embeddings: float32 ``(q, dim)`` of unit length; empty where there are codes.
        codes: uint8 ``(q, dim / 8)``, or None.
        texts: their words, or None.
    """

    single: bool
    embeddings: NDArray[np.float32]
    codes: NDArray[np.uint8] | None = None
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.embeddings if self.codes is None else self.codes)


def queries_of(
    given: Any,
    words: str | Sequence[str] | None,
    settings: Settings,
    rotation: Rotation | None,
    encode: Callable[[Sequence[str]], NDArray[np.float32]],
) -> Queries:
    """Queries, and their words where they are no texts themselves, as :meth:`jv5kit.Index.search` takes them.

    Raises:
        InputError: they are neither texts nor rows that fit the index.
    """
    single = isinstance(given, str)
    texts = [given] if single else given
    if single or (isinstance(texts, list | tuple) and texts and all(isinstance(text, str) for text in texts)):
        if words is not None:
            raise InputError("words go with queries that are embeddings; texts have their own")
        embeddings = encode(texts)
    else:
        texts = [words] if isinstance(words, str) else words
        if texts is not None and not (isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)):
            raise InputError(f"words is {texts!r:.80}; it must be a string, or a list of one for each query")
        array = as_array(given, "queries")
        if not array.size:
            return Queries(False, np.empty((0, settings.dim), np.float32))
        if array.ndim not in (1, 2):
            raise InputError(f"queries has shape {array.shape}; it must have two dimensions, (q, dim), or one, (dim,)")
        single = array.ndim == 1
        if array.dtype == np.uint8 and settings.precision == "ubinary" and array.shape[-1] == settings.dim // 8:
            codes = np.ascontiguousarray(np.atleast_2d(array))
            return Queries(single, np.empty((0, settings.dim), np.float32), codes)
        embeddings = as_rows(np.atleast_2d(array), "queries")
        # Only whole embeddings can be rotated.
        known = {settings.source_dim} if rotation is not None else {settings.dim, settings.source_dim}
        if embeddings.shape[1] not in known:
            names = " or ".join(map(str, sorted(known)))
            raise InputError(f"the queries have {embeddings.shape[1]} dimensions; this index takes {names}")
    if rotation is not None:
        check_rows(embeddings, settings.source_dim, name="queries")
        embeddings = rotation(embeddings)
    check_rows(embeddings, settings.dim, name="queries")
    return Queries(single, truncate_embeddings(embeddings, settings.dim), texts=texts)


def answer(snapshot: Snapshot, queries: Queries, how: How) -> list[tuple[list[float], list[int]]]:
    """For each query the scores and the document numbers of the best rows, best first."""
    settings = settings_for(snapshot.state.settings, queries, how)
    top_k, stages = how.top_k, how.stages
    if not snapshot.segments or not len(queries):
        return [([], [])] * len(queries)
    with Stage(stages, "filter"):
        rows = Rows(settings, snapshot.segments, snapshot.masks(how.condition))
    if queries.codes is not None:
        scores, numbers = scan_codes(rows, queries.codes, top_k, stages)
    elif settings.hnsw:
        scores, numbers = graph.search(snapshot, rows, queries.embeddings, how.depth, stages)
    else:
        scores, numbers = scan(rows, queries.embeddings, how.depth, how.oversample, stages)
    if not how.hybrid:
        return list(zip(scores.tolist(), numbers.tolist(), strict=True))
    return [_fused(snapshot, rows, queries, i, (scores[i], numbers[i]), how) for i in range(len(queries))]


def settings_for(settings: Settings, queries: Queries, how: How) -> Settings:
    """The settings of an index as some queries look at it.

    Raises:
        InputError: the queries, or the index, are not such that they could be answered in this way.
    """
    settings, hybrid = in_mode(settings, how.mode), how.hybrid
    if queries.codes is not None and how.mode not in (None, "ubinary"):
        raise InputError(f"mode={how.mode!r} takes texts, or embeddings, but no codes")
    if hybrid and not settings.lexical:
        raise InputError("the index has no lexical index to search with; build it with --lexical (lexical=True)")
    if hybrid and queries.codes is not None:
        raise InputError("hybrid search takes texts, or embeddings beside their words=, but no codes")
    if hybrid and len(queries) and queries.texts is None:
        raise InputError("hybrid search needs the words of the queries: give texts, or words= beside embeddings")
    if hybrid and queries.texts is not None and len(queries.texts) != len(queries):
        raise InputError(f"there are words for {len(queries.texts)} queries, but {len(queries)} embeddings")
    return settings


def _fused(
    snapshot: Snapshot, rows: Rows, queries: Queries, query: int, nearest: Found, how: How
) -> tuple[list[float], list[int]]:
    """The best rows of one query, by the fusion of both rankings, each with its cosine."""
    with Stage(how.stages, "lexical"):
        assert queries.texts is not None
        ranked = _matching_words(snapshot, rows, queries.texts[query], how.depth)

    def score(missing: NDArray[np.int64]) -> NDArray[np.float32]:
        return cosines(rows, queries.embeddings[query], snapshot.positions(missing))

    return fused(nearest, ranked, score, how)


def fused(
    nearest: Found, ranked: NDArray[np.int64], score: Callable[[NDArray[np.int64]], NDArray[np.float32]], how: How
) -> tuple[list[float], list[int]]:
    """The best rows by the fusion of the nearest ones and a ranking by words, each with its cosine.

    Args:
        nearest: scores and numbers, best first.
        ranked: numbers, best first.
        score: the cosines of rows, for those that are not among the nearest.
        how: the queries are answered.
    """
    found = fuse([nearest[1], ranked], how.top_k).tolist()
    known = dict(zip(nearest[1].tolist(), nearest[0].tolist(), strict=True))
    missing = [number for number in found if number not in known]
    if missing:
        with Stage(how.stages, "rescore"):
            known.update(zip(missing, score(np.array(missing, np.int64)).tolist(), strict=True))
    return [known[number] for number in found], found


def _matching_words(snapshot: Snapshot, rows: Rows, text: str, depth: int) -> NDArray[np.int64]:
    """Numbers of the documents with the best words that are in this state and pass the filter."""
    found: list[int] = []
    with snapshot.catalog.lexical_rows(text, snapshot.state) as ranking:
        while len(found) < depth and (part := list(islice(ranking, _ROWS_READ))):
            numbers = np.array(part, np.int64)
            found += numbers[rows.include(snapshot.positions(numbers))].tolist()
    return np.array(found[:depth], np.int64)
