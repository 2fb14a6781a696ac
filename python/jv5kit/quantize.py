"""Precisions smaller than float32: sign bits, int8 rows, and exact search over codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from jv5kit import _native
from jv5kit.embeddings import as_rows
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def quantize_embeddings(embeddings: ArrayLike, precision: Literal["ubinary"] = "ubinary") -> NDArray[np.uint8]:
    """One bit a dimension: ``np.packbits(x > 0, axis=-1)``, the layout of sentence-transformers.

    Binary indexes, FAISS's among them, take such codes as they are. (``faiss.real_to_binary`` packs the bits of a byte
    in the other order: codes of both kinds must not be mixed.)

    Args:
        embeddings: ``(n, dim)``, real numbers. 0, -0.0 and NaN give 0.
        precision: ``"ubinary"``.

    Returns:
        uint8 ``(n, ceil(dim / 8))``: the first dimension in the highest bit.

    Raises:
        InputError: the shape or the precision is wrong.
    """
    if precision != "ubinary":
        raise InputError(f"precision={precision!r} is not known; quantize_embeddings gives 'ubinary'")
    return _native.quantize_binary(as_rows(embeddings))


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
    values, scales, _ = _native.quantize_rows(as_rows(embeddings))
    return values, scales


def hamming_search(
    query_codes: ArrayLike,
    codes: NDArray[np.uint8],
    top_k: int,
    *,
    mask: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Find the nearest codes of each query by Hamming distance, exactly.

    The result is the same on every instruction set, for any number of threads and any batch of queries: by distance,
    then by row number.

    Args:
        query_codes: uint8 ``(queries, bytes)``.
        codes: uint8 ``(n, bytes)``, C-contiguous; may be a memory map.
        top_k: at least 1; more than there are rows gives all of them.
        mask: bool ``(n,)``: search only the rows that are true.
        threads: at most so many; by default ``JV5KIT_THREADS``, else one a processor. Small work runs on one.

    Returns:
        Distances int32 and row numbers int64, both ``(queries, k)``, where k is ``top_k`` or the number of
        rows searched.

    Raises:
        InputError: a shape, a dtype or a number is wrong.
    """
    for name, array in (("query_codes", query_codes), ("codes", codes)):
        dtype = np.asarray(array).dtype
        if dtype != np.uint8 or np.ndim(array) != 2:
            raise InputError(f"{name} is {dtype} of shape {np.shape(array)}; it must be uint8 (n, bytes)")
    if top_k < 1:
        raise InputError(f"top_k={top_k}; it must be at least 1")
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads}; it must be at least 1")
    bits = None
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (len(codes),):
            raise InputError(f"mask is {mask.dtype} of shape {mask.shape}; it must be bool ({len(codes)},)")
        # A bool that was made from other bytes may hold any of them; what is not 0 is true.
        bits = np.packbits(np.ascontiguousarray(mask).view(np.uint8), bitorder="little")
    # No more hits than rows, however large a number is asked for.
    top_k = min(top_k, len(codes) + 1)
    return _native.hamming_search(np.ascontiguousarray(query_codes), [(codes, bits)], top_k, threads)
