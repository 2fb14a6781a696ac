"""Embeddings as an index stores them: which tensors, by precision, and their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit import _native

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jv5kit.storage.state import Settings

    Spec = tuple[str, np.dtype[Any], tuple[int, ...]]


def vector_specs(settings: Settings, rows: int) -> list[Spec]:
    """Name, dtype and shape of the tensors that hold so many embeddings."""
    values: list[Spec] = [("rows", np.dtype("i1"), (rows, settings.dim)), ("scales", np.dtype("<f4"), (rows,))]
    if settings.precision == "float32":
        return [("embeddings", np.dtype("<f4"), (rows, settings.dim))]
    if settings.precision == "int8":
        return values
    codes: Spec = ("codes", np.dtype("u1"), (rows, settings.dim // 8))
    return [codes, *values] if settings.rescore == "int8" else [codes]


def vectors(settings: Settings, embeddings: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The tensors of embeddings ``(n, dim)`` of unit length."""
    if settings.precision == "float32":
        return {"embeddings": embeddings}
    if settings.precision == "ubinary" and settings.rescore != "int8":
        return {"codes": _native.quantize_binary(embeddings)}
    if settings.precision == "int8":
        rows, scales, _ = _native.quantize_rows(embeddings, False)
        return {"rows": rows, "scales": scales}
    rows, scales, codes = _native.quantize_rows(embeddings, True)
    return {"codes": codes, "rows": rows, "scales": scales}
