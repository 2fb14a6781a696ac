"""Embeddings as an answer carries them: values of a type, as JSON numbers or in base64.

The packing is that of Jina's API: ``ubinary`` is ``np.packbits(x > 0)``, a byte 0..255 of eight dimensions, and
``binary`` the same byte - 128, both as floats in JSON; base64 holds little-endian float32, or the bytes. int8 is
``rint(127 x)`` and uint8 ``rint(127.5 (x + 1))``, clipped.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from jv5kit.quantize import quantize_embeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

OutputType = Literal["float", "int8", "uint8", "binary", "ubinary"]
OUTPUT_TYPES: tuple[OutputType, ...] = get_args(OutputType)


def pack(embeddings: NDArray[np.float32], output: OutputType, *, as_base64: bool) -> list[str] | list[list[Any]]:
    """Each of some embeddings ``(n, dim)`` as it is put into JSON."""
    values = _values(embeddings, output)
    if as_base64:
        return [base64.b64encode(row.data).decode() for row in np.ascontiguousarray(values)]
    if output in ("binary", "ubinary"):
        values = values.astype(np.float32)
    rows: list[list[Any]] = values.tolist()
    return rows


def _values(embeddings: NDArray[np.float32], output: OutputType) -> NDArray[Any]:
    values: NDArray[Any] = embeddings.astype("<f4", copy=False)
    if output == "int8":
        values = np.clip(np.rint(127 * values), -128, 127).astype(np.int8)
    elif output == "uint8":
        values = np.clip(np.rint(127.5 * (values + 1)), 0, 255).astype(np.uint8)
    elif output != "float":
        values = quantize_embeddings(embeddings)
    # byte - 128 is the byte with its highest bit turned, read as a signed number.
    return (values ^ np.uint8(128)).view(np.int8) if output == "binary" else values
