"""Documents that are near to the query and not to one another.

Maximal marginal relevance (Carbonell and Goldstein, 1998): one after another, the document with the highest λ · its
score - (1 - λ) · its highest cosine to one that was chosen before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit.embeddings import truncate_embeddings, whole_number
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def maximal_marginal_relevance(
    scores: NDArray[np.float32], embeddings: NDArray[np.float32], k: int, lambda_mult: float
) -> list[int]:
    """Choose ``k`` documents, or all if there are fewer.

    Args:
        scores: ``(n,)``, the cosine of each document and the query.
        embeddings: ``(n, dim)``, of the documents.
        k: at least 1.
        lambda_mult: from 0, as different as can be, to 1, as near to the query as can be.

    Returns:
        Their places, in the order in which they were chosen; of equal ones the first.

    Raises:
        InputError: a number is out of its range.
    """
    if whole_number("k", k) < 1:
        raise InputError(f"k={k}; it must be at least 1")
    if not 0 <= lambda_mult <= 1:
        raise InputError(f"lambda_mult={lambda_mult}; it must be from 0 (different) to 1 (near to the query)")
    rows = truncate_embeddings(embeddings, embeddings.shape[1])
    left = list(range(len(rows)))
    # Nothing is chosen yet, so that the first is the nearest, whatever λ is.
    chosen = [left.pop(int(np.argmax(scores)))] if left else []
    likeness = rows @ rows[chosen[0]] if chosen else scores
    while left and len(chosen) < k:
        worth = lambda_mult * scores[left] - (1 - lambda_mult) * likeness[left]
        chosen.append(left.pop(int(np.argmax(worth))))
        likeness = np.maximum(likeness, rows @ rows[chosen[-1]])
    return chosen
