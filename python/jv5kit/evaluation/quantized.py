"""The precisions that are compared: what each keeps of a document, in how many bytes, and what it sees of a query.

===============  ==================================================  ====================  =========================
precision        kept of a document                                  bytes                 what a query is
===============  ==================================================  ====================  =========================
float32          the values                                          4 dim                 float32
int8             int8 values, one float32 scale                      dim + 4               float32
ubinary          one bit a dimension                                 dim / 8               bits: Hamming distance
ubinary+codes    one bit a dimension                                 dim / 8               bits, then float32 on bits
ubinary+int8     one bit a dimension, int8 values and their scale    dim / 8 + dim + 4     bits, then float32 on int8
===============  ==================================================  ====================  =========================

Retrieval and long documents are searched in an index of that precision, and bitexts by the same kernels. Where nothing
is searched, texts are compared at their precision: both as int8 values, or both as bits (each ±1); with ubinary+codes
the first text of a pair, or the query, stays in float32. ``ubinary+int8`` narrows a search down, and a classifier and
clusters have no query: what has no meaning there is left blank (:func:`has_meaning`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from jv5kit.errors import InputError
from jv5kit.quantize import quantize_embeddings, quantize_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.evaluation.tasks import Kind

StoredPrecision = Literal["float32", "int8", "ubinary", "ubinary+codes", "ubinary+int8"]
STORED_PRECISIONS: tuple[StoredPrecision, ...] = get_args(StoredPrecision)

_SEARCHED = ("retrieval", "long-documents", "bitext")
_WITHOUT_QUERY = ("classification", "clustering")

_BLOCK = 16384
"""Pairs that are compared at a time, which bounds the memory for their products."""


def document_bytes(dim: int, precision: StoredPrecision) -> int:
    """Bytes of a document's embedding."""
    bits, values = dim // 8, dim + 4
    sizes: dict[StoredPrecision, int] = {
        "float32": 4 * dim,
        "int8": values,
        "ubinary": bits,
        "ubinary+codes": bits,
        "ubinary+int8": bits + values,
    }
    return sizes[precision]


def has_meaning(kind: Kind, precision: StoredPrecision) -> bool:
    """Whether sets of a kind can be evaluated at a precision."""
    if precision == "ubinary+int8":
        return kind in _SEARCHED
    return precision != "ubinary+codes" or kind not in _WITHOUT_QUERY


def check_dims(dims: Sequence[int], precisions: Sequence[StoredPrecision], most: int) -> None:
    """Refuse dimensions that a model does not have, or of which bits fill no whole bytes.

    Raises:
        InputError: names the first one.
    """
    for dim in dims:
        if not 1 <= dim <= most:
            raise InputError(f"dim {dim} is outside 1..{most}, the model's dimensions")
        binary = next((precision for precision in precisions if precision.startswith("ubinary")), None)
        if binary is not None and dim % 8:
            raise InputError(f"dim {dim} is not a multiple of 8, which {binary} needs: one bit a dimension")


def stored(embeddings: NDArray[np.float32], precision: StoredPrecision) -> NDArray[np.float32]:
    """What a precision keeps of embeddings, as float32 rows ``(n, dim)`` of the same direction, of any length.

    Bits are ±1 and int8 values whole numbers, so that products of equal codes are equal to the last digit.
    """
    if precision == "float32":
        return embeddings
    if precision == "int8":
        return quantize_rows(embeddings)[0].astype(np.float32)
    bits = np.unpackbits(quantize_embeddings(embeddings), axis=1, count=embeddings.shape[1])
    return bits.astype(np.float32) * 2 - 1


def as_query(embeddings: NDArray[np.float32], precision: StoredPrecision) -> NDArray[np.float32]:
    """What is compared with what a precision keeps: the same, or float32 for ``ubinary+codes``."""
    return embeddings if precision == "ubinary+codes" else stored(embeddings, precision)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of unit length; zeros stay zeros."""
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return rows / lengths


def pair_cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each row of ``left`` with the same row of ``right``: float64 ``(n,)``, 0 for a row of zeros.

    Raises:
        InputError: a value is not finite.
    """
    cosines = np.zeros(len(left))
    for start in range(0, len(left), _BLOCK):
        a, b = (rows[start : start + _BLOCK].astype(np.float64) for rows in (left, right))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines[start : start + _BLOCK] = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    if not np.isfinite(cosines).all():
        raise InputError(f"the embedding of pair {int(np.argmin(np.isfinite(cosines)))} is not finite")
    return cosines
