"""Embeddings as arrays: their checks, and Matryoshka truncation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit import _native
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def as_rows(embeddings: ArrayLike, name: str = "embeddings") -> NDArray[np.float32]:
    """Embeddings as float32 rows ``(n, dim)``, C-contiguous; copied only where they are not that already.

    Raises:
        InputError: the array is not two-dimensional, or holds no real numbers.
    """
    array = np.asarray(embeddings)
    if array.ndim != 2:
        raise InputError(f"{name} has shape {array.shape}; it must have two dimensions, (n, dim)")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}; it must hold real numbers")
    return np.ascontiguousarray(array, dtype=np.float32)


def check_rows(embeddings: NDArray[np.float32], first_row: int = 0) -> None:
    """Refuse rows that have no direction: a NaN, an infinity, or nothing but zeros.

    Args:
        embeddings: float32 ``(n, dim)``.
        first_row: number of the first row, for the message.

    Raises:
        InputError: names the first such row and what is wrong with it.
    """
    # One pass over the values: a sum of squares is finite and positive exactly when the row is usable, but for overflow
    # and underflow, which the closer look tells apart.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", embeddings, embeddings)
    for row in np.flatnonzero(~(np.isfinite(squares) & (squares > 0))):
        values = embeddings[row]
        if np.isnan(values).any():
            problem = "a NaN"
        elif np.isinf(values).any():
            problem = "an infinity"
        elif not values.any():
            problem = "nothing but zeros"
        else:
            continue
        raise InputError(f"row {first_row + row} of the embeddings holds {problem}; it cannot be searched")


def truncate_embeddings(embeddings: ArrayLike, dim: int) -> NDArray[np.float32]:
    """Keep the first ``dim`` values of each embedding, and bring it back to unit length (Matryoshka truncation).

    Args:
        embeddings: ``(n, columns)``, real numbers.
        dim: 1 to ``columns``.

    Returns:
        float32 ``(n, dim)``. A row whose first ``dim`` values are all zero stays zero; a NaN or an infinity makes it NaN.

    Raises:
        InputError: the shape is wrong, or ``dim`` is not in 1..columns.
    """
    if dim < 1:
        raise InputError(f"dim={dim}; it must be at least 1")
    return _native.truncate(as_rows(embeddings), dim)
