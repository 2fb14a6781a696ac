"""Documents into an index: batches are encoded and committed one by one."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from jv5kit import graph
from jv5kit.documents import metadata_json
from jv5kit.embeddings import as_rows, check_rows, truncate_embeddings, whole_number
from jv5kit.encoder import one_warning
from jv5kit.errors import DuplicateError, InputError, Jv5kitError
from jv5kit.passages import LEAST_TOKENS, Splitter
from jv5kit.progress import ProgressBar
from jv5kit.rotation import Rotation
from jv5kit.sources import batches
from jv5kit.storage import graphs
from jv5kit.storage.rotations import read_rotation
from jv5kit.storage.state import Settings
from jv5kit.storage.vectors import vectors
from jv5kit.storage.writer import Writer
from jv5kit.types import PRECISIONS, RESCORES, Document, Precision, Rescore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from jv5kit.sources import Rows, Source
    from jv5kit.storage.connection import Journal

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


def check_fits(source: Source, settings: Settings) -> None:
    """Refuse embeddings that an index does not take.

    Raises:
        InputError: they have other dimensions, or are codes where the index stores more, or the index has passages.
    """
    if settings.passages is not None and source.embeddings is not None:
        raise InputError(
            f"this index splits documents into passages of {settings.passages} tokens, which needs their texts and its "
            "model: add documents without embeddings"
        )
    if source.dim != settings.source_dim:
        raise InputError(f"the embeddings have {source.dim} dimensions; those of this index had {settings.source_dim}")
    stores_codes = settings.precision == "ubinary" and settings.rescore != "int8"
    if source.holds_codes and (not stores_codes or settings.rotation is not None or settings.dim != source.dim):
        raise InputError("the embeddings are uint8 codes; this index takes real numbers, of which it stores more")


def check_settings(
    precision: Precision = "ubinary",
    rescore: Rescore | None = None,
    *,
    hnsw: bool = False,
    passages: int | None = None,
) -> None:
    """Refuse settings that are not known or do not go together, before anything else is done.

    Raises:
        InputError: such a setting.
        MissingExtraError: a setting needs a library that is not installed.
    """
    for name, value, known in (("precision", precision, PRECISIONS), ("rescore", rescore or "none", RESCORES)):
        if value not in known:
            raise InputError(f"{name}={value!r} is not known; choose one of {', '.join(known)}")
    if precision != "ubinary" and rescore not in (None, "none"):
        raise InputError(
            f"rescore={rescore!r} is for precision 'ubinary'; with {precision!r} there is nothing to rescore"
        )
    if hnsw and precision != "float32":
        raise InputError(f"hnsw goes with precision 'float32', whose rows its graph holds, not with {precision!r}")
    if passages is not None and whole_number("passages", passages) < LEAST_TOKENS:
        raise InputError(f"passages={passages}: a passage has at least {LEAST_TOKENS} tokens")
    if hnsw:
        graphs.hnswlib()


def settings_of(
    source: Source,
    dim: int | None = None,
    precision: Precision = "ubinary",
    rescore: Rescore | None = None,
    *,
    lexical: bool = False,
    hnsw: bool = False,
    passages: int | None = None,
) -> Settings:
    """The settings of a new index.

    Raises:
        InputError: an argument is not known, or does not fit the others or the embeddings.
    """
    check_settings(precision, rescore, hnsw=hnsw, passages=passages)
    if passages is not None and source.encoder is None:
        raise InputError(
            f"passages={passages} takes a model, which splits texts and encodes them; beside embeddings, give each "
            "passage as a document of its own"
        )
    passages = None if passages is None else whole_number("passages", passages)
    dim = source.dim if dim is None else whole_number("dim", dim)
    if not 1 <= dim <= source.dim:
        raise InputError(f"dim={dim} is outside 1..{source.dim}, the dimensions of the embeddings")
    if precision == "ubinary" and dim % 8:
        raise InputError(f"dim={dim} is not a multiple of 8, which one bit a dimension needs")
    if source.holds_codes:
        if precision != "ubinary" or dim != source.dim:
            raise InputError(f"codes of {source.dim} bits make a ubinary index of that dimension, nothing else")
        if rescore == "int8":
            raise InputError("codes have no int8 rows to rescore with; give rescore='codes' or 'none'")
    if rescore is None:
        rescore = "int8" if precision == "ubinary" and not source.holds_codes else "none"
    settings = Settings(dim, precision, source.dim, rescore=rescore, lexical=lexical, hnsw=hnsw, passages=passages)
    if source.encoder is None:
        return settings
    return replace(
        settings,
        model=source.encoder.checkpoint.name,
        fingerprint=source.encoder.checkpoint.fingerprint(),
        query_prompt=source.encoder.query_prompt(),
        document_prompt=source.encoder.document_prompt(),
    )


@contextmanager
def new(path: Path, settings: Settings, *, force: bool, journal: Journal = "wal") -> Iterator[Writer]:
    """The writer of a new index, which is there when its documents were added."""
    writer = Writer.create(path, settings, force=force, journal=journal)
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise
    writer.close()


def extend(writer: Writer, source: Source, settings: Settings, options: AddOptions, *, upsert: bool) -> Added:
    """Add documents to an index, as :func:`add` does, unless its settings are no longer those that were read.

    Raises:
        Jv5kitError: they are not.
    """
    if writer.state.settings != settings:
        raise Jv5kitError(f"{writer.folder} was replaced by another index meanwhile; nothing was added, try again")
    return add(
        writer,
        source,
        upsert=upsert,
        skip=options.get("skip"),
        on_commit=options.get("on_commit"),
        show_progress_bar=options.get("show_progress_bar"),
    )


def add(
    writer: Writer,
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
    run = _Run(writer, source, upsert=upsert, skip=skip)
    if rotate and source.embeddings is not None and source.embeddings.shape[0]:
        run.fit_rotation(_sample(source.embeddings))
    # Embeddings that are encoded are a sample themselves, as soon as there are enough of them.
    first_size = ROTATION_SAMPLE if rotate else None
    with one_warning(), ProgressBar("Indexing", source.total, "documents", show=show_progress_bar) as progress:
        for first, documents, given in batches(source, run.first_row, skip, first_size, run.passages):
            if given is not None:
                run.check(given, first)
            new, replaced = run.choose(documents, given)
            if new:
                chosen = [documents[i] for i in new]
                rows, values, passages = run.encoded(chosen) if given is None else (chosen, given[new], {})
                if rotate and run.rotation is None:
                    run.fit_rotation(values)
                records = [(row, metadata_json(row.metadata)) for row in rows]
                writer.commit(records, run.tensors(values) | passages, [row for old in replaced for row in old])
                run.documents += len(new)
                run.replaced += len(replaced)
                if on_commit is not None:
                    on_commit(writer.documents)
            progress(len(documents))
    if rotate and run.rotation is None:
        raise InputError("there is no document, and thus no embedding, to fit a rotation on")
    graph.grow(writer)
    return Added(run.documents, run.identical, run.replaced)


class _Run:
    """One run that adds documents: what became of them so far, and how embeddings become tensors."""

    def __init__(
        self, writer: Writer, source: Source, *, upsert: bool, skip: Callable[[InputError], None] | None
    ) -> None:
        self.documents = self.identical = self.replaced = 0
        self.first_row = writer.state.next_row
        self.rotation = read_rotation(writer.folder, writer.state.settings)
        self.passages = writer.state.settings.passages
        self._splitter: Splitter | None = None
        if self.passages is not None and source.encoder is not None:
            self._splitter = Splitter(source.encoder, writer.state.settings.document_prompt, self.passages)
        self._writer = writer
        self._source = source
        self._upsert = upsert
        self._skip = skip

    def fit_rotation(self, sample: NDArray[np.float32]) -> None:
        """Fit the rotation of a new index."""
        if self._source.holds_codes:
            raise InputError("codes cannot be rotated: rotate the embeddings that they are made of")
        self.rotation = Rotation.fit(sample, [self._writer.state.settings.dim])
        self._writer.set_rotation(self.rotation)

    def check(self, embeddings: NDArray[Any], first_row: int = 0) -> None:
        """Refuse embeddings that have no direction; ``first_row`` numbers the first one for the message."""
        settings = self._writer.state.settings
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
            prompt=self._writer.state.settings.document_prompt,
            normalize_embeddings=False,
            show_progress_bar=False,
        )
        self.check(embeddings)
        return (documents, embeddings, {}) if split is None else (split.documents, embeddings, split.tensors)

    def tensors(self, embeddings: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What the index stores of embeddings."""
        if self._source.holds_codes:
            return {"codes": embeddings}
        settings = self._writer.state.settings
        if self.rotation is not None:
            embeddings = self.rotation(embeddings)
        return vectors(settings, truncate_embeddings(embeddings, settings.dim))

    def choose(self, documents: Sequence[Document], given: NDArray[Any] | None) -> tuple[list[int], list[list[int]]]:
        """Positions of the documents to add, and the rows of each of those whose place they take.

        A document that the index has already, with the same content and embedding, is passed over. Another document of
        its id is an error, and so is a second document of an id in one run; but where documents are put in the place of
        others, the last one stays.
        """
        known = self._writer.find([document.id for document in documents])
        same = {
            i for i, document in enumerate(documents) if document.id in known and _same(document, known[document.id][1])
        }
        if given is not None:
            same -= self._changed(given, {i: known[documents[i].id][0][0] for i in same})
        new: dict[str, int] = {}
        for position, document in enumerate(documents):
            row = known[document.id][0][0] if document.id in known else -1
            if self._upsert:
                new.pop(document.id, None)
                if position in same:
                    self.identical += 1
                else:
                    new[document.id] = position
            elif document.id in new or row >= self.first_row:
                self._refuse(document, "by an earlier document")
            elif row >= 0 and position not in same:
                self._refuse(document, "by other content in the index")
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

    def _refuse(self, document: Document, by: str) -> None:
        where = document.origin or f"document {document.id!r}"
        error = DuplicateError(f"{where}: the id {document.id!r} is taken {by}")
        if self._skip is None:
            raise error
        self._skip(error)


def _sample(embeddings: Rows) -> NDArray[np.float32]:
    """Embeddings from all over the source: up to :data:`ROTATION_SAMPLE`, in slices of neighbours."""
    count = embeddings.shape[0]
    slices = min(64, -(-count // 128))
    each = min(ROTATION_SAMPLE, count) // max(1, slices)
    starts = np.linspace(0, count - each, slices).astype(int).tolist()
    return np.concatenate([as_rows(embeddings[start : start + each]) for start in starts])


def _same(document: Document, stored: Document) -> bool:
    """Whether a document is the stored one, its metadata compared as JSON keeps it."""
    metadata = json.loads(metadata_json(document.metadata))
    return replace(document, title=document.title or None, metadata=metadata) == stored
