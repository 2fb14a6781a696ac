"""How well two columns of numbers agree in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's correlation of the ranks, where equal values share their mean rank.

    Args:
        a: ``(n,)`` numbers, n at least 2.
        b: ``(n,)`` numbers.

    Returns:
        A number in [-1, 1].

    Raises:
        InputError: the lengths differ, a value is NaN, or all values of a column are equal, which have no order.
    """
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.ndim != 1 or left.shape != right.shape or len(left) < 2:
        raise InputError(f"the columns have shapes {left.shape} and {right.shape}; both must be (n,), n at least 2")
    centered = []
    for column in (left, right):
        if np.isnan(column).any():
            raise InputError(f"value {int(np.isnan(column).argmax())} is NaN, which has no rank")
        ranks = mean_ranks(column)
        # Ranks are halves of whole numbers: a column without an order gives zeros, exactly.
        centered.append(ranks - (len(ranks) - 1) / 2)
    x, y = centered
    spread = float(x @ x) * float(y @ y)
    if spread == 0:
        raise InputError(f"all {len(left)} values of a column are equal: there is no order to correlate")
    return float(np.clip(x @ y / spread**0.5, -1, 1))


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value, from 0 on; equal values have the mean of the ranks that they take up together."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts + 1) / 2)[group]
    return ranks
