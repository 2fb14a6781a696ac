"""The one writer of an index: batches become segments, and each commit is all there or not at all."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jv5kit.documents import metadata_json
from jv5kit.errors import IndexDamagedError, IndexFormatError, IndexNotFoundError, Jv5kitError
from jv5kit.storage import catalog, head, upgrade
from jv5kit.storage.catalog import Catalog, Change, record
from jv5kit.storage.deletions import Deletions
from jv5kit.storage.folder import check_free, disk_errors, fsync_path, sweep, sweep_beside
from jv5kit.storage.graphs import GRAPHS, GraphRecord, save_graph
from jv5kit.storage.head import write_head
from jv5kit.storage.lock import WriteLock
from jv5kit.storage.merging import NewRows, Part, StoredRows, write_segment
from jv5kit.storage.rotations import read_rotation, write_rotation
from jv5kit.storage.snapshot import SEGMENTS, Snapshot, open_snapshot, segment_path
from jv5kit.storage.state import SegmentEntry, Settings, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.rotation import Rotation
    from jv5kit.storage.connection import Journal
    from jv5kit.types import Document

MAX_SEGMENT_ROWS = 1 << 20
"""Rows of a segment at most; a power of two, as the sizes of merged segments are."""

PURGED_TOGETHER = 10_000
"""Documents that one transaction purges."""


class Writer:
    """The right to write an index. Make one with :meth:`create` or :meth:`open`, and close it.

    A new index exists from its first commit on: the same transaction takes away an index that it replaces.
    """

    max_id_bytes = None

    def __init__(self, folder: Path, lock: WriteLock, journal: Journal) -> None:
        self.folder = folder
        self.state: State
        self._lock = lock
        self._journal = journal
        self._first_row = 0
        self._catalog: Catalog | None = None
        self._snapshot: Snapshot | None = None
        # What the next commit takes away, if it is the first of an index that replaces another one.
        self._replaced: tuple[SegmentEntry, ...] | None = None

    @classmethod
    def create(cls, folder: Path, settings: Settings, *, force: bool, journal: Journal = "wal") -> Self:
        """Begin a new index; ``journal`` is that of its catalogue.

        Raises:
            IndexExistsError: the path holds an index (and ``force`` is false), or something else.
            IndexLockedError: another process is writing there.
        """
        check_free(folder, force=force)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            writer = cls(folder, WriteLock(folder), journal)
        writer.state = State(settings)
        try:
            writer._take_over()
        except BaseException:
            writer.abandon()
            raise
        return writer

    @classmethod
    def open(cls, folder: Path, journal: Journal = "wal") -> Self:
        """Go on with an existing index; one of an older format is brought to the present one.

        Raises:
            IndexNotFoundError: there is no index.
            IndexLockedError: another process is writing it.
        """
        Catalog(folder).close()
        with disk_errors(folder):
            lock = WriteLock(folder)
        try:
            writer = cls(folder, lock, journal)
            writer._catalog = Catalog(folder, write=True, journal=journal)
            writer.state = writer._catalog.state()
            writer._first_row = writer.state.next_row
            with disk_errors(folder):
                sweep(folder, writer.state)
                if writer._catalog.format == 1:
                    before = writer.state.segments
                    writer.state = upgrade.upgrade(folder, writer._catalog, writer.state)
                    writer._remove(before)
        except BaseException:
            if writer._catalog is not None:
                writer._catalog.close()
            lock.release()
            raise
        return writer

    @property
    def name(self) -> str:
        """The folder, as messages have it."""
        return str(self.folder)

    @property
    def settings(self) -> Settings:
        """Of the index."""
        return self.state.settings

    @property
    def rotation(self) -> Rotation | None:
        """What embeddings go through before they are truncated."""
        return read_rotation(self.folder, self.state.settings)

    @property
    def next_row(self) -> int:
        """The number of the next row."""
        return self.state.next_row

    @property
    def documents(self) -> int:
        """Documents in the index."""
        return self.state.rows if self.state.settings.passages is None else self.snapshot().documents

    def added(self, row: int) -> bool:
        """Whether this writer has added a row."""
        return row >= self._first_row

    def find(self, ids: Sequence[str]) -> dict[str, tuple[list[int], Document]]:
        """The rows and the document of each id that is in the index."""
        return self.snapshot().find(ids) if self._catalog and self._replaced is None else {}

    def set_rotation(self, rotation: Rotation) -> None:
        """Give a new index, before its first commit, the rotation that its embeddings go through."""
        with disk_errors(self.folder):
            checksum = write_rotation(self.folder, rotation)
        self.state = replace(self.state, settings=replace(self.state.settings, rotation=checksum))

    def commit(
        self,
        documents: Sequence[Document],
        tensors: Mapping[str, NDArray[Any]],
        delete: Sequence[int] = (),
    ) -> None:
        """Add documents and their rows, and delete others: on disk when this returns.

        In an index of passages each of them is given as a document of its own, all those of a document together.

        Small segments at the end are merged with the new rows, so that an index of n documents has about log n of them;
        a segment more than half of which is deleted is written anew.
        """
        with disk_errors(self.folder):
            if self._catalog is None:
                self._create()
            deletions, blocks = self._deleted(delete)
            entries = [entry for entry in self._entries(deletions) if entry.live]
            number, next_row = self._next_number(), self.state.next_row
            parts: list[Part] = []
            if documents:
                ids = [document.id for document in documents]
                metadata = [document.metadata for document in documents]
                parts.append(NewRows(next_row, ids, metadata, tensors))
                rows = len(documents)
                while entries and entries[-1].live < 2 * rows and entries[-1].live + rows <= MAX_SEGMENT_ROWS:
                    rows += entries[-1].live
                    parts.insert(0, self._stored(entries.pop(), deletions))
            for i, entry in enumerate(entries):
                if 2 * entry.deleted > entry.rows:
                    entries[i] = self._write(number, [self._stored(entry, deletions)])
                    number += 1
            if parts:
                entries.append(self._write(number, parts))
            kept = {entry.number for entry in entries}
            self._register(
                Change(
                    replace(self.state, segments=tuple(entries), next_row=next_row + len(documents)),
                    [record(row, one, metadata_json(one.metadata)) for row, one in enumerate(documents, next_row)],
                    [(segment, *block) for segment, changed in blocks.items() if segment in kept for block in changed],
                    delete,
                )
            )

    def delete(self, rows: Sequence[int]) -> int:
        """Delete all rows of some documents, in one commit; returns how many documents those were."""
        documents = self.snapshot().count_documents(rows)
        if rows:
            self.commit([], {}, rows)
        return documents

    def set_graph(self, graph: Any, rows: int) -> None:
        """Make a graph of ``rows`` rows, which holds all documents that there are, the index's."""
        with disk_errors(self.folder):
            folder = self.folder / GRAPHS
            folder.mkdir(exist_ok=True)
            fsync_path(self.folder)
            old = GraphRecord.of(self.state.graph)
            record = GraphRecord(old.number + 1 if old else 1, self.state.next_row, rows, 0, 0)
            size, checksum = save_graph(folder / record.file_name, graph)
            fsync_path(folder)
            record = replace(record, size=size, checksum=checksum)
            self._register(Change(replace(self.state, graph=record.to_json())))

    def compact(self, on_segment: Callable[[int], None] | None = None) -> None:
        """Write segments anew without deleted rows, as few as can be, and remove the deleted documents for good.

        Every step is a commit of its own; ``on_segment`` is called with the rows that each one wrote.
        """
        with disk_errors(self.folder):
            done = 0
            while done < len(self.state.segments):
                deletions = self._deletions()
                run = [self.state.segments[done]]
                for entry in self.state.segments[done + 1 :]:
                    if sum(one.live for one in run) + entry.live > MAX_SEGMENT_ROWS:
                        break
                    run.append(entry)
                if len(run) > 1 or run[0].deleted:
                    parts: list[Part] = [self._stored(entry, deletions) for entry in run if entry.live]
                    new = [self._write(self._next_number(), parts)] if parts else []
                    entries = self.state.segments
                    entries = (*entries[:done], *new, *entries[done + len(run) :])
                    self._register(Change(replace(self.state, segments=entries)))
                    done += len(new)
                else:
                    done += 1
                if on_segment is not None:
                    on_segment(sum(entry.rows for entry in run))
            self._purge()

    def close(self) -> None:
        """Let others write. A new index without documents comes into being here."""
        try:
            with disk_errors(self.folder):
                if self._catalog is None:
                    self._create()
                elif self._replaced is not None:
                    self._register(Change(self.state))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let others write, and leave things as the last commit left them."""
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None
        elif not (self.folder / catalog.FILE).exists():
            # Nothing came of a new index: leave no empty folder behind.
            for path in (self.folder / "lock", self.folder / head.FILE, *self.folder.glob("rotation-*")):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                (self.folder / SEGMENTS).rmdir()
            with suppress(OSError):
                self.folder.rmdir()
        self._lock.release()

    def same_rows(self, rows: NDArray[np.int64], tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether each of some documents of the index (rows, ascending) has the given tensors' row."""
        return self.snapshot().same_rows(rows, tensors)

    def _take_over(self) -> None:
        """Go on in the catalogue of the index that is replaced, if it is sound: then readers never miss a beat."""
        # Any other error is the disk's, and no reason to take the index for lost.
        unsound = (IndexNotFoundError, IndexDamagedError, IndexFormatError)
        try:
            opened = Catalog(self.folder, write=True, journal=self._journal)
        except unsound:
            return
        try:
            old = opened.state()
            if opened.format == 1:
                # What is replaced in one transaction has to have the tables of what replaces it.
                old = upgrade.upgrade(self.folder, opened, old)
        except BaseException as error:
            opened.close()
            if isinstance(error, unsound):
                return
            raise
        self._catalog = opened
        self._replaced = old.segments
        generation = old.settings.generation + 1
        settings = replace(self.state.settings, generation=generation)
        self.state = replace(self.state, settings=settings, commit=old.commit)

    def _create(self) -> None:
        """Make the catalogue; what is there instead of one is not to be read."""
        for path in self.folder.glob(f"{catalog.FILE}*"):
            path.unlink()
        (self.folder / head.FILE).unlink(missing_ok=True)
        write_head(self.folder, 0)
        shutil.rmtree(self.folder / SEGMENTS, ignore_errors=True)
        (self.folder / SEGMENTS).mkdir()
        Catalog.create(self.folder, self.state.settings, self._journal)
        for folder in (self.folder, self.folder.parent):
            fsync_path(folder)
        self._catalog = Catalog(self.folder, write=True, journal=self._journal)

    def snapshot(self) -> Snapshot:
        """The present state, open."""
        if self._catalog is None:
            raise Jv5kitError(f"{self.folder}: the index is closed")
        if self._snapshot is None or self._snapshot.state is not self.state:
            self._snapshot = open_snapshot(self.folder, self._catalog, self._snapshot)
            self.state = self._snapshot.state
        return self._snapshot

    def _deletions(self) -> dict[int, Deletions]:
        """The deletions of each segment, by its number."""
        if not any(entry.deleted for entry in self.state.segments):
            return {}
        return dict(zip([entry.number for entry in self.state.segments], self.snapshot().deletions, strict=True))

    def _deleted(self, rows: Sequence[int]) -> tuple[dict[int, Deletions], dict[int, list[tuple[int, bytes]]]]:
        """The deletions of each segment when more rows are deleted, and the blocks of them that change."""
        deletions, changed = self._deletions(), {}
        if rows:
            numbers = np.unique(np.asarray(rows, np.int64))
            snapshot = self.snapshot()
            deletions = dict(zip([entry.number for entry in self.state.segments], snapshot.deletions, strict=True))
            parts = zip(self.state.segments, snapshot.segments, snapshot.locate(numbers), strict=True)
            for entry, segment, within in parts:
                if len(within):
                    local = segment.positions(numbers[within])
                    deletions[entry.number], blocks = deletions[entry.number].with_rows(local)
                    changed[entry.number] = list(blocks.items())
        return deletions, changed

    def _entries(self, deletions: Mapping[int, Deletions]) -> list[SegmentEntry]:
        """The entries of the present segments, with these deletions."""
        return [
            replace(entry, deleted=deletions[entry.number].count, deletions=deletions[entry.number].checksum)
            if entry.number in deletions
            else entry
            for entry in self.state.segments
        ]

    def _stored(self, entry: SegmentEntry, deletions: Mapping[int, Deletions]) -> StoredRows:
        return StoredRows(
            segment_path(self.folder, entry),
            self.state.settings,
            entry,
            deletions.get(entry.number) or Deletions(entry.rows),
        )

    def _next_number(self) -> int:
        return max((entry.number for entry in (*self.state.segments, *(self._replaced or ()))), default=0) + 1

    def _write(self, number: int, parts: Sequence[Part]) -> SegmentEntry:
        """Write, fsync and name a segment; nothing refers to it yet."""
        path = self.folder / SEGMENTS / f"{number:06d}.safetensors"
        unnamed = path.with_suffix(".tmp")
        unnamed.unlink(missing_ok=True)
        entry = write_segment(unnamed, self.state.settings, number, parts)
        unnamed.replace(path)
        fsync_path(path.parent)
        return entry

    def _register(self, change: Change) -> None:
        """Make a change the index's, in one transaction, and remove the files that it made superfluous."""
        if self._catalog is None:
            raise Jv5kitError(f"{self.folder}: the index is closed")
        state = replace(change.state, commit=self.state.commit + 1)
        self._catalog.commit(replace(change, state=state))
        write_head(self.folder, state.commit)
        before = self._replaced or self.state.segments
        self.state, self._replaced = state, None
        self._remove(before)

    def _remove(self, before: Sequence[SegmentEntry]) -> None:
        """Remove the files of segments that are no longer part of the index."""
        present = {entry.number for entry in self.state.segments}
        for entry in before:
            if entry.number not in present:
                segment_path(self.folder, entry).unlink(missing_ok=True)
        sweep_beside(self.folder, self.state)

    def _purge(self) -> None:
        """Remove the documents of deleted rows, which older states could still show."""
        if self._catalog is None:
            return
        dead = np.array(self._catalog.dead(), np.int64)
        snapshot = self.snapshot()
        for segment, within in zip(snapshot.segments, snapshot.locate(dead), strict=True):
            if len(within) and np.isin(dead[within], segment.numbers(np.arange(segment.rows))).any():
                raise IndexDamagedError.of(self._catalog.path, "its list of deleted documents names some that are not")
        for start in range(0, len(dead), PURGED_TOGETHER):
            purged = dead[start : start + PURGED_TOGETHER].tolist()
            self._register(Change(self.state, purge=purged))
        if self._catalog.holds_traces():
            self._catalog.shrink()
