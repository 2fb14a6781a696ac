"""A query against the segments of an index: candidates from every segment, merged, rescored, best first.

The order is that of the score, then of the row number, so that equal scores always come in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit import _native
from jv5kit.quantize import quantize_embeddings
from jv5kit.storage.segments import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from jv5kit.storage.catalog import Settings
    from jv5kit.storage.segments import Segment

    Found = tuple[NDArray[np.float32], NDArray[np.int64]]

QUERY_TILE = 64
"""Queries that are compared with float32 rows at a time, which bounds memory for many queries."""

BLOCK_ROWS = 16384
"""Rows of a float32 segment that are compared at a time."""


def tensor_specs(settings: Settings) -> list[TensorSpec]:
    """The tensors that a segment of an index holds."""
    if settings.precision == "float32":
        return [TensorSpec("embeddings", np.dtype("<f4"), (settings.dim,))]
    return [
        TensorSpec("codes", np.dtype("u1"), (settings.dim // 8,)),
        TensorSpec("rows", np.dtype("i1"), (settings.dim,)),
        TensorSpec("scales", np.dtype("<f4"), ()),
    ]


def tensors(settings: Settings, embeddings: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The tensors of embeddings that have the index's dimension and unit length."""
    if settings.precision == "float32":
        return {"embeddings": embeddings}
    rows, scales, codes = _native.quantize_rows(embeddings, True)
    return {"codes": codes, "rows": rows, "scales": scales}


def scan(
    segments: Sequence[Segment], settings: Settings, queries: NDArray[np.float32], top_k: int, oversample: int
) -> Found:
    """The best rows of each query.

    Args:
        segments: in the order of their rows.
        settings: of the index.
        queries: float32 ``(q, dim)`` of unit length.
        top_k: at least 1.
        oversample: candidates for each row wanted, where codes are searched first.

    Returns:
        Scores float32 and row numbers int64, both ``(q, min(top_k, rows))``, by score, then row.
    """
    if not segments or not len(queries):
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    if settings.precision == "float32":
        tiles = [queries[start : start + QUERY_TILE] for start in range(0, len(queries), QUERY_TILE)]
        found = [_float_candidates(segments, tile, top_k) for tile in tiles]
        scores, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
    else:
        rows = _code_candidates(segments, queries, top_k * oversample)
        scores, rows = _best(_rescore(segments, queries, rows), rows, top_k)
    # Rounding may carry a cosine of 1 a little beyond it.
    return np.clip(scores, -1, 1), rows


def _code_candidates(segments: Sequence[Segment], queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The rows of the ``count`` nearest codes, by distance, then row."""
    parts = [(segment.tensor("codes"), None) for segment in segments]
    count = min(count, sum(segment.rows for segment in segments))
    # Rows of segments follow each other as those of the parts do.
    rows = _native.hamming_search(quantize_embeddings(queries), parts, count, None)[1]
    return rows + segments[0].first_row


def _rescore(segments: Sequence[Segment], queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Float query · int8 row · its scale, for each candidate."""
    scores = np.empty(rows.shape, np.float32)
    for segment in segments:
        within = (rows >= segment.first_row) & (rows < segment.first_row + segment.rows)
        # The pairs of a segment are scored together, whatever their queries.
        local = rows[within] - segment.first_row
        if len(local):
            values, scales = (segment.rows_of(name, local) for name in ("rows", "scales"))
            of_query = np.ascontiguousarray(np.nonzero(within)[0])
            scores[within] = _native.mixed_products(queries, values, of_query, local) * scales[local]
    return scores


def _float_candidates(segments: Sequence[Segment], queries: NDArray[np.float32], top_k: int) -> Found:
    """The best rows of float32 segments, by exact products block by block."""
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for segment in segments:
        embeddings = segment.tensor("embeddings")
        for start in range(0, segment.rows, BLOCK_ROWS):
            block = queries @ embeddings[start : start + BLOCK_ROWS].T
            numbers = np.arange(start, start + block.shape[1]) + segment.first_row
            if scores.shape[1] >= top_k:
                # Rows come in order, so an equal score loses its tie: only a better one can enter.
                better = (block > scores[:, -1:]).any(axis=0)
                block, numbers = block[:, better], numbers[better]
            if len(numbers):
                scores = np.concatenate([scores, block], axis=1)
                rows = np.concatenate([rows, np.broadcast_to(numbers, block.shape)], axis=1)
                scores, rows = _best(scores, rows, top_k)
    return scores, rows


def _best(scores: NDArray[np.float32], rows: NDArray[np.int64], top_k: int) -> Found:
    """The ``top_k`` best of each query, by score, then row."""
    if scores.shape[1] > 4 * top_k:
        # Few can be among the best: those that reach the k-th best score, ties included.
        reaching = scores >= np.partition(scores, -top_k, axis=1)[:, [-top_k]]
        columns = np.flatnonzero(reaching.any(axis=0))
        scores, rows = scores[:, columns], rows[:, columns]
    order = np.lexsort((rows, -scores), axis=1)[:, :top_k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
