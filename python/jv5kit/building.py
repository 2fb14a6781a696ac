"""Documents into an index: batches are checked, encoded and committed one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from jv5kit.documents import check_document, check_string, document_from_record, metadata_json
from jv5kit.embeddings import as_rows, check_rows, truncate_embeddings, whole_number
from jv5kit.encoder import one_warning, shared_encoder
from jv5kit.errors import DocumentError, DuplicateError, InputError, Jv5kitError
from jv5kit.progress import ProgressBar
from jv5kit.scan import tensors
from jv5kit.storage.catalog import Settings
from jv5kit.types import PRECISIONS, Document, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from jv5kit.encoder import Encoder
    from jv5kit.storage.writer import Writer

BATCH_DOCUMENTS = 512
"""Documents of the first batch that is encoded and committed together; later ones go by the time that it took."""

BATCH_SECONDS = 4.0
"""How long a batch should take, whatever the model and the machine: what an interruption may cost."""

MAX_BATCH_DOCUMENTS = 16_384
MAX_BATCH_CHARACTERS = 32 << 20

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
class Added:
    """What became of the documents given.

    Attributes:
        documents: committed to the index.
        identical: passed over because the index had them already, under the same id and with the same content.
    """

    documents: int = 0
    identical: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Documents to add, and where their embeddings come from.

    Attributes:
        documents: documents or JSON objects; None for embeddings without documents.
        encoder: encodes them, if there are no embeddings.
        embeddings: one row for each document, in order.
        ids: of embeddings without documents, a range among them; None numbers them from those that are there on.
    """

    documents: Iterable[Document | Mapping[str, Any]] | None = None
    encoder: Encoder | None = None
    embeddings: Rows | None = None
    ids: Sequence[str | int] | None = None

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
    rows: Rows = cast("Rows", embeddings) if hasattr(embeddings, "shape") else np.asarray(embeddings)
    if len(rows.shape) != 2 or rows.shape[1] == 0:
        raise InputError(f"the embeddings have shape {tuple(rows.shape)}; it must be (n, dim)")
    if getattr(rows, "dtype", None) == np.uint8:
        raise InputError("the embeddings are uint8, which looks like codes; an index is built from real numbers")
    if documents is not None and ids is not None:
        raise InputError("ids go with embeddings alone; documents have their own")
    if ids is not None and len(ids) != rows.shape[0]:
        raise InputError(f"there are {len(ids)} ids for {rows.shape[0]} embeddings")
    return Source(documents, None, rows, ids)


def settings_of(given: Source, dim: int | None, precision: Precision) -> Settings:
    """The settings of a new index.

    Raises:
        InputError: the precision is not known, or the dimension does not fit it or the embeddings.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not known; choose one of {', '.join(PRECISIONS)}")
    if given.embeddings is not None:
        source_dim = given.embeddings.shape[1]
    elif given.encoder is not None:
        source_dim = given.encoder.dim
    else:
        raise Jv5kitError("there is neither an encoder nor embeddings")
    dim = source_dim if dim is None else whole_number("dim", dim)
    if not 1 <= dim <= source_dim:
        raise InputError(f"dim={dim} is outside 1..{source_dim}, the dimensions of the embeddings")
    if precision == "ubinary" and dim % 8:
        raise InputError(f"dim={dim} is not a multiple of 8, which one bit a dimension needs")
    settings = Settings(dim, precision, source_dim)
    if given.encoder is None:
        return settings
    checkpoint = given.encoder.checkpoint
    return Settings(
        dim,
        precision,
        source_dim,
        model=checkpoint.name,
        fingerprint=checkpoint.fingerprint(),
        query_prompt=given.encoder.query_prompt(),
        document_prompt=given.encoder.document_prompt(),
    )


def add(
    writer: Writer,
    source: Source,
    *,
    skip: Callable[[InputError], None] | None = None,
    on_commit: Callable[[int], None] | None = None,
    show_progress_bar: bool | None = None,
) -> Added:
    """Add documents to an index, batch by batch; each batch is on disk before the next is begun.

    Args:
        writer: of the index.
        source: the documents.
        skip: called with the error of each document that cannot be used, which is then passed over; None raises it.
        on_commit: called with the number of documents in the index after each commit.
        show_progress_bar: None shows it on a terminal.

    Raises:
        DocumentError: a document cannot be used.
        DuplicateError: an id belongs to another document.
        InputError: an embedding cannot be used, or there are not as many as documents.
    """
    settings = writer.state.settings
    rows_before = writer.state.rows
    identical = 0
    with one_warning(), ProgressBar("Indexing", source.total, "documents", show=show_progress_bar) as progress:
        for first, documents, embeddings in _batches(source, rows_before, skip):
            new = _new_documents(writer, documents, embeddings, rows_before, skip)
            if embeddings is None and new and source.encoder is not None:
                texts = [documents[i].content for i in new]
                vectors = source.encoder.encode_document(
                    texts, prompt=settings.document_prompt, normalize_embeddings=False, show_progress_bar=False
                )
                check_rows(vectors, settings.dim)
            elif embeddings is not None:
                vectors = embeddings
                check_rows(vectors, settings.dim, first)
                if len(new) < len(documents):
                    vectors = vectors[new]
            identical += len(documents) - len(new)
            if new:
                vectors = truncate_embeddings(vectors, settings.dim)
                records = [(documents[i], metadata_json(documents[i].metadata)) for i in new]
                writer.commit(records, tensors(settings, vectors))
                if on_commit is not None:
                    on_commit(writer.state.rows)
            progress(len(documents))
    return Added(writer.state.rows - rows_before, identical)


Batch = tuple[int, list[Document], "NDArray[np.float32] | None"]


def _batches(source: Source, rows_before: int, skip: Callable[[InputError], None] | None) -> Iterator[Batch]:
    """Number of the first row, documents and embeddings of each batch."""
    if source.embeddings is None:
        first, size = 0, BATCH_DOCUMENTS
        stream = _documents(source.documents or (), skip)
        while batch := list(_limited(islice(stream, size))):
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
    for start in range(0, count, size):
        embeddings = as_rows(source.embeddings[start : start + size])
        if documents is not None:
            batch = list(islice(documents, len(embeddings)))
            if len(batch) < len(embeddings):
                raise InputError(f"there are {count} embeddings, but only {start + len(batch)} documents")
            if start + len(batch) == count and next(documents, None) is not None:
                raise InputError(f"there are only {count} embeddings, but more documents")
        else:
            numbers = range(start, start + len(embeddings))
            ids = (
                source.ids[start : start + size] if source.ids is not None else [str(rows_before + i) for i in numbers]
            )
            batch = [Document(_checked_id(identifier), "") for identifier in ids]
        yield start, batch, embeddings


def _limited(documents: Iterator[Document]) -> Iterator[Document]:
    """Documents up to a number of characters, which bounds the memory for a batch of long ones."""
    characters = 0
    while characters < MAX_BATCH_CHARACTERS and (document := next(documents, None)) is not None:
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


def _new_documents(
    writer: Writer,
    documents: Sequence[Document],
    embeddings: NDArray[np.float32] | None,
    rows_before: int,
    skip: Callable[[InputError], None] | None,
) -> list[int]:
    """Positions of the documents that the index does not have yet.

    A document that the index had before, with the same content and embedding, is passed over; another document of the
    same id is an error, and so is any second document of an id in one run.
    """
    known = writer.find([document.id for document in documents])
    old = {i for i, document in enumerate(documents) if known.get(document.id, (rows_before,))[0] < rows_before}
    changed = {i for i in old if not _same(documents[i], known[documents[i].id][1])}
    if embeddings is not None:
        changed |= _changed_embeddings(writer, embeddings, {i: known[documents[i].id][0] for i in old - changed})
    seen: set[str] = set()
    new = []
    for position, document in enumerate(documents):
        if document.id in seen or (document.id in known and position not in old):
            _refuse_duplicate(document, "by an earlier document", skip)
        elif position in changed:
            _refuse_duplicate(document, "by other content in the index", skip)
        elif position not in old:
            new.append(position)
        seen.add(document.id)
    return new


def _changed_embeddings(writer: Writer, embeddings: NDArray[np.float32], rows: dict[int, int]) -> set[int]:
    """Positions of the embeddings that are not those of their rows in the index."""
    if not rows:
        return set()
    settings = writer.state.settings
    positions = sorted(rows, key=lambda position: rows[position])
    stored = np.array([rows[position] for position in positions], np.int64)
    given = tensors(settings, truncate_embeddings(embeddings[positions], settings.dim))
    same = writer.same_rows(stored, given)
    return {position for position, equal in zip(positions, same.tolist(), strict=True) if not equal}


def _refuse_duplicate(document: Document, by: str, skip: Callable[[InputError], None] | None) -> None:
    where = document.origin or f"document {document.id!r}"
    error = DuplicateError(f"{where}: the id {document.id!r} is taken {by}")
    if skip is None:
        raise error
    skip(error)


def _same(document: Document, stored: Document) -> bool:
    """Whether a document is the stored one, its metadata compared as JSON keeps it."""
    metadata = json.loads(metadata_json(document.metadata))
    return replace(document, metadata=metadata) == stored
