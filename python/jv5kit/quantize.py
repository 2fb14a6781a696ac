"""Precisions smaller than float32: sign bits, and int8 rows of two kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from jv5kit import _native
from jv5kit.embeddings import as_rows
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@overload
def quantize_embeddings(
    embeddings: ArrayLike, precision: Literal["ubinary"] = "ubinary", ranges: None = None
) -> NDArray[np.uint8]: ...
@overload
def quantize_embeddings(
    embeddings: ArrayLike, precision: Literal["int8"], ranges: ArrayLike | None = None
) -> NDArray[np.int8]: ...
def quantize_embeddings(
    embeddings: ArrayLike, precision: Literal["ubinary", "int8"] = "ubinary", ranges: ArrayLike | None = None
) -> NDArray[np.uint8] | NDArray[np.int8]:
    """Quantize to one bit or one byte a dimension, to the values that sentence-transformers gives.

    ``"ubinary"`` is ``np.packbits(x > 0, axis=-1)``. Binary indexes, FAISS's among them, take such codes as they are.
    (``faiss.real_to_binary`` packs the bits of a byte in the other order: codes of both kinds must not be mixed.)

    ``"int8"`` divides the range of each dimension, low to high, into 255 steps: ``floor((x - low) / step) - 128`` in
    float32, and what is outside of the range is clipped to -128 and 127. A dimension whose low is its high has steps of
    1. Rows of other embeddings can be compared only if they were quantized with the same ranges: take them once, from a
    sample, by :func:`embedding_ranges`.

    Args:
        embeddings: ``(n, dim)``, real numbers. To bits 0, -0.0 and NaN give 0; to int8 a NaN gives -128.
        precision: ``"ubinary"`` or ``"int8"``.
        ranges: for ``"int8"``, ``(2, dim)``: the low and the high end of each dimension; by default those of the
            embeddings themselves.

    Returns:
        uint8 ``(n, ceil(dim / 8))``, the first dimension in the highest bit; or int8 ``(n, dim)``.

    Raises:
        InputError: a shape, the precision or a range is wrong.
    """
    rows = as_rows(embeddings)
    if precision == "ubinary":
        if ranges is not None:
            raise InputError("ranges are given, which 'ubinary' has no use for; did you mean precision='int8'?")
        return _native.quantize_binary(rows)
    if precision != "int8":
        raise InputError(f"precision={precision!r} is not known; quantize_embeddings gives 'ubinary' or 'int8'")
    if ranges is None:
        ranges = embedding_ranges(rows) if len(rows) else np.zeros((2, rows.shape[1]))
    return _native.quantize_ranges(rows, *range_steps(ranges, rows.shape[1]))


def embedding_ranges(sample: ArrayLike) -> NDArray[np.float32]:
    """Find the range of each dimension, to quantize to int8 by.

    Args:
        sample: ``(n, dim)``, finite real numbers: at least two embeddings, better a few thousand, of the kind that will
            be quantized.

    Returns:
        float32 ``(2, dim)``: the lowest and the highest value of each dimension.

    Raises:
        InputError: the shape is wrong, or a value is not finite.
    """
    rows = as_rows(sample, "sample")
    if len(rows) < 2:
        raise InputError(f"sample has shape {rows.shape}; ranges need at least two embeddings")
    ranges = np.stack([rows.min(axis=0), rows.max(axis=0)])
    _check_ranges(ranges)
    return ranges


def range_steps(ranges: ArrayLike, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The low end of each dimension and the length of its steps, both float32 ``(dim,)``.

    Raises:
        InputError: the ranges are not ``(2, dim)``, not finite, or have a low end above the high one.
    """
    rows = as_rows(ranges, "ranges")
    if rows.shape != (2, dim):
        raise InputError(f"ranges have shape {rows.shape}; they must be (2, {dim}), the low and the high ends")
    _check_ranges(rows)
    steps = (rows[1] - rows[0]) / np.float32(255)
    steps[steps == 0] = 1
    return rows[0], steps


def _check_ranges(ranges: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = ~(np.isfinite(ranges[1] - ranges[0]) & (ranges[0] <= ranges[1]))
    if wrong.any():
        column = int(np.argmax(wrong))
        low, high = ranges[:, column]
        raise InputError(f"the range of dimension {column} is {low} to {high}; it must be finite, the low end first")


def quantize_rows(embeddings: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale a row: ``row ≈ scale * int8``, nothing clipped and nothing to calibrate.

    Args:
        embeddings: ``(n, dim)``, finite real numbers.

    Returns:
        int8 ``(n, dim)`` in -127..127, and float32 ``(n,)`` scales: the largest absolute value of the row / 127. A row
        of zeros has scale 0.

    Raises:
        InputError: the shape is wrong.
    """
    values, scales, _ = _native.quantize_rows(as_rows(embeddings), False)
    return values, scales
