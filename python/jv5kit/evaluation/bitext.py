"""Bitext mining: whether the nearest sentence of the other language is the translation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit.evaluation.quantized import unit
from jv5kit.exact import hamming_search, int8_search, rescored_search
from jv5kit.quantize import quantize_embeddings, quantize_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.tasks import Bitext

_BLOCK = 256
"""Sentences whose products with all others are held at a time."""


def score(data: Bitext, embeddings: Mapping[str, NDArray[np.float32]], precision: StoredPrecision) -> dict[str, float]:
    """Share of the left sentences whose nearest right one is their own; another one with the same text is as good."""
    found = nearest(embeddings["left"], embeddings["right"], precision)
    return {"accuracy": float(np.mean([data.right[row] == text for row, text in zip(found, data.right, strict=True)]))}


def nearest(
    queries: NDArray[np.float32], documents: NDArray[np.float32], precision: StoredPrecision
) -> NDArray[np.int64]:
    """The row of the nearest document of each query: int64 ``(q,)``; the first one of several."""
    if precision == "float32":
        blocks = range(0, len(queries), _BLOCK)
        rows = unit(documents).T
        found: NDArray[np.int64] = np.concatenate(
            [(queries[start : start + _BLOCK] @ rows).argmax(1) for start in blocks]
        )
        return found
    if precision == "int8":
        values, scales = quantize_rows(documents)
        return int8_search(quantize_rows(queries)[0], values, scales, 1)[1][:, 0]
    codes = quantize_embeddings(documents)
    if precision == "ubinary":
        return hamming_search(quantize_embeddings(queries), codes, 1)[1][:, 0]
    if precision == "ubinary+codes":
        return rescored_search(queries, codes, 1)[1][:, 0]
    values, scales = quantize_rows(documents)
    return rescored_search(queries, codes, 1, rows=values, scales=scales)[1][:, 0]
