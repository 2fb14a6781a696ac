"""Where the rows of an index of passages belong: to whole documents, or to parts of longer ones.

A passage is stored as a document is, by a row of the segment and one of the catalogue, under the id of its document,
with the same title and metadata and with its own part of the text. Beside the vectors a segment has three numbers for
each row: which passage it is, from 1 on, and the characters where it begins and ends; 0 numbers a whole document. The
passages of a document come in one commit, one after another, and cover its text, so that it is put together from them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.types import Document, Passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jv5kit.storage.state import Settings
    from jv5kit.storage.vectors import Spec


def passage_specs(settings: Settings, rows: int) -> list[Spec]:
    """Name, dtype and shape of the tensor that says which passages so many rows are; none without passages."""
    return [] if settings.passages is None else [("passages", np.dtype("<u4"), (rows, 3))]


def passage_of(span: Sequence[int]) -> Passage | None:
    """The passage of a row of that tensor; None for a whole document."""
    return Passage(*span) if span[0] else None


def whole(rows: Sequence[Document], spans: Iterable[Sequence[int]]) -> Document:
    """The document that some rows, in order, are the passages of, or that the only row is.

    Raises:
        ValueError: they are those of several documents, or not all of one.
    """
    passages = [passage_of(span) for span in spans]
    if passages == [None]:
        return rows[0]
    identifier = rows[0].id
    texts, before, last = [""], "", Passage(0, 0, 0)
    for row, passage in zip(rows, passages, strict=True):
        if passage is None or passage.number == 1 < len(texts):
            raise ValueError(f"the id {identifier!r} belongs to two documents")
        fits = last.start <= passage.start <= last.end <= passage.end == passage.start + len(row.text)
        shared = last.end - passage.start
        if passage.number != last.number + 1 or not fits or before[len(before) - shared :] != row.text[:shared]:
            raise ValueError(f"passage {passage.number} of the document {identifier!r} does not follow those before it")
        texts.append(row.text[shared:])
        before, last = row.text, passage
    return replace(rows[0], text="".join(texts))
