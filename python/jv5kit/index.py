"""The index: documents and their embeddings on disk, built in batches, changed, and searched."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

# What only writes is imported where it is used: a search from the command line must not wait for it.
from jv5kit import querying
from jv5kit.errors import IndexDamagedError, InputError
from jv5kit.index_model import IndexModel
from jv5kit.storage.catalog import Catalog, ReplacedError
from jv5kit.storage.folder import check_free
from jv5kit.storage.snapshot import open_snapshot
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

    from jv5kit.building import Added, AddOptions
    from jv5kit.encoder import Encoder
    from jv5kit.querying import SearchOptions, Where
    from jv5kit.sources import Rows
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.state import Settings
    from jv5kit.storage.writer import Writer
    from jv5kit.types import Document, Hit, Precision, Rescore, SearchMode

T = TypeVar("T")


class Index:
    """An index open for reading; :meth:`add` writes.

    It keeps the state that it was opened with until :meth:`refresh`. One index may be searched from several threads.
    """

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._model = IndexModel(path)
        self._snapshot = open_snapshot(path, catalog)

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
        rescore: Rescore | None = None,
        rotate: bool = False,
        lexical: bool = False,
        hnsw: bool = False,
        passages: int | None = None,
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
            embeddings: one row for each document: real numbers ``(n, source dim)``, or uint8 codes of one bit a
                dimension ``(n, dim / 8)``; read slice by slice.
            ids: of the embeddings, where there are no documents; by default the numbers of their rows in the index.
            dim: dimensions to keep; by default all.
            precision: ``"ubinary"`` (one bit a dimension), ``"int8"`` or ``"float32"``.
            rescore: what orders the candidates of a ubinary index: ``"int8"`` rows kept beside the bits (the default),
                the ``"codes"`` themselves against the float query, or ``"none"``, where the Hamming distance counts.
            rotate: fit a rotation on a sample of the embeddings, and put all of them through it: dimensions and bits
                that are kept then hold more, with models that were not trained for it.
            lexical: index the words of the texts as well, for hybrid search.
            hnsw: keep a graph of the float32 rows, for approximate search.
            passages: split longer documents into overlapping passages of at most so many tokens, each with a row and a
                hit of its own; special tokens, the prompt and the title, which each has before it, are counted too.
            force: replace an index at the path.
            skip: called with the error of each document that cannot be used, which is passed over; None raises it.
            on_commit: called with the number of documents in the index after each commit.
            show_progress_bar: None shows it on a terminal.

        Raises:
            InputError: an argument, a document or an embedding is wrong; what was committed before it stays.
            IndexExistsError: the path is taken.
            IndexLockedError: another process is writing there.
            MissingExtraError: a setting needs a library that is not installed.
        """
        from jv5kit import building
        from jv5kit.sources import source_of

        # Before the model is loaded: that takes seconds.
        building.check_settings(precision, rescore, hnsw=hnsw, passages=passages)
        check_free(Path(path), force=force)
        source = source_of(documents, encoder, embeddings, ids)
        settings = building.settings_of(source, dim, precision, rescore, lexical=lexical, hnsw=hnsw, passages=passages)
        with building.new(Path(path), settings, force=force) as writer:
            building.add(
                writer, source, rotate=rotate, skip=skip, on_commit=on_commit, show_progress_bar=show_progress_bar
            )
        return cls.open(path)

    def add(
        self, documents: Iterable[Document | Mapping[str, Any]] | None = None, **options: Unpack[AddOptions]
    ) -> Added:
        """Add documents, encoded as those that are there; the arguments are those of :meth:`build`.

        Documents that the index has already, under the same id and with the same content, are passed over and counted.

        Raises:
            DuplicateError: an id belongs to another document.
            InputError: a document or an embedding is wrong; what was committed before it stays.
            IndexLockedError: another process is writing the index.
        """
        return self._add(documents, options, upsert=False)

    def upsert(
        self, documents: Iterable[Document | Mapping[str, Any]] | None = None, **options: Unpack[AddOptions]
    ) -> Added:
        """Add documents, each in the place of the one that has its id, if there is one; otherwise as :meth:`add`.

        A document is never away in between: the same commit takes the old one and brings the new one.
        """
        return self._add(documents, options, upsert=True)

    def _add(
        self, documents: Iterable[Document | Mapping[str, Any]] | None, options: AddOptions, *, upsert: bool
    ) -> Added:
        from jv5kit import building
        from jv5kit.sources import source_of

        self.refresh()
        settings = self.settings
        building.check_settings(settings.precision, hnsw=settings.hnsw)
        embeddings = options.get("embeddings")
        if embeddings is None and settings.model is None:
            raise InputError(f"{self.path} was built from given embeddings: what is added needs embeddings too")
        source = source_of(documents, self.encoder if embeddings is None else None, embeddings, options.get("ids"))
        building.check_fits(source, settings)
        with self._writer() as writer:
            return building.extend(writer, source, settings, options, upsert=upsert)

    def get(self, ids: Sequence[str]) -> list[Document | None]:
        """The documents of some ids, None for each that the index does not have.

        Raises:
            InputError: ``ids`` is a single string.
            IndexDamagedError: the index is not what was written.
        """
        from jv5kit.sources import id_list

        wanted = id_list(ids)
        found = self.ask(lambda snapshot: snapshot.find(wanted))
        return [found[identifier][1] if identifier in found else None for identifier in wanted]

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Where | None = None,
        on_missing: Callable[[str], None] | None = None,
    ) -> int:
        """Delete documents, by id or by a filter of their metadata: on disk, all together, when this returns.

        They are not found any more; their texts leave the disk with :meth:`compact`.

        Returns:
            How many documents were deleted. Ids that the index does not have are passed over; ``on_missing`` is called
            with each.

        Raises:
            InputError: neither ids nor a filter are given, or both, or the filter does not fit the index.
            IndexLockedError: another process is writing the index.
        """
        from jv5kit.sources import id_list

        if (ids is None) == (filter is None):
            raise InputError("say what to delete: either ids or a filter")
        condition = None if filter is None else parse_filter(filter)
        with self._writer() as writer:
            if condition is not None:
                numbers = writer.snapshot().matching(condition)
            else:
                numbers = writer.numbers_of(id_list(ids or ()), on_missing)
            return writer.delete(numbers)

    def compact(self, *, on_segment: Callable[[int], None] | None = None) -> None:
        """Write the index anew without what was deleted, in as few segments as can be; it can be searched meanwhile.

        Every step is a commit: an interruption loses nothing, and the next call goes on. ``on_segment`` is called with
        the number of rows that a step has done. A reader that has an older state open keeps it, but has to take up the
        new one when it meets a document that is gone.

        Raises:
            IndexLockedError: another process is writing the index.
        """
        from jv5kit import building, graph

        building.check_settings(self.settings.precision, hnsw=self.settings.hnsw)
        with self._writer() as writer:
            before = writer.state.segments
            writer.compact(on_segment)
            graph.grow(writer, anew=writer.state.segments != before)

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        faiss: bool = False,
        force: bool = False,
        on_rows: Callable[[int], None] | None = None,
    ) -> list[Path]:
        """Write the rows of the documents, and their ids in that order, as files for other programs; returns those.

        Args:
            folder: for ``codes.npy``, ``rows.npy`` and ``scales.npy``, or ``embeddings.npy``, as the index has them;
                ``ids.jsonl``, a JSON string a line; ``rotation.npy``, if queries are multiplied with one.
            faiss: write ``index.faiss`` too: codes for Hamming distance, or float32 rows for inner products.
            force: replace an export that is there.
            on_rows: called with the number of rows that each step wrote.

        Raises:
            InputError: the folder has such files, or cannot be written.
            MissingExtraError: FAISS is not installed.
        """
        from jv5kit import exporting

        return exporting.export(self._snapshot, Path(folder), faiss=faiss, force=force, on_rows=on_rows)

    @contextmanager
    def _writer(self) -> Iterator[Writer]:
        """The right to write; what was written is taken up afterwards."""
        from jv5kit.storage.writer import Writer

        writer = Writer.open(self.path)
        try:
            yield writer
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
    def row_count(self) -> int:
        """Number of rows: one for each document, or for each of its passages."""
        return self._snapshot.state.rows

    @property
    def deleted_count(self) -> int:
        """Rows of deleted documents that are still in the segments."""
        return sum(entry.deleted for entry in self._snapshot.state.segments)

    @property
    def fields(self) -> dict[str, list[str]]:
        """The fields of the metadata that can be filtered by, each with the types of its values."""
        return self._snapshot.fields()

    @property
    def encoder(self) -> Encoder:
        """The model that built the index, loaded when it is first used.

        Raises:
            InputError: the index was built from given embeddings.
            ModelNotFoundError: the model is not to be had, or is another one than that of the index.
        """
        return self._model.encoder(self.settings)

    def use_encoder(self, model: Encoder | str | os.PathLike[str]) -> None:
        """Say where the model of the index is now: an encoder, a folder or a hub id.

        Raises:
            ModelNotFoundError: the model is not to be had, or is another one than that of the index.
        """
        self._model.use(self.settings, model)

    # A str is a Sequence[str] as well; the first that fits counts. An array may be one embedding or several.
    @overload
    def search(  # type: ignore[overload-overlap]
        self, queries: str, top_k: int = ..., **options: Unpack[SearchOptions]
    ) -> list[Hit]: ...

    @overload
    def search(self, queries: Sequence[str], top_k: int = ..., **options: Unpack[SearchOptions]) -> list[list[Hit]]: ...

    @overload
    def search(self, queries: ArrayLike, top_k: int = ..., **options: Unpack[SearchOptions]) -> Any: ...

    def search(
        self,
        queries: Any,
        top_k: int = 10,
        *,
        filter: Where | None = None,
        oversample: int = 4,
        hybrid: bool = False,
        words: str | Sequence[str] | None = None,
        stages: dict[str, float] | None = None,
        mode: SearchMode | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Find the documents nearest to each query.

        Args:
            queries: a text or an embedding ``(dim,)``, or a sequence of texts or embeddings ``(q, dim)``; embeddings
                have the dimensions of the index, or those before its truncation. A ubinary index takes uint8 codes too.
            top_k: hits for each query, at least 1; several may be passages of one document.
            filter: conditions on the metadata, as a string (see :mod:`jv5kit.where`) or as a dict of fields and the
                value, or the list of values, that each must have.
            oversample: where hits are rescored, candidates for each hit wanted.
            hybrid: fuse the ranking with that of the words of the query; the order is then that of the fusion.
            words: the words of the queries, for hybrid search where they are given as embeddings.
            stages: a dict that takes the milliseconds that each stage took.
            mode: what to compare with, of what the index stores (see :mod:`jv5kit.search_modes`); by default its own.

        Returns:
            Hits, best first, ties in the order of the documents; for several queries a list for each.

        Raises:
            InputError: an argument is wrong.
            IndexDamagedError: the index is not what was written.
        """
        how = querying.How.of(top_k, filter, oversample, hybrid, words, stages, mode)
        return self.ask(lambda snapshot: querying.search(snapshot, queries, self._model.encode_queries, how))

    def ask(self, question: Callable[[Snapshot], T]) -> T:
        """Ask the state that is open; where documents that it has are gone by now, ask the newest one instead."""
        while True:
            snapshot = self._snapshot
            try:
                return question(snapshot)
            except (ReplacedError, IndexDamagedError) as error:
                if not (isinstance(error, ReplacedError) or snapshot.catalog.is_gone()):
                    raise
                self._reopen(snapshot)

    def refresh(self) -> bool:
        """Take up the newest state, if there is a new one; returns whether there was."""
        snapshot = self._snapshot
        if snapshot.catalog.version() == snapshot.version and not snapshot.catalog.is_gone():
            return False
        self._reopen(snapshot)
        return True

    def _reopen(self, outdated: Snapshot) -> None:
        """Take up the newest state instead of an outdated one, unless another thread did."""
        with self._lock:
            if self._snapshot is not outdated:
                return
            if outdated.catalog.is_gone():
                # A search under way in another thread still holds the old files.
                self._snapshot = open_snapshot(self.path, Catalog(self.path))
            else:
                self._snapshot = open_snapshot(self.path, outdated.catalog, outdated)

    def __len__(self) -> int:
        """Number of documents."""
        return self._snapshot.documents

    def close(self) -> None:
        """Close the files."""
        self._snapshot.catalog.close()

    def __enter__(self) -> Self:
        """The index is open from its making on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
