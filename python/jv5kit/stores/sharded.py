"""An index in shards as a store: in a folder, searched in this process, or wherever its shards are asked."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from jv5kit import building, querying
from jv5kit.deleting import numbers_of, to_delete
from jv5kit.embeddings import whole_number
from jv5kit.errors import InputError
from jv5kit.index_settings import check_settings, settings_of
from jv5kit.search_modes import modes_of
from jv5kit.sharding.building import check_free, new_shards, publish_built
from jv5kit.sharding.manifest import MANIFEST
from jv5kit.sharding.published import FILE
from jv5kit.sharding.searcher import LocalShards, Searcher, Shards
from jv5kit.sharding.writer import NewShardsWriter, ShardedWriter
from jv5kit.sources import id_list, source_of
from jv5kit.stores.engine import EngineStore
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jv5kit.building import Added, AddOptions, BuildOptions
    from jv5kit.encoder import Encoder
    from jv5kit.querying import SearchOptions, Where
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document, Precision, Rescore, SearchMode

SHARDS = 4
"""Where no number is asked for."""


class ShardedStore(EngineStore):
    """An index in shards; see :class:`jv5kit.stores.Store`.

    Args:
        name: of the index, as messages have it.
        folder: where it is.
        shards: that answer.
    """

    def __init__(self, name: str, folder: Path, shards: Shards) -> None:
        super().__init__(name)
        self.folder = folder
        self._searcher = Searcher(name, shards, self._model.encode_queries)

    @classmethod
    @abstractmethod
    def open(cls, path: Any, /) -> Self:
        """Open an index by its name."""

    @classmethod
    @abstractmethod
    def folder_of(cls, path: Any) -> Path:
        """Where an index of a name is made."""

    @classmethod
    def check_new(
        cls,
        path: Any,
        /,
        *,
        precision: Precision = "ubinary",
        rescore: Rescore | None = None,
        hnsw: bool = False,
        passages: int | None = None,
        force: bool = False,
    ) -> None:
        """Refuse what :meth:`build` would, as far as that can be told before anything is loaded."""
        check_settings(precision, rescore, passages=passages)
        refuse_settings(hnsw=hnsw)
        check_free(cls.folder_of(path), force=force)

    @classmethod
    def build(
        cls,
        path: Any,
        documents: Iterable[Document | Mapping[str, Any]] | None = None,
        encoder: Encoder | None = None,
        /,
        *,
        shards: int = SHARDS,
        **options: Unpack[BuildOptions],
    ) -> Self:
        """Build an index in so many shards; the options are those of :meth:`jv5kit.Index.build`.

        ``on_commit`` is called once, when all of it is there.

        Raises:
            InputError: an argument, a document or an embedding is wrong, or there can be no such index in shards.
            IndexExistsError: the path is taken.
            IndexLockedError: another process is writing there.
        """
        folder, force = cls.folder_of(path), options.get("force", False)
        on_commit = options.pop("on_commit", None)
        if whole_number("shards", shards) < 1:
            raise InputError(f"shards={shards}; it must be at least 1")
        refuse_settings(lexical=options.get("lexical", False), hnsw=options.get("hnsw", False))
        precision, rescore, passages = (
            options.get("precision", "ubinary"),
            options.get("rescore"),
            options.get("passages"),
        )
        cls.check_new(path, precision=precision, rescore=rescore, passages=passages, force=force)
        source = source_of(documents, encoder, options.get("embeddings"), options.get("ids"))
        if source.documents is not None and source.total() is None:
            source = replace(source, documents=list(source.documents))
        settings = settings_of(source, options.get("dim"), precision, rescore, passages=passages)
        with new_shards(folder, force=force) as place:
            if (place / MANIFEST).exists() and not force:
                raise InputError(
                    f"{place} holds shards of 'jv5kit index --shards' that was interrupted: go on with that command, "
                    "or replace them with --force (force=True)"
                )
            # What a build that died has left.
            shutil.rmtree(place)
            place.mkdir()
            writer = NewShardsWriter(place, settings, shards, source.total() or 0)
            with building.whole(writer):
                building.add_as_told(writer, source, options, rotate=options.get("rotate", False))
            publish_built(folder, shards)
        built = cls.open(path)
        if on_commit is not None and len(built):
            on_commit(len(built))
        return built

    @property
    def settings(self) -> Settings:
        """What built the index."""
        return self._searcher.state.settings

    @property
    def modes(self) -> dict[SearchMode, int]:
        """The modes that it can be searched in, its own first, each with the bytes of a row that it works on."""
        return modes_of(self.settings)

    @property
    def fields(self) -> dict[str, list[str]]:
        """The fields of the metadata that can be filtered by, each with the types of its values."""
        return self._searcher.state.fields

    @property
    def row_count(self) -> int:
        """Number of rows: one for each document, or for each of its passages."""
        return sum(shard.rows for shard in self._searcher.state.shards)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of all files of the shards."""
        return sum(shard.bytes for shard in self._searcher.state.shards)

    def search(self, queries: Any, top_k: int = 10, /, **options: Unpack[SearchOptions]) -> Any:
        """Find the documents nearest to each query, as :meth:`jv5kit.Index.search`: the hits of one index.

        Raises:
            InputError: an argument is wrong, or the search is to be hybrid.
        """
        how = querying.How.of(top_k, **options)
        if how.hybrid:
            raise InputError(
                f"{self.name} is in shards, each of which knows its own words alone, and has no lexical index: for "
                "hybrid search build one index, with --lexical"
            )
        return self._searcher.search(queries, how)

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        """The documents of some ids, None for each that is not there."""
        wanted = id_list(ids)
        found = self._searcher.get(wanted)
        return [found.get(identifier) for identifier in wanted]

    def count(self, filter: Where | None = None) -> int:
        """How many documents there are, or how many a filter keeps."""
        return len(self) if filter is None else self._searcher.count(parse_filter(filter))

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Where | None = None,
        on_missing: Callable[[str], None] | None = None,
    ) -> int:
        """Delete documents by id or by a filter, all together; returns how many."""
        wanted, condition = to_delete(ids, filter)
        with self._writer() as writer:
            rows = numbers_of(writer, wanted, on_missing) if condition is None else writer.matching(condition)
            return writer.delete(rows)

    def refresh(self) -> bool:
        """Take up the newest state; returns whether there was a new one."""
        return self._searcher.refresh()

    def close(self) -> None:
        """Let go of the shards."""
        self._searcher.close()

    def __len__(self) -> int:
        """Number of documents."""
        return sum(shard.documents for shard in self._searcher.state.shards)

    def _add(
        self, documents: Iterable[Document | Mapping[str, Any]] | None, options: AddOptions, *, upsert: bool
    ) -> Added:
        self.refresh()
        settings = self.settings
        source = building.source_for(self, settings, documents, options)
        on_commit = options.pop("on_commit", None)
        with self._writer() as writer:
            added = building.extend(writer, source, settings, options, upsert=upsert)
        if on_commit is not None and added.documents:
            on_commit(len(self))
        return added

    @contextmanager
    def _writer(self) -> Iterator[ShardedWriter]:
        """The right to write; what was published is taken up afterwards."""
        if not (self.folder / FILE).exists():
            raise InputError(
                f"{self.name} is in {self.folder}, which this machine does not have: change it on one that does"
            )
        with ShardedWriter(self.folder) as writer:
            yield writer
        self.refresh()


class ShardedIndex(ShardedStore):
    """An index in shards in a folder, searched in this process."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], /) -> Self:
        """Open an index in shards.

        Raises:
            IndexNotFoundError: the path holds none.
            IndexDamagedError: it is not what was written.
        """
        folder = cls.folder_of(path)
        return cls(str(path), folder, LocalShards(folder))

    @classmethod
    def folder_of(cls, path: str | os.PathLike[str]) -> Path:
        """The path."""
        return Path(path)


def refuse_settings(*, lexical: bool = False, hnsw: bool = False) -> None:
    """Refuse what shards cannot have so that they answer as one index would.

    Raises:
        InputError: such a setting.
    """
    if lexical:
        raise InputError(
            "shards have no lexical index: each would weigh words by its own documents; build one index, without "
            "shards, or leave --lexical (lexical=True) out"
        )
    if hnsw:
        raise InputError(
            "shards have no graph: what it finds depends on what else is in it; build one index, without shards, or "
            "leave --hnsw (hnsw=True) out"
        )
