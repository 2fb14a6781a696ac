"""Writers of an index in shards, as batches use them: what they change is published together, or not at all."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jv5kit.errors import Jv5kitError
from jv5kit.sharding.published import copy_shard, open_shard, publish, read_published, shard_name, shard_path, sweep
from jv5kit.storage.folder import disk_errors
from jv5kit.storage.lock import WriteLock
from jv5kit.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.filters import Filter
    from jv5kit.rotation import Rotation
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document

ROW_BITS = 40
"""Bits of the number of a row within its shard; those above number the shard, so that rows are in order through all."""


class _Shards(ABC):
    """Shards that are looked into while they are written; see :class:`jv5kit.building.IndexWriter`."""

    max_id_bytes = None

    @abstractmethod
    def snapshots(self) -> list[Snapshot]:
        """The shards as they are with what was written."""

    @property
    def next_row(self) -> int:
        """How many rows there have been."""
        return sum(snapshot.state.next_row for snapshot in self.snapshots())

    @property
    def documents(self) -> int:
        """Documents in the index."""
        return sum(snapshot.documents for snapshot in self.snapshots())

    def find(self, ids: Sequence[str]) -> dict[str, tuple[list[int], Document]]:
        """The rows and the document of each id that is in the index."""
        found = {}
        for shard, snapshot in enumerate(self.snapshots()):
            for identifier, (rows, document) in snapshot.find(ids).items():
                found[identifier] = [(shard << ROW_BITS) + row for row in rows], document
        return found

    def same_rows(self, rows: NDArray[np.int64], tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether each of some documents of the index (rows, ascending) has the given tensors' row."""
        same = np.ones(len(rows), np.bool_)
        snapshots = self.snapshots()
        for shard, within in _by_shard(rows).items():
            part = {name: tensor[within] for name, tensor in tensors.items()}
            same[within] = snapshots[shard].same_rows(rows[within] - (shard << ROW_BITS), part)
        return same


class NewShardsWriter(_Shards):
    """The right to write a new index in shards, which are filled one after another.

    Args:
        folder: where the shards are built; they are whole when it is closed.
        settings: of the index.
        count: shards.
        documents: how many are to come, about.
    """

    def __init__(self, folder: Path, settings: Settings, count: int, documents: int) -> None:
        self.name = str(folder)
        self.rotation: Rotation | None = None
        self._folder = folder
        self._settings = settings
        self._count = count
        self._share = max(1, -(-documents // count))
        # Documents that the last shard still takes.
        self._room = 0
        self._writers: list[Writer] = []

    @property
    def settings(self) -> Settings:
        """Of the index."""
        return self._writers[0].settings if self._writers else self._settings

    def snapshots(self) -> list[Snapshot]:
        """The shards that are begun."""
        return [writer.snapshot() for writer in self._writers]

    def added(self, _: int) -> bool:
        """Whether this writer has added a row: all of them."""
        return True

    def set_rotation(self, rotation: Rotation) -> None:
        """Give the index its rotation, before its first commit."""
        self.rotation = rotation

    def commit(self, documents: Sequence[Document], tensors: Mapping[str, NDArray[Any]], _: Sequence[int] = ()) -> None:
        """Add documents, to the shards whose turn it is."""
        ids = [document.id for document in documents]
        # All rows of a document are in one shard.
        firsts = [i for i, identifier in enumerate(ids) if not i or identifier != ids[i - 1]]
        while firsts:
            if self._room <= 0 and len(self._writers) < self._count:
                self._begin()
            count = min(self._room, len(firsts)) if len(self._writers) < self._count else len(firsts)
            start, stop = firsts[0], [*firsts, len(documents)][count]
            part = {name: tensor[start:stop] for name, tensor in tensors.items()}
            self._writers[-1].commit(documents[start:stop], part)
            firsts, self._room = firsts[count:], self._room - count

    def close(self) -> None:
        """Make the shards whole."""
        while len(self._writers) < self._count:
            self._begin()
        for writer in self._writers:
            writer.close()

    def abandon(self) -> None:
        """Leave nothing behind."""
        for writer in self._writers:
            writer.abandon()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        path = shard_path(self._folder, len(self._writers))
        writer = Writer.create(path, self._settings, force=False, journal="delete")
        if self.rotation is not None:
            writer.set_rotation(self.rotation)
        self._writers.append(writer)
        self._room = self._share


class ShardedWriter(_Shards):
    """The right to change an index in shards; what it changes is published when it is closed.

    A shard that changes is copied first. Documents that are added go to the last one, after those that are there.

    Raises:
        IndexNotFoundError: the folder holds no index in shards.
        IndexLockedError: another process is writing it.
    """

    def __init__(self, folder: Path) -> None:
        read_published(folder)
        self.name = str(folder)
        self._folder = folder
        with disk_errors(folder):
            self._lock = WriteLock(folder)
        try:
            self._published = read_published(folder)
            sweep(folder, self._published)
            count = len(self._published.shards)
            self._opened = [open_shard(folder, self._published, number) for number in range(count)]
        except BaseException:
            self._lock.release()
            raise
        self._first_row = self._opened[-1].state.next_row
        self._writers: dict[int, Writer] = {}
        self._closed = False

    @property
    def settings(self) -> Settings:
        """Of the index."""
        return self._opened[0].state.settings

    @property
    def rotation(self) -> Rotation | None:
        """What embeddings go through before they are truncated."""
        return self._opened[0].rotation

    def added(self, row: int) -> bool:
        """Whether this writer has added a row."""
        return row >= ((len(self._opened) - 1) << ROW_BITS) + self._first_row

    def matching(self, condition: Filter) -> list[int]:
        """The rows that a filter keeps.

        Raises:
            InputError: the filter does not fit the index.
        """
        snapshots = self.snapshots()
        condition.check([segment.columns for snapshot in snapshots for segment in snapshot.segments])
        return [
            (shard << ROW_BITS) + row
            for shard, snapshot in enumerate(snapshots)
            for row in snapshot.numbers(snapshot.unchecked_masks(condition))
        ]

    def set_rotation(self, _: Rotation) -> None:
        """See :class:`jv5kit.building.IndexWriter`: an index in shards has what it was built with."""
        raise Jv5kitError(f"{self.name} has its rotation, or none, from its building on")

    def commit(
        self,
        documents: Sequence[Document],
        tensors: Mapping[str, NDArray[Any]],
        delete: Sequence[int] = (),
    ) -> None:
        """Add documents and delete others."""
        rows = np.asarray(delete, np.int64)
        deleted = {shard: rows[within] - (shard << ROW_BITS) for shard, within in _by_shard(rows).items()}
        last = len(self._opened) - 1
        for shard in deleted.keys() | ({last} if documents else set()):
            added = documents if shard == last else ()
            self._writer(shard).commit(added, tensors if added else {}, deleted.get(shard, rows[:0]).tolist())

    def delete(self, rows: Sequence[int]) -> int:
        """Delete all rows of some documents; returns how many documents those were."""
        before = self.documents
        self.commit([], {}, rows)
        return before - self.documents

    def close(self) -> None:
        """Publish what was changed, and let others write."""
        try:
            if self._writers:
                shards = list(self._published.shards)
                for shard, writer in self._writers.items():
                    writer.abandon()
                    shards[shard] = shard_name(self._published.version + 1, shard)
                with disk_errors(self._folder):
                    publish(self._folder, shards, self._published)
            self._closed = True
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let others write; what was not published is nothing."""
        if not self._closed:
            for writer in self._writers.values():
                writer.abandon()
            # What is published tells what is nothing: an error may come after the state has got its name.
            with suppress(Jv5kitError):
                sweep(self._folder, read_published(self._folder))
        self._writers = {}
        for snapshot in self._opened:
            snapshot.catalog.close()
        self._lock.release()

    def __enter__(self) -> Self:
        """The right is held from its making on."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Publish, unless there was an error."""
        if kind is None:
            self.close()
        else:
            self.abandon()

    def snapshots(self) -> list[Snapshot]:
        """The shards as they are with the changes."""
        return [
            self._writers[shard].snapshot() if shard in self._writers else opened
            for shard, opened in enumerate(self._opened)
        ]

    def _writer(self, shard: int) -> Writer:
        if shard not in self._writers:
            target = self._folder / shard_name(self._published.version + 1, shard)
            with disk_errors(self._folder):
                copy_shard(self._folder / self._published.shards[shard], target)
            self._writers[shard] = Writer.open(target, journal="delete")
        return self._writers[shard]


def _by_shard(rows: NDArray[np.int64]) -> dict[int, NDArray[np.intp]]:
    """Where the rows of each shard are among some."""
    shards = rows >> ROW_BITS
    return {shard: np.flatnonzero(shards == shard) for shard in np.unique(shards).tolist()}
