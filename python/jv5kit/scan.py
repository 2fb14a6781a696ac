"""A query against the segments of an index: candidates from all of them, rescored, best first.

The order is that of the score, then of the row number, so that equal scores always come in the same order. Rows are
numbered through over the segments here (their positions), in the order of their document numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jv5kit import _native
from jv5kit.quantize import quantize_embeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.storage.state import Settings

    Found = tuple[NDArray[np.float32], NDArray[np.int64]]

QUERY_TILE = 64
"""Queries that are compared with float32 rows at a time, which bounds memory for many queries."""

BLOCK_ROWS = 16384
"""Rows of a float32 segment that are compared at a time."""

PAIRS = 4096
"""Pairs of a query and a row that are multiplied exactly at a time."""


class Part(Protocol):
    """Some rows of an index: a segment of a folder, or what an engine gave of them."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def first_row(self) -> int:
        """Document number of the first one, at most."""

    def tensor(self, name: str) -> NDArray[Any]:
        """A whole tensor ``(rows, …)``."""

    def rows_of(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A whole tensor ``(rows, …)``, of which only some rows are needed."""

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The document numbers of some rows, which ascend."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a query is compared with.

    Attributes:
        settings: of the index.
        segments: in the order of their documents; at least one.
        masks: for each segment a bitmap of the rows to search, the first row in the lowest bit; None for all.
    """

    settings: Settings
    segments: Sequence[Part]
    masks: Sequence[NDArray[np.uint8] | None]

    def __len__(self) -> int:
        """Number of rows, whether masked or not."""
        return sum(segment.rows for segment in self.segments)

    def split(self, positions: NDArray[np.int64]) -> list[tuple[Part, Any, NDArray[np.int64]]]:
        """The segments that hold some positions: each with where those are in the array, and their rows within it."""
        ends = np.cumsum([segment.rows for segment in self.segments])
        of_segment = np.searchsorted(ends, positions, "right")
        found = []
        for i in np.flatnonzero(np.bincount(of_segment.ravel())).tolist():
            within = np.nonzero(of_segment == i)
            found.append((self.segments[i], within, positions[within] - (ends[i] - self.segments[i].rows)))
        return found

    def numbers(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The document numbers of positions."""
        numbers = np.empty(positions.shape, np.int64)
        for segment, within, rows in self.split(positions):
            numbers[within] = segment.numbers(rows)
        return numbers

    def include(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of some positions (-1 is none) is to be searched."""
        included = positions >= 0
        first = 0
        for segment, mask in zip(self.segments, self.masks, strict=True):
            within = np.flatnonzero((positions >= first) & (positions < first + segment.rows))
            if mask is not None and len(within):
                rows = positions[within] - first
                included[within] = mask[rows // 8] >> (rows % 8).astype(np.uint8) & 1 != 0
            first += segment.rows
        return included

    def parts(self, *names: str) -> list[Any]:
        """Some tensors of each segment, and its mask, as the kernels take them."""
        parts = zip(self.segments, self.masks, strict=True)
        return [(*(segment.tensor(name) for name in names), mask) for segment, mask in parts]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a scan leaves for each query: the best of them by score, then by position, are the rows that it finds.

    Attributes:
        scores: float32 ``(q, n)``.
        positions: int64 ``(q, n)``.
        keys: ``(q, n)``, by which the scan chose them, the least first; None where it chose them by their scores.
    """

    scores: NDArray[np.float32]
    positions: NDArray[np.int64]
    keys: NDArray[Any] | None = None

    def best(self, top_k: int) -> Found:
        """The scores and the positions of the ``top_k`` best of each query."""
        scores, positions = best(self.scores, self.positions, top_k)
        # Rounding may carry a cosine of 1 a little beyond it.
        return np.clip(scores, -1, 1), positions


def scan(rows: Rows, queries: NDArray[np.float32], top_k: int, oversample: int, stages: dict[str, float]) -> Found:
    """The best rows of each query; the arguments are those of :func:`candidates`.

    Returns:
        Scores float32 and document numbers int64, both ``(q, min(top_k, rows searched))``, by score, then number.
    """
    scores, positions = candidates(rows, queries, top_k, oversample, stages).best(top_k)
    return scores, rows.numbers(positions)


def scan_codes(rows: Rows, codes: NDArray[np.uint8], top_k: int, stages: dict[str, float]) -> Found:
    """The rows with the nearest codes, as :func:`scan` gives them."""
    scores, positions = code_candidates(rows, codes, top_k, stages).best(top_k)
    return scores, rows.numbers(positions)


def candidates(
    rows: Rows, queries: NDArray[np.float32], top_k: int, oversample: int, stages: dict[str, float]
) -> Candidates:
    """The rows that each query leaves, with their scores.

    A score is a function of the query and the row alone, whatever they are compared beside.

    Args:
        rows: to search.
        queries: float32 ``(q, dim)`` of unit length.
        top_k: rows wanted, at least 1.
        oversample: candidates for each row wanted, where those are rescored.
        stages: takes the milliseconds of the stages.
    """
    settings = rows.settings
    if settings.precision == "float32":
        with Stage(stages, "scan"):
            tiles = [queries[start : start + QUERY_TILE] for start in range(0, len(queries), QUERY_TILE)]
            found = [_float_candidates(rows, tile, min(top_k, len(rows))) for tile in tiles]
            return Candidates(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    if settings.precision == "ubinary" and settings.rescore == "none":
        return code_candidates(rows, quantize_embeddings(queries), top_k, stages)
    count = min(top_k * oversample, len(rows))
    keys: NDArray[Any]
    with Stage(stages, "scan"):
        if settings.precision == "int8":
            values, _, _ = _native.quantize_rows(queries, False)
            products, positions = _native.dot_search(values, rows.parts("rows", "scales"), count, None)
            keys = -products
        else:
            keys, positions = _native.hamming_search(quantize_embeddings(queries), rows.parts("codes"), count, None)
    with Stage(stages, "rescore"):
        return Candidates(_rescore(rows, queries, positions), positions, keys)


def code_candidates(rows: Rows, codes: NDArray[np.uint8], top_k: int, stages: dict[str, float]) -> Candidates:
    """The rows with the nearest codes: their score is the cosine as far as bits know it, ``1 - 2 * distance / dim``."""
    with Stage(stages, "scan"):
        distances, positions = _native.hamming_search(codes, rows.parts("codes"), min(top_k, len(rows)), None)
    return Candidates((1 - 2 / rows.settings.dim * distances).astype(np.float32), positions)


def cosines(rows: Rows, query: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores ``(n,)`` of some positions, as a search of all rows would give them."""
    settings = rows.settings
    if settings.precision == "float32":
        scores = np.empty(positions.shape, np.float32)
        for segment, within, local in rows.split(positions):
            scores[within] = _products(query[None], np.zeros_like(local), segment.rows_of("embeddings", local), local)
    elif settings.precision == "ubinary" and settings.rescore == "none":
        code = quantize_embeddings(query[None])
        scores = np.empty(positions.shape, np.float32)
        for segment, within, local in rows.split(positions):
            differing = np.unpackbits(segment.tensor("codes")[local] ^ code, axis=1).sum(axis=1)
            scores[within] = 1 - 2 / settings.dim * differing
    else:
        scores = _rescore(rows, query[None], positions[None])[0]
    return np.clip(scores, -1, 1)


def stored_embeddings(rows: Rows, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """What is kept of the embeddings at some positions: ``(n, dim)``, as far as the precision of the index knows them.

    Where there are codes alone a dimension is ±1 / √dim.
    """
    settings = rows.settings
    embeddings = np.empty((len(positions), settings.dim), np.float32)
    for segment, (within,), local in rows.split(positions):
        if settings.precision == "float32":
            embeddings[within] = segment.rows_of("embeddings", local)[local]
        elif settings.precision == "ubinary" and settings.rescore != "int8":
            bits = np.unpackbits(segment.tensor("codes")[local], axis=1)
            embeddings[within] = (2 * bits.astype(np.float32) - 1) * np.float32(settings.dim**-0.5)
        else:
            values, scales = (segment.rows_of(name, local) for name in ("rows", "scales"))
            embeddings[within] = values[local] * scales[local, None]
    return embeddings


class Stage:
    """Adds the milliseconds that it takes to those of a stage."""

    def __init__(self, stages: dict[str, float], name: str) -> None:
        self._stages = stages
        self._name = name

    def __enter__(self) -> None:
        """Start the clock."""
        self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._stages[self._name] = self._stages.get(self._name, 0.0) + 1000 * (perf_counter() - self._began)


def _rescore(rows: Rows, queries: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Float query · stored row, for each candidate."""
    scores = np.empty(positions.shape, np.float32)
    for segment, within, local in rows.split(positions):
        # The pairs of a segment are scored together, whatever their queries.
        of_query = np.ascontiguousarray(within[0])
        if rows.settings.precision == "ubinary" and rows.settings.rescore == "codes":
            codes = segment.tensor("codes")
            # A unit row of which only the signs are known has 1 / sqrt(dim) in every place.
            products = _native.code_products(queries, codes, of_query, local)
            scores[within] = products * np.float32(rows.settings.dim**-0.5)
        else:
            values, scales = (segment.rows_of(name, local) for name in ("rows", "scales"))
            scores[within] = _native.mixed_products(queries, values, of_query, local) * scales[local]
    return scores


def _float_candidates(rows: Rows, queries: NDArray[np.float32], top_k: int) -> Found:
    """The best positions among float32 rows, by exact products block by block.

    What a product of matrices adds up depends on what else is in them. It only says which pairs are in question; those
    are multiplied apart.
    """
    # Twice what adding up dim products of unit vectors can be wrong by.
    doubt = np.float32(rows.settings.dim * np.finfo(np.float32).eps)
    scores = np.empty((len(queries), 0), np.float32)
    positions = np.empty((len(queries), 0), np.int64)
    first = 0
    for segment, mask in zip(rows.segments, rows.masks, strict=True):
        embeddings = segment.tensor("embeddings")
        flags = None if mask is None else np.unpackbits(mask, count=segment.rows, bitorder="little").view(np.bool_)
        for start in range(0, segment.rows, BLOCK_ROWS):
            numbers = np.arange(start, min(start + BLOCK_ROWS, segment.rows))
            stored = embeddings[start : start + BLOCK_ROWS]
            if flags is not None:
                numbers = numbers[flags[start : start + BLOCK_ROWS]]
                stored = embeddings[numbers]
            block = queries @ stored.T
            enough: Any
            if scores.shape[1] == top_k:
                enough = scores[:, -1:] - doubt
            elif len(numbers) > top_k:
                enough = np.partition(block, -top_k, axis=1)[:, [-top_k]] - 2 * doubt
            else:
                enough = -np.inf
            of_query, columns = np.nonzero(block >= enough)
            if len(columns):
                products = _products(queries, of_query, stored, columns)
                scores = np.concatenate([scores, _by_query(of_query, products, -np.inf, len(queries))], axis=1)
                found = _by_query(of_query, numbers[columns] + first, -1, len(queries))
                positions = np.concatenate([positions, found], axis=1)
                scores, positions = best(scores, positions, top_k)
        first += segment.rows
    return scores, positions


def _products(
    queries: NDArray[np.float32], of_query: NDArray[np.int64], stored: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The product of each pair of a query and a row ``(n,)``, as exact as float32 can have it."""
    products = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        # Products of float32 are exact in float64, and their sum is to far more digits than are kept.
        products[part] = (queries[of_query[part]].astype(np.float64) * stored[rows[part]]).sum(axis=1)
    return products


def _by_query(of_query: NDArray[np.int64], values: NDArray[Any], missing: float, queries: int) -> NDArray[Any]:
    """Values of queries, in the order of those, as an array ``(q, most of one)``."""
    counts = np.bincount(of_query, minlength=queries)
    table = np.full((queries, counts.max()), missing, values.dtype)
    table[of_query, np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)] = values
    return table


def best(scores: NDArray[np.float32], rows: NDArray[np.int64], top_k: int) -> Found:
    """The ``top_k`` best of each query, by score, then row."""
    if scores.shape[1] > 4 * top_k:
        # Few can be among the best: those that reach the k-th best score, ties included.
        reaching = scores >= np.partition(scores, -top_k, axis=1)[:, [-top_k]]
        columns = np.flatnonzero(reaching.any(axis=0))
        scores, rows = scores[:, columns], rows[:, columns]
    order = np.lexsort((rows, -scores), axis=1)[:, :top_k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
