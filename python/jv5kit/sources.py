"""What is to be indexed: documents, embeddings, or both, read in batches and checked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import islice, repeat
from operator import length_hint
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from jv5kit.documents import check_document, check_string, document_from_record
from jv5kit.embeddings import as_array, as_rows, whole_number
from jv5kit.encoder import shared_encoder
from jv5kit.errors import DocumentError, InputError, Jv5kitError
from jv5kit.types import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from jv5kit.encoder import Encoder

BATCH_DOCUMENTS = 512
"""Documents of the first batch that is encoded and committed together; later ones go by the time that it took."""

BATCH_SECONDS = 4.0
"""How long a batch should take, whatever the model and the machine: what an interruption may cost."""

MAX_BATCH_DOCUMENTS = 16_384
MAX_BATCH_CHARACTERS = 32 << 20

TOKEN_CHARACTERS = 4
"""Characters of a token, about: a batch that is split has about as many passages as another one has documents."""

BATCH_BYTES = 8 << 20
"""Bytes of given embeddings that are committed together."""


class Rows(Protocol):
    """Embeddings that are read slice by slice: an array, a memory map, or a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, dim)``."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Consecutive rows."""


@dataclass(frozen=True, slots=True)
class Source:
    """Documents to add, and where their embeddings come from.

    Attributes:
        documents: documents or JSON objects; None for embeddings without documents.
        encoder: encodes them, if there are no embeddings.
        embeddings: one row for each document, in order: real numbers, or uint8 codes of one bit a dimension.
        ids: of embeddings without documents, a range among them; None numbers them from those that are there on.
    """

    documents: Iterable[Document | Mapping[str, Any]] | None = None
    encoder: Encoder | None = None
    embeddings: Rows | None = None
    ids: Sequence[str | int] | None = None

    @property
    def holds_codes(self) -> bool:
        """Whether the embeddings are codes already."""
        return self.embeddings is not None and getattr(self.embeddings, "dtype", None) == np.uint8

    @property
    def dim(self) -> int:
        """Dimensions of the embeddings."""
        if self.embeddings is not None:
            return self.embeddings.shape[1] * (8 if self.holds_codes else 1)
        if self.encoder is None:
            raise Jv5kitError("there is neither an encoder nor embeddings")
        return self.encoder.dim

    def total(self) -> int | None:
        """How many documents there are, as far as that can be told."""
        if self.embeddings is not None:
            return self.embeddings.shape[0]
        return length_hint(self.documents, 0) or None


def source_of(
    documents: Iterable[Document | Mapping[str, Any]] | None,
    encoder: Encoder | None,
    embeddings: ArrayLike | Rows | None,
    ids: Sequence[str | int] | None,
) -> Source:
    """The documents to add, as :meth:`jv5kit.Index.build` takes them.

    Raises:
        InputError: the arguments contradict each other, or the embeddings are no rows of numbers.
    """
    if embeddings is None:
        if documents is None:
            raise InputError("there is nothing to index: give documents, or embeddings, or both")
        if ids is not None:
            raise InputError("ids go with embeddings; documents have their own")
        return Source(documents, encoder or shared_encoder(None))
    # What has a shape is read slice by slice; anything else becomes an array.
    rows: Rows = cast("Rows", embeddings) if hasattr(embeddings, "shape") else as_array(embeddings, "embeddings")
    if len(rows.shape) != 2 or rows.shape[1] == 0:
        raise InputError(f"the embeddings have shape {tuple(rows.shape)}; it must be (n, dim)")
    if documents is not None and ids is not None:
        raise InputError("ids go with embeddings alone; documents have their own")
    if ids is not None and len(ids) != rows.shape[0]:
        raise InputError(f"there are {len(ids)} ids for {rows.shape[0]} embeddings")
    return Source(documents, None, rows, ids)


def id_list(ids: Sequence[str]) -> list[str]:
    """Ids to look up.

    Raises:
        InputError: it is a single string, or something in it is none.
    """
    if isinstance(ids, str):
        raise InputError(f"ids is the string {ids!r}; give a list of ids")
    # First, since an iterator is read only once.
    listed = list(ids)
    for identifier in listed:
        if not isinstance(identifier, str):
            raise InputError(f"the id {identifier!r} is no string; ids are strings, also where they are numbers")
        try:
            check_string("id", identifier)
        except ValueError as error:
            raise InputError(f"{identifier!r}: {error}") from None
    return listed


Batch = tuple[int, list[Document], "NDArray[Any] | None"]


def batches(
    source: Source,
    next_row: int,
    skip: Callable[[InputError], None] | None,
    first_size: int | None = None,
    passages: int | None = None,
) -> Iterator[Batch]:
    """Number of the first row, documents and embeddings (or codes) of each batch.

    Args:
        source: of the documents.
        next_row: number of the first of them, by which embeddings without ids are named.
        skip: called with the error of each document that cannot be used, which is then passed over; None raises it.
        first_size: documents of the first batch that is to be encoded, by default :data:`BATCH_DOCUMENTS`.
        passages: tokens of the passages that documents will be split into, if they will be.
    """
    if source.embeddings is None:
        first, size = 0, first_size or BATCH_DOCUMENTS
        stream = _documents(source.documents or (), skip)
        while batch := list(_limited(islice(stream, size), size * passages * TOKEN_CHARACTERS if passages else None)):
            began = time.monotonic()
            yield first, batch, None
            seconds = time.monotonic() - began
            first += len(batch)
            if seconds < BATCH_SECONDS / 2:
                size = min(2 * size, MAX_BATCH_DOCUMENTS)
            elif seconds > 2 * BATCH_SECONDS:
                size = max(1, size // 2)
        return
    count, columns = source.embeddings.shape
    size = max(1, min(16384, BATCH_BYTES // (4 * columns)))
    documents = _documents(source.documents, None) if source.documents is not None else None
    if not count and next(documents or iter(()), None) is not None:
        raise InputError("there are documents, but no embeddings")
    for start in range(0, count, size):
        part = source.embeddings[start : start + size]
        embeddings = np.ascontiguousarray(part) if source.holds_codes else as_rows(part)
        if documents is not None:
            batch = list(islice(documents, len(embeddings)))
            if len(batch) < len(embeddings):
                raise InputError(f"there are {count} embeddings, but only {start + len(batch)} documents")
            if start + len(batch) == count and next(documents, None) is not None:
                raise InputError(f"there are only {count} embeddings, but more documents")
        else:
            numbers = range(start, start + len(embeddings))
            if source.ids is None:
                batch = _textless([str(next_row + i) for i in numbers])
            else:
                batch = _textless([_checked_id(identifier) for identifier in source.ids[start : start + size]])
        yield start, batch, embeddings


def _textless(ids: list[str]) -> list[Document]:
    """``Document(id, "")`` of each id.

    A frozen dataclass looks up each of its fields to set it, which of a million embeddings takes as long as a store
    takes to keep them: here each field is set for all documents, through its slot.
    """
    documents: list[Document] = list(map(object.__new__, repeat(Document, len(ids))))
    # Also its metadata, which nobody changes.
    shared = Document("", "")
    for field in fields(Document):
        values = ids if field.name == "id" else repeat(getattr(shared, field.name))
        deque(map(vars(Document)[field.name].__set__, documents, values), maxlen=0)
    return documents


def _limited(documents: Iterator[Document], limit: int | None) -> Iterator[Document]:
    """Documents up to a number of characters, which bounds the memory for a batch of long ones."""
    limit = min(limit or MAX_BATCH_CHARACTERS, MAX_BATCH_CHARACTERS)
    characters = 0
    while characters < limit and (document := next(documents, None)) is not None:
        characters += len(document.text)
        yield document


def _checked_id(identifier: object) -> str:
    """An id as it is stored: a string, made of a whole number where it is one."""
    if isinstance(identifier, str):
        try:
            check_string("id", identifier)
        except ValueError as error:
            raise InputError(f"{identifier!r}: {error}") from None
        if identifier:
            return identifier
        raise InputError("an id is empty")
    return str(whole_number("an id", identifier))


def _documents(
    documents: Iterable[Document | Mapping[str, Any]], skip: Callable[[InputError], None] | None
) -> Iterator[Document]:
    """Documents, made of JSON objects where they are not documents yet, and checked."""
    for number, item in enumerate(documents, 1):
        origin = item.origin if isinstance(item, Document) and item.origin else f"document {number}"
        try:
            if isinstance(item, Document):
                check_document(item)
                yield item
            elif isinstance(item, Mapping):
                yield document_from_record(item, str(number), origin)
            else:
                raise ValueError(f"it is {type(item).__name__}, but must be a Document or a mapping")
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            refused = DocumentError(f"{origin}: {error}")
            if skip is None:
                raise refused from None
            skip(refused)
