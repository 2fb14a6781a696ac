"""The one writer of an index: batches become segments, and each commit is all there or not at all."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jv5kit.errors import (
    IndexDamagedError,
    IndexExistsError,
    IndexFormatError,
    IndexNotFoundError,
    InputError,
    Jv5kitError,
)
from jv5kit.storage import catalog
from jv5kit.storage.catalog import Catalog, SegmentEntry, Settings, State
from jv5kit.storage.lock import WriteLock
from jv5kit.storage.segments import Part, Segment, SegmentPart, TensorSpec, write_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.types import Document

MAX_SEGMENT_ROWS = 1 << 20
"""Rows of a segment at most; a power of two, as the sizes of merged segments are."""

SEGMENTS = "segments"

_OUR_FILES = re.compile(rf"lock|{SEGMENTS}|{re.escape(catalog.FILE)}(\.tmp)?(-wal|-shm|-journal)?")
_SEGMENT_FILE = re.compile(r"\d{6,}\.(safetensors|tmp)")


class Writer:
    """The right to write an index. Make one with :meth:`create` or :meth:`open`, and close it.

    A new index exists from its first commit on: the same transaction takes away an index that it replaces.
    """

    def __init__(self, folder: Path, specs: Sequence[TensorSpec], lock: WriteLock) -> None:
        self.folder = folder
        self._specs = specs
        self._lock = lock
        self._catalog: Catalog | None = None
        self._open: dict[SegmentEntry, Segment] = {}
        # What the next commit takes away, if it is the first of an index that replaces another one.
        self._replaced: tuple[SegmentEntry, ...] | None = None
        self.state: State

    @classmethod
    def create(cls, folder: Path, settings: Settings, specs: Sequence[TensorSpec], *, force: bool) -> Self:
        """Begin a new index.

        Raises:
            IndexExistsError: the path holds an index (and ``force`` is false), or something else.
            IndexLockedError: another process is writing there.
        """
        check_free(folder, force=force)
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            writer = cls(folder, specs, WriteLock(folder))
        writer.state = State(settings, ())
        try:
            writer._take_over()
        except BaseException:
            writer.abandon()
            raise
        return writer

    @classmethod
    def open(cls, folder: Path, specs_of: Callable[[Settings], Sequence[TensorSpec]]) -> Self:
        """Go on with an existing index; ``specs_of`` gives the tensors of its settings.

        Raises:
            IndexNotFoundError: there is no index.
            IndexLockedError: another process is writing it.
        """
        Catalog(folder).close()
        with _disk_errors(folder):
            lock = WriteLock(folder)
            try:
                opened = Catalog(folder, write=True)
                writer = cls(folder, (), lock)
                writer._catalog = opened
                writer.state = opened.state()
                writer._specs = specs_of(writer.state.settings)
                writer._sweep()
            except BaseException:
                lock.release()
                raise
        return writer

    def find(self, ids: Sequence[str]) -> dict[str, tuple[int, Document]]:
        """Row and document of each id that is in the index."""
        return self._catalog.find(ids) if self._catalog and self._replaced is None else {}

    def commit(self, documents: Sequence[tuple[Document, str]], tensors: dict[str, NDArray[Any]]) -> None:
        """Add documents, each with its metadata as JSON, and their rows: on disk when this returns.

        Small segments at the end are merged with the new rows, so that an index of n documents has about log n of them.
        """
        with _disk_errors(self.folder):
            if self._catalog is None:
                self._create()
            state, merged = self._next_state(len(documents))
            checksum = self._write(state.segments[-1], merged, Part(tensors))
            last = replace(state.segments[-1], checksum=checksum)
            state = replace(state, segments=(*state.segments[:-1], last))
            self._register(documents, state)
            self._remove(merged)

    def close(self) -> None:
        """Let others write. A new index without documents comes into being here."""
        try:
            with _disk_errors(self.folder):
                if self._catalog is None:
                    self._create()
                elif self._replaced is not None:
                    self._register([], self.state)
                    self._remove([])
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let others write, and leave things as the last commit left them."""
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None
        elif not (self.folder / catalog.FILE).exists():
            # Nothing came of a new index: leave no empty folder behind.
            (self.folder / "lock").unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()
        self._lock.release()

    def same_rows(self, rows: NDArray[np.int64], tensors: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether each of some rows of the index (ascending) holds just the given tensors' row."""
        same = np.ones(len(rows), np.bool_)
        for entry in self.state.segments:
            within = (rows >= entry.first_row) & (rows < entry.first_row + entry.rows)
            if not within.any():
                continue
            if entry not in self._open:
                path = self._segment_path(entry)
                self._open[entry] = Segment(path, entry.first_row, entry.rows, entry.checksum, self._specs)
            local = rows[within] - entry.first_row
            for spec in self._specs:
                stored = self._open[entry].rows_of(spec.name, local)[local]
                equal = (stored == tensors[spec.name][within]).reshape(len(local), -1).all(axis=1)
                same[within] &= equal
        return same

    def _take_over(self) -> None:
        """Go on in the catalogue of the index that is replaced, if it is sound: then readers never miss a beat."""
        # Any other error is the disk's, and no reason to take the index for lost.
        unsound = (IndexNotFoundError, IndexDamagedError, IndexFormatError)
        try:
            opened = Catalog(self.folder, write=True)
        except unsound:
            return
        try:
            old = opened.state()
        except BaseException as error:
            opened.close()
            if isinstance(error, unsound):
                return
            raise
        self._catalog = opened
        self._replaced = old.segments
        generation = old.settings.generation + 1
        self.state = replace(self.state, settings=replace(self.state.settings, generation=generation))

    def _create(self) -> None:
        """Make the catalogue; what is there instead of one is not to be read."""
        for path in self.folder.glob(f"{catalog.FILE}*"):
            path.unlink()
        shutil.rmtree(self.folder / SEGMENTS, ignore_errors=True)
        (self.folder / SEGMENTS).mkdir()
        Catalog.create(self.folder, self.state.settings)
        for folder in (self.folder, self.folder.parent):
            _fsync_folder(folder)
        self._catalog = Catalog(self.folder, write=True)

    def _remove(self, merged: Sequence[SegmentEntry]) -> None:
        """Remove the files of segments that the last commit made superfluous."""
        for entry in (*merged, *(self._replaced or ())):
            self._open.pop(entry, None)
            self._segment_path(entry).unlink(missing_ok=True)
        self._replaced = None

    def _next_state(self, rows: int) -> tuple[State, list[SegmentEntry]]:
        """The state with ``rows`` more, and the segments at the end that the new one takes in."""
        entries = list(self.state.segments)
        number = max((entry.number for entry in (*entries, *(self._replaced or ()))), default=0) + 1
        merged: list[SegmentEntry] = []
        while entries and entries[-1].rows <= rows and entries[-1].rows + rows <= MAX_SEGMENT_ROWS:
            rows += entries[-1].rows
            merged.insert(0, entries.pop())
        first_row = sum(entry.rows for entry in entries)
        entries.append(SegmentEntry(number, first_row, rows, 0))
        return replace(self.state, segments=tuple(entries)), merged

    def _write(self, entry: SegmentEntry, merged: Sequence[SegmentEntry], part: Part) -> int:
        """Write, fsync and name a segment; nothing refers to it yet. Returns its checksum."""
        path = self._segment_path(entry)
        parts = [SegmentPart(self._segment_path(old), old.rows, old.checksum, self._specs) for old in merged]
        unnamed = path.with_suffix(".tmp")
        unnamed.unlink(missing_ok=True)
        checksum = write_segment(unnamed, self._specs, [*parts, part])
        unnamed.replace(path)
        _fsync_folder(path.parent)
        return checksum

    def _register(self, documents: Sequence[tuple[Document, str]], state: State) -> None:
        """Make the new state the index's, in one transaction with its documents."""
        if self._catalog is None:
            raise Jv5kitError(f"{self.folder}: the index is closed")
        self._catalog.commit(documents, self.state.rows, state)
        self.state = state

    def _segment_path(self, entry: SegmentEntry) -> Path:
        return self.folder / SEGMENTS / entry.file_name

    def _sweep(self) -> None:
        """Remove the segments that no transaction named: a writer died between naming and registering them."""
        known = {entry.file_name for entry in self.state.segments}
        for path in (self.folder / SEGMENTS).glob("*"):
            if path.name not in known and _SEGMENT_FILE.fullmatch(path.name):
                path.unlink(missing_ok=True)


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a path where a new index cannot be made.

    Raises:
        IndexExistsError: it holds an index (and ``force`` is false), or something else, which is never replaced.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or not all(_OUR_FILES.fullmatch(path.name) for path in folder.iterdir()):
        raise IndexExistsError(f"{folder} exists and is no jv5kit index; choose another path")
    if (folder / catalog.FILE).exists() and not force:
        try:
            opened = Catalog(folder)
            count = f"{opened.state().rows} documents"
            opened.close()
        except Jv5kitError as error:
            count = f"unreadable: {error}"
        raise IndexExistsError(
            f"{folder} is an index already ({count}); "
            "add to it with --append (Index.add), or replace it with --force (force=True)"
        )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error of ours that names the index."""
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} cannot be written: {error}") from error
    except OSError as error:
        raise Jv5kitError(f"{folder} cannot be written: {error}; what was committed is safe") from error


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
