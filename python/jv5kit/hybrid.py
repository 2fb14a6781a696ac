"""Hybrid search: the nearest rows and the rows with the best words, fused by their ranks.

Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): a row scores the sum, over the two rankings, of
1 / (60 + its rank). Only ranks count, so cosines and BM25 need no common scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RANK_OFFSET = 60
"""The constant of the formula: how little the first ranks differ from the next ones."""

DEPTH = 100
"""Ranks of each ranking that count, at least."""


def fuse(rankings: Sequence[NDArray[np.int64]], top_k: int) -> NDArray[np.int64]:
    """The ``top_k`` best rows of several rankings ``(n,)`` of distinct rows; equal sums by row."""
    rows = np.concatenate(rankings)
    shares = np.concatenate([1 / (RANK_OFFSET + 1 + np.arange(len(ranking))) for ranking in rankings])
    found, places = np.unique(rows, return_inverse=True)
    sums = np.bincount(places, shares, len(found))
    return found[np.lexsort((found, -sums))[:top_k]]
