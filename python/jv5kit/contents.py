"""What an index holds, read without a query: its documents, its codes, and what it keeps of their embeddings.

Documents come in their order, without those that were deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import InputError
from jv5kit.scan import Rows, stored_embeddings
from jv5kit.sources import id_list
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.index import Index
    from jv5kit.querying import Where
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.types import Document


def documents(index: Index, filter: Where | None = None) -> list[Document]:
    """The documents, or those that a filter keeps; each passage by itself in an index of passages.

    Raises:
        InputError: the filter does not fit the index.
        IndexDamagedError: the index is not what was written.
    """
    condition = None if filter is None else parse_filter(filter)

    def read(snapshot: Snapshot) -> list[Document]:
        numbers = _live(snapshot) if condition is None else snapshot.matching(condition)
        found = snapshot.catalog.documents(numbers, snapshot.state)
        return [found[number] for number in numbers]

    return index.ask(read)


def codes(index: Index) -> tuple[list[str], NDArray[np.uint8]]:
    """The ids and the codes of the documents: uint8 ``(n, dim / 8)``, bits as ``np.packbits(x > 0)`` has them.

    Raises:
        InputError: the index has no codes.
        IndexDamagedError: the index is not what was written.
    """
    settings = index.settings
    if settings.precision != "ubinary":
        raise InputError(
            f"{index.path} has precision {settings.precision!r}, and codes are of 'ubinary': build it with "
            "precision='ubinary', or write its rows with Index.export(FOLDER, faiss=True)"
        )

    def read(snapshot: Snapshot) -> tuple[list[str], NDArray[np.uint8]]:
        numbers = _live(snapshot)
        found = snapshot.catalog.documents(numbers, snapshot.state)
        parts = [np.empty((0, settings.dim // 8), np.uint8)]
        for segment, deletions in zip(snapshot.segments, snapshot.deletions, strict=True):
            parts.append(segment.tensor("codes")[~deletions.contain(np.arange(segment.rows))])
        return [found[number].id for number in numbers], np.concatenate(parts)

    return index.ask(read)


def embeddings(index: Index, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """What the index keeps of the embeddings ``(dim,)`` of documents, by id; ids that it does not have are left out.

    As far as its precision knows them: where there are codes alone each dimension is ±1 / √dim. In a rotated index they
    are rotated.

    Raises:
        InputError: ``ids`` is a single string, or the index has passages, of which a document has several embeddings.
        IndexDamagedError: the index is not what was written.
    """
    wanted = id_list(ids)
    if index.settings.passages is not None:
        raise InputError(f"{index.path} has passages, and a document as many embeddings: there is no one of an id")

    def read(snapshot: Snapshot) -> dict[str, NDArray[np.float32]]:
        found = snapshot.find(wanted)
        if not found:
            return {}
        numbers = np.array([rows[0] for rows, _ in found.values()], np.int64)
        rows = Rows(snapshot.state.settings, snapshot.segments, [None] * len(snapshot.segments))
        return dict(zip(found, stored_embeddings(rows, snapshot.positions(numbers)), strict=True))

    return index.ask(read)


def _live(snapshot: Snapshot) -> list[int]:
    """Numbers of the rows that are not deleted."""
    numbers: list[int] = []
    for segment, deletions in zip(snapshot.segments, snapshot.deletions, strict=True):
        rows = np.arange(segment.rows)
        numbers += segment.numbers(rows[~deletions.contain(rows)]).tolist()
    return numbers
