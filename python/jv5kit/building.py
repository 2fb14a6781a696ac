"""Documents into an index: batches are encoded and committed one by one."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

import numpy as np

from jv5kit.documents import metadata_json
from jv5kit.embeddings import as_rows, check_rows, truncate_embeddings
from jv5kit.encoder import one_warning
from jv5kit.errors import DocumentError, DuplicateError, InputError, Jv5kitError
from jv5kit.index_settings import check_fits
from jv5kit.passages import Splitter
from jv5kit.progress import ProgressBar
from jv5kit.rotation import Rotation
from jv5kit.sources import batches, source_of
from jv5kit.storage.vectors import vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from jv5kit.sources import Rows, Source
    from jv5kit.storage.state import Settings
    from jv5kit.stores import Store
    from jv5kit.types import Document, Precision, Rescore

ROTATION_SAMPLE = 8192
"""Embeddings that a rotation is fitted on."""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the documents given.

    Attributes:
        documents: committed to the index.
        identical: passed over because the index had them already, under the same id and with the same content.
        replaced: of the documents committed, those that took the place of another one of their id.
    """

    documents: int = 0
    identical: int = 0
    replaced: int = 0


class AddOptions(TypedDict, total=False):
    """The options of :meth:`jv5kit.Index.add`; :meth:`jv5kit.Index.build` explains them."""

    embeddings: ArrayLike | Rows | None
    ids: Sequence[str | int] | None
    skip: Callable[[InputError], None] | None
    on_commit: Callable[[int], None] | None
    show_progress_bar: bool | None


class BuildOptions(AddOptions, total=False):
    """The options of :meth:`jv5kit.Index.build`, which explains them."""

    dim: int | None
    precision: Precision
    rescore: Rescore | None
    rotate: bool
    lexical: bool
    hnsw: bool
    passages: int | None
    force: bool


class ChangedError(Exception):
    """Another writer has changed what a commit was chosen by; nothing of it is there: choose anew."""


class IndexWriter(Protocol):
    """The right to write an index, as batches use it, whatever keeps the index."""

    @property
    def name(self) -> str:
        """Of the index, as messages have it."""

    @property
    def settings(self) -> Settings:
        """Of the index."""

    @property
    def max_id_bytes(self) -> int | None:
        """Bytes of the longest id that it keeps; None where any will do."""

    @property
    def rotation(self) -> Rotation | None:
        """What embeddings go through before they are truncated."""

    @property
    def next_row(self) -> int:
        """The number that the next row has, if nobody else adds one before it."""

    @property
    def documents(self) -> int:
        """Documents in the index."""

    def added(self, row: int) -> bool:
        """Whether this writer has added a row of the index."""

    def find(self, ids: Sequence[str]) -> dict[str, tuple[list[int], Document]]:
        """The rows and the document of each id that is in the index, or none, where a commit would find out."""

    def same_rows(self, rows: NDArray[np.int64], tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether each of some documents of the index (rows, ascending) has the given tensors' row."""

    def set_rotation(self, rotation: Rotation) -> None:
        """Give a new index, before its first commit, its rotation."""

    def commit(
        self,
        documents: Sequence[Document],
        tensors: Mapping[str, NDArray[Any]],
        delete: Sequence[int] = (),
    ) -> None:
        """Add documents and their rows, and delete others, all or nothing.

        Raises:
            ChangedError: an id is taken, or a row to delete is gone, since they were looked up.
        """

    def close(self) -> None:
        """Let others write. A new index without documents comes into being here."""

    def abandon(self) -> None:
        """Let others write, and leave things as the last commit left them."""


W = TypeVar("W", bound=IndexWriter)


@contextmanager
def whole(writer: W) -> Iterator[W]:
    """The writer of a new index, which is there when its documents were added."""
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise
    writer.close()


def source_for(
    index: Store, settings: Settings, documents: Iterable[Document | Mapping[str, Any]] | None, options: AddOptions
) -> Source:
    """What is to be added to an index of some settings.

    Raises:
        InputError: the index has a model and there is none, or does not take such embeddings.
    """
    embeddings = options.get("embeddings")
    if embeddings is None and settings.model is None:
        raise InputError(f"{index.name} was built from given embeddings: what is added needs embeddings too")
    source = source_of(documents, index.encoder if embeddings is None else None, embeddings, options.get("ids"))
    check_fits(source, settings)
    return source


def extend(writer: IndexWriter, source: Source, settings: Settings, options: AddOptions, *, upsert: bool) -> Added:
    """Add documents to an index, as :func:`add` does, unless its settings are no longer those that were read.

    Raises:
        Jv5kitError: they are not.
    """
    if writer.settings != settings:
        raise Jv5kitError(f"{writer.name} was replaced by another index meanwhile; nothing was added, try again")
    return add_as_told(writer, source, options, upsert=upsert)


def add_as_told(
    writer: IndexWriter, source: Source, options: AddOptions, *, rotate: bool = False, upsert: bool = False
) -> Added:
    """Add documents to an index, as :func:`add` does, with its options out of those of a caller."""
    return add(
        writer,
        source,
        rotate=rotate,
        upsert=upsert,
        skip=options.get("skip"),
        on_commit=options.get("on_commit"),
        show_progress_bar=options.get("show_progress_bar"),
    )


def add(
    writer: IndexWriter,
    source: Source,
    *,
    rotate: bool = False,
    upsert: bool = False,
    skip: Callable[[InputError], None] | None = None,
    on_commit: Callable[[int], None] | None = None,
    show_progress_bar: bool | None = None,
) -> Added:
    """Add documents to an index, batch by batch; each batch is on disk before the next is begun.

    Args:
        writer: of the index.
        source: the documents.
        rotate: fit a rotation on the first of them; for a new index.
        upsert: put a document in the place of another one of its id, instead of refusing it.
        skip: called with the error of each document that cannot be used, which is then passed over; None raises it.
        on_commit: called with the number of documents in the index after each commit.
        show_progress_bar: None shows it on a terminal.

    Raises:
        DocumentError: a document cannot be used.
        DuplicateError: an id belongs to another document.
        InputError: an embedding cannot be used, or there are not as many as documents.
    """
    run = _Run(writer, source, rotate=rotate, upsert=upsert, skip=skip)
    if rotate and source.embeddings is not None and source.embeddings.shape[0]:
        run.fit_rotation(sample_of(source.embeddings))
    # Embeddings that are encoded are a sample themselves, as soon as there are enough of them.
    first_size = ROTATION_SAMPLE if rotate else None
    with one_warning(), ProgressBar("Indexing", source.total, "documents", show=show_progress_bar) as progress:
        for first, documents, given in batches(source, writer.next_row, skip, first_size, run.passages):
            if given is not None:
                run.check(given, first)
            if run.add(documents, given) and on_commit is not None:
                on_commit(writer.documents)
            progress(len(documents))
    if rotate and run.rotation is None:
        raise InputError("there is no document, and thus no embedding, to fit a rotation on")
    return Added(run.documents, run.identical, run.replaced)


class _Run:
    """One run that adds documents: what became of them so far, and how embeddings become tensors."""

    def __init__(
        self,
        writer: IndexWriter,
        source: Source,
        *,
        rotate: bool,
        upsert: bool,
        skip: Callable[[InputError], None] | None,
    ) -> None:
        self.documents = self.identical = self.replaced = 0
        self.rotation = writer.rotation
        self.passages = writer.settings.passages
        self._splitter: Splitter | None = None
        if self.passages is not None and source.encoder is not None:
            self._splitter = Splitter(source.encoder, writer.settings.document_prompt, self.passages)
        self._writer = writer
        self._source = source
        self._rotate = rotate
        self._upsert = upsert
        self._skip = skip

    def add(self, documents: Sequence[Document], given: NDArray[Any] | None) -> bool:
        """Add a batch, which is on disk when this returns; whether there was anything new in it."""
        while True:
            new, replaced = self.choose(documents, given)
            if not new:
                return False
            if len(new) < len(documents):
                # The others are settled, even if another writer comes first and these have to be looked at again.
                documents = [documents[i] for i in new]
                given = None if given is None else given[new]
            rows, values, passages = self.encoded(documents) if given is None else (documents, given, {})
            if self._rotate and self.rotation is None:
                self.fit_rotation(values)
            try:
                self._writer.commit(rows, self.tensors(values) | passages, [row for old in replaced for row in old])
            except ChangedError:
                continue
            self.documents += len(new)
            self.replaced += len(replaced)
            return True

    def fit_rotation(self, sample: NDArray[np.float32]) -> None:
        """Fit the rotation of a new index."""
        if self._source.holds_codes:
            raise InputError("codes cannot be rotated: rotate the embeddings that they are made of")
        self.rotation = Rotation.fit(sample, [self._writer.settings.dim])
        self._writer.set_rotation(self.rotation)

    def check(self, embeddings: NDArray[Any], first_row: int = 0) -> None:
        """Refuse embeddings that have no direction; ``first_row`` numbers the first one for the message."""
        settings = self._writer.settings
        if not self._source.holds_codes:
            # A rotation spreads each value over all dimensions.
            check_rows(embeddings, settings.dim if self.rotation is None else settings.source_dim, first_row)

    def encoded(
        self, documents: Sequence[Document]
    ) -> tuple[Sequence[Document], NDArray[np.float32], dict[str, NDArray[Any]]]:
        """The rows of documents, their embeddings, and which passages they are, where the index has passages."""
        if self._source.encoder is None:
            raise InputError("there are neither embeddings nor a model to make them")
        split = None if self._splitter is None else self._splitter.split(documents)
        embeddings = self._source.encoder.encode_document(
            [document.content for document in documents] if split is None else split.contents,
            prompt=self._writer.settings.document_prompt,
            normalize_embeddings=False,
            show_progress_bar=False,
        )
        self.check(embeddings)
        return (documents, embeddings, {}) if split is None else (split.documents, embeddings, split.tensors)

    def tensors(self, embeddings: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What the index stores of embeddings."""
        if self._source.holds_codes:
            return {"codes": embeddings}
        settings = self._writer.settings
        if self.rotation is not None:
            embeddings = self.rotation(embeddings)
        return vectors(settings, truncate_embeddings(embeddings, settings.dim))

    def choose(self, documents: Sequence[Document], given: NDArray[Any] | None) -> tuple[list[int], list[list[int]]]:
        """Positions of the documents to add, and the rows of each of those whose place they take.

        A document that the index has already, with the same content and embedding, is passed over. Another document of
        its id is an error, and so is a second document of an id in one run; but where documents are put in the place of
        others, the last one stays.
        """
        ids, longest = [document.id for document in documents], self._writer.max_id_bytes
        known = self._writer.find(ids)
        # As a rule all of them are new, and the rest of this takes longer than a store takes to keep them.
        if not known and len(set(ids)) == len(ids) and (longest is None or 4 * max(map(len, ids)) <= longest):
            return list(range(len(ids))), []
        same = {
            i for i, document in enumerate(documents) if document.id in known and _same(document, known[document.id][1])
        }
        if given is not None:
            same -= self._changed(given, {i: known[documents[i].id][0][0] for i in same})
        new: dict[str, int] = {}
        for position, document in enumerate(documents):
            if longest is not None and len(document.id.encode()) > longest:
                self._refuse(DocumentError(f"{_where(document)}: 'id' is longer than {longest:,} bytes, the most here"))
                continue
            row = known[document.id][0][0] if document.id in known else -1
            if self._upsert:
                new.pop(document.id, None)
                if position in same:
                    self.identical += 1
                else:
                    new[document.id] = position
            elif document.id in new or (row >= 0 and self._writer.added(row)):
                self._refuse_taken(document, "by an earlier document")
            elif row >= 0 and position not in same:
                self._refuse_taken(document, "by other content in the index")
            elif row >= 0:
                self.identical += 1
            else:
                new[document.id] = position
        return sorted(new.values()), [known[identifier][0] for identifier in new if identifier in known]

    def _changed(self, given: NDArray[Any], rows: dict[int, int]) -> set[int]:
        """Positions of the embeddings that are not those of their rows in the index."""
        if not rows:
            return set()
        positions = sorted(rows, key=lambda position: rows[position])
        stored = np.array([rows[position] for position in positions], np.int64)
        same = self._writer.same_rows(stored, self.tensors(given[positions]))
        return {position for position, equal in zip(positions, same.tolist(), strict=True) if not equal}

    def _refuse_taken(self, document: Document, by: str) -> None:
        self._refuse(DuplicateError(f"{_where(document)}: the id {document.id!r} is taken {by}"))

    def _refuse(self, error: InputError) -> None:
        if self._skip is None:
            raise error
        self._skip(error)


def sample_of(embeddings: Rows) -> NDArray[np.float32]:
    """Embeddings from all over the source: up to :data:`ROTATION_SAMPLE`, in slices of neighbours."""
    count = embeddings.shape[0]
    slices = min(64, -(-count // 128))
    each = min(ROTATION_SAMPLE, count) // max(1, slices)
    starts = np.linspace(0, count - each, slices).astype(int).tolist()
    return np.concatenate([as_rows(embeddings[start : start + each]) for start in starts])


def _where(document: Document) -> str:
    return document.origin or f"document {document.id!r:.80}"


def _same(document: Document, stored: Document) -> bool:
    """Whether a document is the stored one, its metadata compared as JSON keeps it."""
    metadata = json.loads(metadata_json(document.metadata))
    return replace(document, title=document.title or None, metadata=metadata) == stored
