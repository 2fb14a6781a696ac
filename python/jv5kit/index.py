"""The index: documents and their embeddings on disk, built in batches, and changed."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

# What only writes is imported where it is used: a search from the command line must not wait for it.
from jv5kit.index_reader import IndexReader
from jv5kit.storage.folder import check_free

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

    from jv5kit.building import Added, AddOptions
    from jv5kit.encoder import Encoder
    from jv5kit.errors import InputError
    from jv5kit.querying import Where
    from jv5kit.sources import Rows
    from jv5kit.storage.writer import Writer
    from jv5kit.types import Document, Precision, Rescore


class Index(IndexReader):
    """An index in a folder, to build and to change, and to search as :class:`~jv5kit.index_reader.IndexReader` says."""

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
        from jv5kit import building, graph
        from jv5kit.index_settings import settings_of
        from jv5kit.sources import source_of
        from jv5kit.storage.writer import Writer

        # Before the model is loaded: that takes seconds.
        cls.check_new(path, precision=precision, rescore=rescore, hnsw=hnsw, passages=passages, force=force)
        source = source_of(documents, encoder, embeddings, ids)
        settings = settings_of(source, dim, precision, rescore, lexical=lexical, hnsw=hnsw, passages=passages)
        with building.whole(Writer.create(Path(path), settings, force=force)) as writer:
            building.add(
                writer, source, rotate=rotate, skip=skip, on_commit=on_commit, show_progress_bar=show_progress_bar
            )
            graph.grow(writer)
        return cls.open(path)

    @classmethod
    def check_new(
        cls,
        path: str | os.PathLike[str],
        *,
        precision: Precision = "ubinary",
        rescore: Rescore | None = None,
        hnsw: bool = False,
        passages: int | None = None,
        force: bool = False,
    ) -> None:
        """Refuse what :meth:`build` would, as far as that can be told before anything is loaded.

        Raises:
            InputError: a setting is not known, or does not go with the others.
            IndexExistsError: the path is taken.
            MissingExtraError: a setting needs a library that is not installed.
        """
        from jv5kit.graph import check_graph
        from jv5kit.index_settings import check_settings

        check_settings(precision, rescore, passages=passages)
        if hnsw:
            check_graph(precision)
        check_free(Path(path), force=force)

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
        from jv5kit import building, graph

        self.refresh()
        settings = self.settings
        if settings.hnsw:
            graph.check_graph(settings.precision)
        source = building.source_for(self, settings, documents, options)
        with self._writer() as writer:
            added = building.extend(writer, source, settings, options, upsert=upsert)
            graph.grow(writer)
        return added

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
        from jv5kit.deleting import numbers_of, to_delete

        wanted, condition = to_delete(ids, filter)
        with self._writer() as writer:
            if condition is not None:
                numbers = writer.snapshot().matching(condition)
            else:
                numbers = numbers_of(writer, wanted, on_missing)
            return writer.delete(numbers)

    def compact(self, *, on_segment: Callable[[int], None] | None = None) -> None:
        """Write the index anew without what was deleted, in as few segments as can be; it can be searched meanwhile.

        Every step is a commit: an interruption loses nothing, and the next call goes on. ``on_segment`` is called with
        the number of rows that a step has done. A reader that has an older state open keeps it, but has to take up the
        new one when it meets a document that is gone.

        Raises:
            IndexLockedError: another process is writing the index.
        """
        from jv5kit import graph

        if self.settings.hnsw:
            graph.check_graph(self.settings.precision)
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
