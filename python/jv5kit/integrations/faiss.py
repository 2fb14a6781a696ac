"""FAISS: the codes of an index as an ``IndexBinaryFlat``, and an ``IndexBinaryFlat`` as an index.

Distances are the same on both sides, and so are the bytes. Which bit of a byte a dimension is does not matter to
Hamming distance, as long as documents and queries agree: codes of ``np.packbits``, of sentence-transformers and of
:func:`jv5kit.quantize_embeddings` have the first dimension in the highest bit, those of ``faiss.real_to_binary`` and
of ``IndexBinaryFromFloat`` in the lowest one. The two must not be mixed; :func:`from_faiss` turns the latter around.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jv5kit.contents import codes as codes_of
from jv5kit.errors import InputError, MissingExtraError
from jv5kit.index import Index

try:
    import faiss
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"jv5kit.integrations.faiss needs faiss-cpu ({error.name} is missing): pip install 'jv5kit[faiss]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from jv5kit.types import Document, Rescore

_INT64 = range(-(1 << 63), 1 << 63)
_WITH_IDS = ("IndexBinaryIDMap", "IndexBinaryIDMap2")


def to_faiss(index: Index | str | os.PathLike[str]) -> tuple[Any, list[str]]:
    """The codes of an index as FAISS's, without what was deleted.

    Args:
        index: an index of precision ``"ubinary"``, or its folder.

    Returns:
        An ``IndexBinaryFlat``, and the ids of the documents: row ``i`` of the one is ``ids[i]`` of the other.

    Raises:
        InputError: the index has no codes.
    """
    if not isinstance(index, Index):
        with Index.open(index) as opened:
            return to_faiss(opened)
    ids, codes = codes_of(index)
    flat = faiss.IndexBinaryFlat(index.settings.dim)
    flat.add(codes)
    return flat, ids


def to_faiss_with_ids(index: Index | str | os.PathLike[str]) -> Any:
    """As :func:`to_faiss`, as an ``IndexBinaryIDMap2``, which gives ids itself: for ids that are whole numbers.

    Raises:
        InputError: the index has no codes, or an id is no whole number of 64 bits; the message has the id.
    """
    flat, ids = to_faiss(index)
    numbers = np.fromiter(map(_number, ids), np.int64, len(ids))
    if len(np.unique(numbers)) < len(numbers):
        raise InputError("several rows have one id, as those of passages do; take to_faiss(), which gives ids by row")
    mapped = faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(flat.d))
    codes = faiss.vector_to_array(flat.xb).reshape(len(ids), flat.d // 8)
    mapped.add_with_ids(codes, numbers)
    return mapped


def from_faiss(
    binary: Any,
    path: str | os.PathLike[str],
    documents: Iterable[Document | Mapping[str, Any]] | None = None,
    *,
    ids: Sequence[str | int] | None = None,
    bitorder: Literal["big", "little"] = "big",
    rescore: Rescore = "none",
    force: bool = False,
) -> Index:
    """Build an index of FAISS's codes, to be searched by codes or by embeddings.

    Args:
        binary: an ``IndexBinaryFlat``, by itself or in an ``IndexBinaryIDMap``, or a file of one.
        path: folder of the index, by convention ``NAME.jv5``.
        documents: one for each row, in the order of the rows; with texts, titles and metadata to filter by.
        ids: one for each row, where there are no documents; by default those of the ``IndexBinaryIDMap``, else the
            numbers of the rows.
        bitorder: as ``np.packbits`` has it: ``"little"`` for codes of ``faiss.real_to_binary``, whose bits are turned
            around.
        rescore: ``"codes"`` orders hits by the float query against their codes, ``"none"`` by Hamming distance.
        force: replace an index at the path.

    Raises:
        InputError: it is another index, or there are not as many documents or ids as rows.
        IndexExistsError: the path is taken.
    """
    if bitorder not in ("big", "little"):
        raise InputError(f"bitorder={bitorder!r} is not known; choose 'big' or 'little'")
    codes, own_ids = _codes(binary)
    if bitorder == "little":
        codes = np.packbits(np.unpackbits(codes, axis=1, bitorder="little"), axis=1)
    if documents is None and ids is None:
        ids = own_ids
    return Index.build(path, documents, embeddings=codes, ids=ids, rescore=rescore, force=force)


def _codes(binary: Any) -> tuple[NDArray[np.uint8], list[int] | None]:
    """The codes ``(n, dim / 8)`` of an index of FAISS, and its ids if it has its own."""
    if isinstance(binary, str | os.PathLike):
        path = os.fspath(binary)
        try:
            binary = faiss.read_index_binary(path)
        # FAISS raises a bare RuntimeError, whose text is a place in its sources.
        except RuntimeError:
            raise InputError(
                f"{path} cannot be read as a binary index of FAISS; write one with faiss.write_index_binary"
            ) from None
    if not isinstance(binary, faiss.IndexBinary):
        raise InputError(
            f"{type(binary).__name__} is no binary index of FAISS; give an IndexBinaryFlat, or the embeddings "
            "themselves to Index.build(PATH, embeddings=…)"
        )
    inner = faiss.downcast_IndexBinary(binary)
    ids = None
    if type(inner).__name__ in _WITH_IDS:
        ids = faiss.vector_to_array(inner.id_map).tolist()
        inner = faiss.downcast_IndexBinary(inner.index)
    if not isinstance(inner, faiss.IndexBinaryFlat):
        raise InputError(
            f"a {type(inner).__name__} of FAISS is not read, as it does not keep its codes in order; give the "
            "IndexBinaryFlat of its codes"
        )
    return faiss.vector_to_array(inner.xb).reshape(inner.ntotal, inner.d // 8), ids


def _number(identifier: str) -> int:
    """An id as the whole number that FAISS takes."""
    try:
        number = int(identifier)
    except ValueError:
        number = None
    # Only one that is written as we would write it is found again.
    if number is None or str(number) != identifier or number not in _INT64:
        raise InputError(
            f"the id {identifier!r} is no whole number of 64 bits, which FAISS takes alone; take to_faiss(), which "
            "gives ids by row"
        )
    return number
