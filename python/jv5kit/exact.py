"""Exact search over arrays: codes by Hamming distance, int8 rows by dot product, and the one rescored by the other.

Every search gives the same on every instruction set, for any number of threads and any batch of queries. Codes and rows
may be memory maps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit import _native
from jv5kit.embeddings import as_rows, whole_number
from jv5kit.errors import InputError
from jv5kit.quantize import range_steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    Scored = tuple[NDArray[np.float32], NDArray[np.int64]]


_MOST_THREADS = 1 << 16


def hamming_search(
    query_codes: ArrayLike,
    codes: NDArray[np.uint8],
    top_k: int,
    *,
    mask: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Find the nearest codes of each query by Hamming distance, exactly.

    Args:
        query_codes: uint8 ``(queries, bytes)``.
        codes: uint8 ``(n, bytes)``, C-contiguous.
        top_k: at least 1; more than there are rows gives all of them.
        mask: bool ``(n,)``: search only the rows that are true.
        threads: at most so many; by default ``JV5KIT_THREADS``, else one a processor. Small work runs on one.

    Returns:
        Distances int32 and row numbers int64, both ``(queries, k)``, by distance, then by row; k is ``top_k`` or the
        number of rows searched.

    Raises:
        InputError: a shape, a dtype or a number is wrong.
    """
    _check("query_codes", query_codes, np.uint8, 2)
    _check("codes", codes, np.uint8, 2)
    # No more hits than rows, however large a number is asked for.
    top_k, threads = min(_count("top_k", top_k), len(codes) + 1), _threads(threads)
    part = codes, _mask_bits(mask, len(codes))
    return _native.hamming_search(np.ascontiguousarray(query_codes), [part], top_k, threads)


def int8_search(
    query_values: ArrayLike,
    values: NDArray[np.int8],
    scales: NDArray[np.float32],
    top_k: int,
    *,
    mask: ArrayLike | None = None,
    threads: int | None = None,
) -> Scored:
    """Find the int8 rows that score highest with each int8 query, exactly.

    The score is the dot product, exact in int32, as float32 times the scale of the row. With queries and rows of
    :func:`~jv5kit.quantize_rows` it is the cosine of their embeddings, to within quantization, once it is multiplied
    with the scale of the query; the order is the same without.

    Args:
        query_values: int8 ``(queries, dim)``, dim at most 65536.
        values: int8 ``(n, dim)``, C-contiguous.
        scales: float32 ``(n,)``, one a row.
        top_k: at least 1; more than there are rows gives all of them.
        mask: bool ``(n,)``: search only the rows that are true.
        threads: as for :func:`hamming_search`.

    Returns:
        Scores float32 and row numbers int64, both ``(queries, k)``, best first, then by row; k is ``top_k`` or the
        number of rows searched. A score that is not a number, which only a scale can cause, is minus infinity.

    Raises:
        InputError: a shape, a dtype or a number is wrong.
    """
    _check("query_values", query_values, np.int8, 2)
    _check("values", values, np.int8, 2)
    _check("scales", scales, np.float32, 1)
    top_k, threads = min(_count("top_k", top_k), len(values) + 1), _threads(threads)
    part = values, scales, _mask_bits(mask, len(values))
    return _native.dot_search(np.ascontiguousarray(query_values), [part], top_k, threads)


def rescored_search(
    queries: ArrayLike,
    codes: NDArray[np.uint8],
    top_k: int,
    *,
    rows: NDArray[np.int8] | None = None,
    scales: NDArray[np.float32] | None = None,
    ranges: ArrayLike | None = None,
    oversample: int = 4,
    mask: ArrayLike | None = None,
    threads: int | None = None,
) -> Scored:
    """Find candidates by Hamming distance, and order them by a product with the float query.

    The product is with the candidate's int8 row, of :func:`~jv5kit.quantize_rows` with its ``scales`` or of
    ``quantize_embeddings(x, "int8", ranges)`` with its ``ranges`` (of which the middle of a step is taken); or without
    ``rows`` with its code, each bit as ±1 / √dim. Of unit embeddings it is an estimate of their cosine.

    Args:
        queries: ``(q, dim)``, real numbers.
        codes: uint8 ``(n, ceil(dim / 8))``, C-contiguous, as :func:`~jv5kit.quantize_embeddings` gives them.
        top_k: at least 1; more than there are rows gives all of them.
        rows: int8 ``(n, dim)``, C-contiguous; only those of candidates are read.
        scales: float32 ``(n,)``, of symmetric rows.
        ranges: ``(2, dim)``, of rows quantized by them.
        oversample: candidates for each row wanted.
        mask: bool ``(n,)``: search only the rows that are true.
        threads: as for :func:`hamming_search`.

    Returns:
        Scores float32 and row numbers int64, both ``(q, k)``, best first, then by row; k is ``top_k`` or the number of
        rows searched.

    Raises:
        InputError: a shape, a dtype or a number is wrong, or it is not clear how the rows were quantized.
    """
    queries = as_rows(queries, "queries")
    dim = queries.shape[1]
    _check("codes", codes, np.uint8, 2)
    if codes.shape[1] != -(-dim // 8):
        raise InputError(
            f"queries have {dim} dimensions and codes {codes.shape[1]} bytes; they must have {-(-dim // 8)}"
        )
    top_k = min(_count("top_k", top_k), len(codes) + 1)
    candidates = min(top_k * _count("oversample", oversample), len(codes) + 1)
    products = _products(queries, codes, rows, scales, ranges)
    part = codes, _mask_bits(mask, len(codes))
    _, found = _native.hamming_search(_native.quantize_binary(queries), [part], candidates, _threads(threads))
    # In the order of their rows: they are read in that order, and a stable sort keeps it where scores are equal.
    found.sort(axis=1)
    scores = products(found)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(found, best, axis=1)


def _products(
    queries: NDArray[np.float32],
    codes: NDArray[np.uint8],
    rows: NDArray[np.int8] | None,
    scales: NDArray[np.float32] | None,
    ranges: ArrayLike | None,
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """What scores candidates ``(q, count)``: the arguments are checked before the search."""
    dim = queries.shape[1]

    def numbers(found: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.repeat(np.arange(len(queries)), found.shape[1]), found.ravel()

    if rows is None:
        if scales is not None or ranges is not None:
            raise InputError("scales or ranges are given without the rows that they belong to")
        unit = queries * np.float32(1 / np.sqrt(dim))
        return lambda found: _native.code_products(unit, codes, *numbers(found)).reshape(found.shape)
    _check("rows", rows, np.int8, 2)
    if rows.shape != (len(codes), dim):
        raise InputError(f"rows have shape {rows.shape}; they must be {(len(codes), dim)}, one for each code")
    if scales is not None and ranges is None:
        of_row = scales
        _check("scales", scales, np.float32, 1)
        if len(scales) != len(rows):
            raise InputError(f"{len(scales)} scales for {len(rows)} rows")
        return lambda found: _native.mixed_products(queries, rows, *numbers(found)).reshape(found.shape) * of_row[found]
    if scales is not None or ranges is None:
        raise InputError("rows need either scales, of quantize_rows, or ranges, of quantize_embeddings")
    # A value stands for low + (value + 128.5) * step: the steps go into the query, the rest is a constant of it.
    _, steps = range_steps(ranges, dim)
    low, high = as_rows(ranges, "ranges")
    # A dimension without a range holds nothing but its low end.
    middles = (high - low) / np.float32(510)
    stepped = queries * steps
    # Row by row: what a product of matrices adds up depends on how many rows there are.
    constants = (queries * (low + np.float32(128) * steps + middles)).sum(axis=1)
    return lambda found: (
        _native.mixed_products(stepped, rows, *numbers(found)).reshape(found.shape) + constants[:, None]
    )


def _check(name: str, array: Any, dtype: type[np.generic], dimensions: int) -> None:
    found = np.asarray(array).dtype
    if found != dtype or np.ndim(array) != dimensions:
        shape = "(n,)" if dimensions == 1 else "(n, bytes)" if dtype == np.uint8 else "(n, dim)"
        raise InputError(f"{name} is {found} of shape {np.shape(array)}; it must be {np.dtype(dtype)} {shape}")


def _count(name: str, value: Any) -> int:
    count = whole_number(name, value)
    if count < 1:
        raise InputError(f"{name}={value}; it must be at least 1")
    return count


def _threads(threads: int | None) -> int | None:
    return None if threads is None else min(_count("threads", threads), _MOST_THREADS)


def _mask_bits(mask: ArrayLike | None, rows: int) -> NDArray[np.uint8] | None:
    """A mask as the kernels take it: one bit a row."""
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != (rows,):
        raise InputError(f"mask is {mask.dtype} of shape {mask.shape}; it must be bool ({rows},)")
    # A bool that was made from other bytes may hold any of them; what is not 0 is true.
    return np.packbits(np.ascontiguousarray(mask).view(np.uint8), bitorder="little")
