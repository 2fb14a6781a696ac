"""The index: documents and their embeddings on disk, built in batches and searched exactly."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast, overload

import numpy as np

from jv5kit import building
from jv5kit.embeddings import as_rows, check_rows, truncate_embeddings
from jv5kit.encoder import Encoder, shared_encoder
from jv5kit.errors import IndexDamagedError, InputError, Jv5kitError, ModelNotFoundError
from jv5kit.scan import scan, tensor_specs
from jv5kit.storage.catalog import Catalog, SegmentEntry, Settings, State
from jv5kit.storage.segments import Segment
from jv5kit.storage.writer import SEGMENTS, Writer, check_free
from jv5kit.types import PRECISIONS, Document, Hit, Precision

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from jv5kit.building import Added, Rows


class Index:
    """An index open for reading; :meth:`add` writes.

    It keeps the state that it was opened with until :meth:`refresh`. One index may be searched from several threads.
    """

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._snapshot = _open_snapshot(path, catalog, {})

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open an index.

        Raises:
            IndexNotFoundError: the path holds no index.
            IndexFormatError: its format is newer than this version reads.
            IndexDamagedError: its catalogue or a segment is not what was written.
        """
        folder = Path(path)
        return cls(folder, Catalog(folder))

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        documents: Iterable[Document | Mapping[str, Any]] | None = None,
        encoder: Encoder | None = None,
        *,
        embeddings: ArrayLike | Rows | None = None,
        ids: Sequence[str] | None = None,
        dim: int | None = None,
        precision: Precision = "ubinary",
        force: bool = False,
        skip: Callable[[InputError], None] | None = None,
        on_commit: Callable[[int], None] | None = None,
        show_progress_bar: bool | None = None,
    ) -> Self:
        """Build an index from documents, from embeddings, or from both.

        Args:
            path: folder of the index, by convention ``NAME.jv5``.
            documents: documents or JSON objects, in any number.
            encoder: encodes the documents, by default the default model; not used where there are embeddings.
            embeddings: one row for each document: ``(n, source dim)``, read slice by slice.
            ids: of the embeddings, where there are no documents; by default the row numbers.
            dim: dimensions to keep; by default all.
            precision: ``"ubinary"`` (one bit a dimension, and int8 rows for rescoring) or ``"float32"``.
            force: replace an index at the path.
            skip: called with the error of each document that cannot be used, which is passed over; None raises it.
            on_commit: called with the number of documents in the index after each commit.
            show_progress_bar: None shows it on a terminal.

        Raises:
            InputError: an argument, a document or an embedding is wrong; what was committed before it stays.
            IndexExistsError: the path is taken.
            IndexLockedError: another process is writing there.
        """
        # Before the model is loaded: that takes seconds.
        check_free(Path(path), force=force)
        source = _source(documents, encoder, embeddings, ids)
        settings = _settings(source, dim, precision)
        writer = Writer.create(Path(path), settings, tensor_specs(settings), force=force)
        try:
            building.add(writer, source, skip=skip, on_commit=on_commit, show_progress_bar=show_progress_bar)
        except BaseException:
            writer.abandon()
            raise
        writer.close()
        return cls.open(path)

    def add(
        self,
        documents: Iterable[Document | Mapping[str, Any]] | None = None,
        *,
        embeddings: ArrayLike | Rows | None = None,
        ids: Sequence[str] | None = None,
        skip: Callable[[InputError], None] | None = None,
        on_commit: Callable[[int], None] | None = None,
        show_progress_bar: bool | None = None,
    ) -> Added:
        """Add documents, encoded as those that are there; the arguments are those of :meth:`build`.

        Documents that the index has already, under the same id and with the same content, are passed over and counted.

        Raises:
            DuplicateError: an id belongs to another document.
            InputError: a document or an embedding is wrong; what was committed before it stays.
            IndexLockedError: another process is writing the index.
        """
        if embeddings is None and self.settings.model is None:
            raise InputError(f"{self.path} was built from given embeddings: what is added needs embeddings too")
        encoder = self.encoder if embeddings is None else None
        source = _source(documents, encoder, embeddings, ids)
        settings = self.settings
        if source.embeddings is not None and source.embeddings.shape[1] != settings.source_dim:
            columns = source.embeddings.shape[1]
            raise InputError(f"the embeddings have {columns} dimensions; those of this index had {settings.source_dim}")
        writer = Writer.open(self.path, tensor_specs)
        try:
            return building.add(writer, source, skip=skip, on_commit=on_commit, show_progress_bar=show_progress_bar)
        finally:
            writer.abandon()
            self.refresh()

    @property
    def settings(self) -> Settings:
        """What built the index."""
        return self._snapshot.state.settings

    @property
    def segment_count(self) -> int:
        """Number of segments."""
        return len(self._snapshot.segments)

    @property
    def encoder(self) -> Encoder:
        """The model that built the index, loaded when it is first used.

        Raises:
            InputError: the index was built from given embeddings.
            ModelNotFoundError: the model is not to be had, or is another one than that of the index.
        """
        if self._encoder is None:
            self.use_encoder(None)
        if self._encoder is None:
            raise InputError(f"{self.path} was built from given embeddings, not texts: search it by embeddings")
        return self._encoder

    def use_encoder(self, model: Encoder | str | os.PathLike[str] | None) -> None:
        """Say where the model of the index is now: an encoder, a folder or a hub id; None looks where it was.

        Raises:
            ModelNotFoundError: the model is not to be had, or is another one than that of the index.
        """
        settings = self.settings
        if settings.model is None:
            return
        try:
            encoder = model if isinstance(model, Encoder) else shared_encoder(model or settings.model)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(
                f"{self.path} was built with model {settings.model!r}: {error}. "
                "Say where it is: --model FOLDER, or Index.use_encoder(FOLDER)"
            ) from error
        fingerprint = encoder.checkpoint.fingerprint()
        if fingerprint != settings.fingerprint:
            raise ModelNotFoundError(
                f"{self.path} was built with another model ({settings.model!r}, fingerprint {settings.fingerprint}) "
                f"than {encoder.checkpoint.name!r} (fingerprint {fingerprint}); their embeddings do not compare"
            )
        self._encoder = encoder

    # A str is a Sequence[str] as well; the first signature that fits counts. An array's type does not say whether it is
    # one embedding or several.
    @overload
    def search(  # type: ignore[overload-overlap]
        self, queries: str, top_k: int = ..., *, oversample: int = ...
    ) -> list[Hit]: ...

    @overload
    def search(self, queries: Sequence[str], top_k: int = ..., *, oversample: int = ...) -> list[list[Hit]]: ...

    @overload
    def search(self, queries: ArrayLike, top_k: int = ..., *, oversample: int = ...) -> Any: ...

    def search(self, queries: Any, top_k: int = 10, *, oversample: int = 4) -> list[Hit] | list[list[Hit]]:
        """Find the documents nearest to each query.

        Args:
            queries: a text or an embedding ``(dim,)``, or a sequence of texts or embeddings ``(q, dim)``; embeddings
                have the dimensions of the index, or those before its truncation.
            top_k: hits for each query, at least 1.
            oversample: where codes are searched first, candidates for each hit wanted, which int8 rows then rescore.

        Returns:
            Hits, best first, ties in the order of the documents; for several queries a list for each.

        Raises:
            InputError: an argument is wrong.
            IndexDamagedError: the index is not what was written.
        """
        for name, value in (("top_k", top_k), ("oversample", oversample)):
            if value < 1:
                raise InputError(f"{name}={value}; it must be at least 1")
        snapshot = self._snapshot
        embeddings, single = self._query_embeddings(queries)
        scores, rows = scan(snapshot.segments, snapshot.state.settings, embeddings, top_k, oversample)
        documents = snapshot.catalog.documents(np.unique(rows).tolist())
        results = [
            [_hit(documents[row], score) for score, row in zip(*pair, strict=True)]
            for pair in zip(scores.tolist(), rows.tolist(), strict=True)
        ]
        return results[0] if single else results

    def refresh(self) -> bool:
        """Take up the newest state, if there is a new one; returns whether there was."""
        with self._lock:
            catalog, known = self._snapshot.catalog, self._snapshot.known()
            version = catalog.version()
            if version == self._snapshot.version:
                return False
            if version[1] != self._snapshot.version[1]:
                # The index was replaced by another one. A search under way in another thread still holds the old one.
                catalog, known = Catalog(self.path), {}
                self._encoder = None
            self._snapshot = _open_snapshot(self.path, catalog, known)
            return True

    def __len__(self) -> int:
        """Number of documents."""
        return self._snapshot.state.rows

    def close(self) -> None:
        """Close the files."""
        self._snapshot.catalog.close()

    def __enter__(self) -> Self:
        """The index is open from its making on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _query_embeddings(self, queries: Any) -> tuple[NDArray[np.float32], bool]:
        """Query embeddings ``(q, dim)`` of unit length, and whether a single query was given."""
        settings = self.settings
        single = isinstance(queries, str)
        texts = [queries] if single else queries
        if single or (isinstance(texts, list | tuple) and texts and all(isinstance(text, str) for text in texts)):
            embeddings = self.encoder.encode_query(
                texts, task=settings.task, prompt=settings.query_prompt, normalize_embeddings=False
            )
        else:
            array = np.asarray(queries)
            if not array.size:
                return np.empty((0, settings.dim), np.float32), False
            single = array.ndim == 1
            embeddings = as_rows(np.atleast_2d(array), "queries")
            if embeddings.shape[1] not in (settings.dim, settings.source_dim):
                known = " or ".join(map(str, sorted({settings.dim, settings.source_dim})))
                raise InputError(f"the queries have {embeddings.shape[1]} dimensions; this index takes {known}")
        check_rows(embeddings, settings.dim, name="queries")
        return truncate_embeddings(embeddings, settings.dim), single


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One state of an index, open."""

    catalog: Catalog
    version: tuple[int, int]
    state: State
    segments: list[Segment]

    def known(self) -> dict[SegmentEntry, Segment]:
        """The segments, by what the catalog says of them."""
        return dict(zip(self.state.segments, self.segments, strict=True))


def _open_snapshot(folder: Path, catalog: Catalog, known: Mapping[SegmentEntry, Segment]) -> _Snapshot:
    """The newest state of an index, its segments open; those that are open already keep what was verified of them."""
    while True:
        version = catalog.version()
        state = catalog.state()
        specs = tensor_specs(state.settings)
        try:
            segments = [
                known.get(entry)
                or Segment(folder / SEGMENTS / entry.file_name, entry.first_row, entry.rows, entry.checksum, specs)
                for entry in state.segments
            ]
        except IndexDamagedError:
            # A writer may have merged the segments between the reading of their names and their opening.
            if catalog.version() != version:
                continue
            raise
        return _Snapshot(catalog, version, state, segments)


def _hit(document: Document, score: float) -> Hit:
    return Hit(document.id, score, document.title, document.text, document.metadata)


def _source(
    documents: Iterable[Document | Mapping[str, Any]] | None,
    encoder: Encoder | None,
    embeddings: ArrayLike | Rows | None,
    ids: Sequence[str] | None,
) -> building.Source:
    if embeddings is None:
        if documents is None:
            raise InputError("there is nothing to index: give documents, or embeddings, or both")
        if ids is not None:
            raise InputError("ids go with embeddings; documents have their own")
        return building.Source(documents, encoder or shared_encoder(None))
    # What has a shape is read slice by slice; anything else becomes an array.
    rows: Rows = cast("Rows", embeddings) if hasattr(embeddings, "shape") else np.asarray(embeddings)
    if len(rows.shape) != 2 or rows.shape[1] == 0:
        raise InputError(f"the embeddings have shape {tuple(rows.shape)}; it must be (n, dim)")
    if documents is not None and ids is not None:
        raise InputError("ids go with embeddings alone; documents have their own")
    if ids is not None and len(ids) != rows.shape[0]:
        raise InputError(f"there are {len(ids)} ids for {rows.shape[0]} embeddings")
    return building.Source(documents, None, rows, ids)


def _settings(source: building.Source, dim: int | None, precision: Precision) -> Settings:
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not known; choose one of {', '.join(PRECISIONS)}")
    if source.embeddings is not None:
        source_dim = source.embeddings.shape[1]
    elif source.encoder is not None:
        source_dim = source.encoder.dim
    else:
        raise Jv5kitError("there is neither an encoder nor embeddings")
    dim = source_dim if dim is None else dim
    if not 1 <= dim <= source_dim:
        raise InputError(f"dim={dim} is outside 1..{source_dim}, the dimensions of the embeddings")
    if precision == "ubinary" and dim % 8:
        raise InputError(f"dim={dim} is not a multiple of 8, which one bit a dimension needs")
    settings = Settings(dim, precision, source_dim)
    if source.encoder is None:
        return settings
    checkpoint = source.encoder.checkpoint
    return Settings(
        dim,
        precision,
        source_dim,
        model=checkpoint.name,
        fingerprint=checkpoint.fingerprint(),
        query_prompt=source.encoder.query_prompt(),
        document_prompt=source.encoder.document_prompt(),
    )
