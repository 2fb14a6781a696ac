"""An index open for reading: its documents, and the search among them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

# What only writes is imported where it is used: a search from the command line must not wait for it.
from jv5kit import querying
from jv5kit.errors import IndexDamagedError
from jv5kit.index_model import IndexModel
from jv5kit.search_modes import modes_of
from jv5kit.storage.catalog import Catalog, ReplacedError
from jv5kit.storage.snapshot import open_snapshot
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from jv5kit.encoder import Encoder
    from jv5kit.querying import SearchOptions, Where
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document, Hit, SearchMode

T = TypeVar("T")


class IndexReader:
    """An index open for reading.

    It keeps the state that it was opened with until :meth:`refresh`. One index may be searched from several threads.
    """

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._model = IndexModel(str(path))
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

    @property
    def name(self) -> str:
        """The path, as messages have it."""
        return str(self.path)

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
    def modes(self) -> dict[SearchMode, int]:
        """The modes that it can be searched in, its own first, each with the bytes of a row that it works on."""
        return modes_of(self.settings)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of all files of the index."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

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

    # An array may be one embedding or several.
    @overload
    def search(  # type: ignore[overload-overlap]  # A str is a Sequence[str] as well; the first that fits counts.
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
        how = querying.How.of(
            top_k, filter=filter, oversample=oversample, hybrid=hybrid, words=words, stages=stages, mode=mode
        )
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

    def count(self, filter: Where | None = None) -> int:
        """How many documents there are, or how many a filter keeps.

        Raises:
            InputError: the filter does not fit the index.
            IndexDamagedError: the index is not what was written.
        """
        if filter is None:
            return len(self)
        condition = parse_filter(filter)
        return self.ask(lambda snapshot: snapshot.count_documents(snapshot.matching(condition)))

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
