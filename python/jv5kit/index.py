"""The index: documents and their embeddings on disk, built in batches and searched exactly."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from jv5kit import building
from jv5kit.embeddings import as_rows, check_rows, truncate_embeddings, whole_number
from jv5kit.encoder import Encoder, shared_encoder
from jv5kit.errors import IndexDamagedError, InputError, ModelNotFoundError
from jv5kit.scan import scan, tensor_specs
from jv5kit.storage.catalog import Catalog, ReplacedError, SegmentEntry, Settings, State
from jv5kit.storage.segments import Segment
from jv5kit.storage.writer import SEGMENTS, Writer, check_free
from jv5kit.types import Document, Hit, Precision

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
        self._encoder: tuple[str, Encoder] | None = None
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
        ids: Sequence[str | int] | None = None,
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
            ids: of the embeddings, where there are no documents; by default the numbers of their rows in the index.
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
        source = building.source_of(documents, encoder, embeddings, ids)
        settings = building.settings_of(source, dim, precision)
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
        ids: Sequence[str | int] | None = None,
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
        source = building.source_of(documents, encoder, embeddings, ids)
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
        return self._encoder_of(self.settings)

    def use_encoder(self, model: Encoder | str | os.PathLike[str]) -> None:
        """Say where the model of the index is now: an encoder, a folder or a hub id.

        Raises:
            ModelNotFoundError: the model is not to be had, or is another one than that of the index.
        """
        self._encoder = self._load_encoder(self.settings, model)

    def _encoder_of(self, settings: Settings) -> Encoder:
        """The encoder of the index when it had these settings."""
        loaded = self._encoder
        # The index may have been replaced by one of another model.
        if loaded is None or loaded[0] != settings.fingerprint:
            loaded = self._encoder = self._load_encoder(settings, settings.model)
        return loaded[1]

    def _load_encoder(self, settings: Settings, model: Encoder | str | os.PathLike[str] | None) -> tuple[str, Encoder]:
        """The encoder of the index, and its fingerprint."""
        if settings.model is None:
            raise InputError(f"{self.path} was built from given embeddings, not texts: search it by embeddings")
        try:
            encoder = model if isinstance(model, Encoder) else shared_encoder(model)
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
        return fingerprint, encoder

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
        top_k, oversample = whole_number("top_k", top_k), whole_number("oversample", oversample)
        for name, value in (("top_k", top_k), ("oversample", oversample)):
            if value < 1:
                raise InputError(f"{name}={value}; it must be at least 1")
        while True:
            snapshot = self._snapshot
            settings = snapshot.state.settings
            embeddings, single = self._query_embeddings(queries, settings)
            scores, rows = scan(snapshot.segments, settings, embeddings, top_k, oversample)
            try:
                documents = snapshot.catalog.documents(np.unique(rows).tolist(), settings)
                break
            except ReplacedError:
                # The rows mean other documents by now.
                self._reopen(snapshot)
        results = [
            [_hit(documents[row], score) for score, row in zip(*pair, strict=True)]
            for pair in zip(scores.tolist(), rows.tolist(), strict=True)
        ]
        return results[0] if single else results

    def refresh(self) -> bool:
        """Take up the newest state, if there is a new one; returns whether there was."""
        snapshot = self._snapshot
        if snapshot.catalog.version() == snapshot.version and not snapshot.catalog.is_gone():
            return False
        self._reopen(snapshot)
        return True

    def _reopen(self, outdated: _Snapshot) -> None:
        """Take up the newest state instead of an outdated one, unless another thread did."""
        with self._lock:
            if self._snapshot is not outdated:
                return
            if outdated.catalog.is_gone():
                # A search under way in another thread still holds the old files.
                self._snapshot = _open_snapshot(self.path, Catalog(self.path), {})
            else:
                self._snapshot = _open_snapshot(self.path, outdated.catalog, outdated.known())

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

    def _query_embeddings(self, queries: Any, settings: Settings) -> tuple[NDArray[np.float32], bool]:
        """Query embeddings ``(q, dim)`` of unit length, and whether a single query was given."""
        single = isinstance(queries, str)
        texts = [queries] if single else queries
        if single or (isinstance(texts, list | tuple) and texts and all(isinstance(text, str) for text in texts)):
            embeddings = self._encoder_of(settings).encode(
                texts, prompt=settings.query_prompt, normalize_embeddings=False
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
    version: int
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
            if catalog.is_gone():
                catalog = Catalog(folder)
            elif catalog.version() == version:
                raise
            continue
        return _Snapshot(catalog, version, state, segments)


def _hit(document: Document, score: float) -> Hit:
    return Hit(document.id, score, document.title, document.text, document.metadata)
