"""Segments open for reading: tensors mapped, their blocks verified when they are first used."""

from __future__ import annotations

import json
import math
import mmap
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit import _native
from jv5kit.errors import IndexDamagedError, InputError
from jv5kit.storage.columns import Columns
from jv5kit.storage.layout import Layout, segment_specs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.filters import Filter
    from jv5kit.storage.state import SegmentEntry, Settings

FILTERS_KEPT = 16
"""Filters whose matching rows are kept, so that a filter that is used again costs nothing."""


class Segment:
    """The rows of a segment, deleted ones included; what is deleted is the catalogue's to say.

    Raises:
        IndexDamagedError: the file is missing, or its size, header or checksums are not those that were written.
    """

    def __init__(self, path: Path, settings: Settings, entry: SegmentEntry) -> None:
        self.path = path
        self.rows = entry.rows
        self.first_row = entry.first_row
        self.format_1 = not entry.layout
        self._entry = entry
        self._layout = Layout.read(path, entry.checksum, segment_specs(settings, entry))
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise IndexDamagedError.of(path, "it is missing") from None
        self._verified = {name: np.zeros(len(sums), np.bool_) for name, sums in self._layout.checksums.items()}
        self._lock = threading.Lock()
        self._matching: dict[Filter, NDArray[np.uint8]] = {}

    def tensor(self, name: str) -> NDArray[Any]:
        """A whole tensor ``(rows, …)``, verified.

        Raises:
            InputError: the segment is of format 1, which has no such tensor.
            IndexDamagedError: it is not what was written.
        """
        self._verify(name, None)
        return self._view(name)

    def rows_of(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A whole tensor ``(rows, …)``, of which only some rows (positions within the segment) are verified."""
        _, spec = self._tensor(name)
        first = rows.ravel() * spec.row_bytes
        last = first + spec.row_bytes - 1
        touched = np.concatenate([first, last]) // spec.block_bytes
        span = (last - first).max(initial=0) // spec.block_bytes
        # A row longer than a block has blocks between its first and its last.
        between = [first // spec.block_bytes + i for i in range(1, int(span))]
        self._verify(name, np.flatnonzero(np.bincount(np.concatenate([touched, *between]))))
        return self._view(name)

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The document numbers of some rows."""
        if "numbers" not in self._layout.tensors:
            return rows + self.first_row
        return self.rows_of("numbers", rows)[rows] + np.int64(self.first_row)

    def positions(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of documents that are in the segment, by their numbers."""
        if "numbers" not in self._layout.tensors:
            return numbers - self.first_row
        # Of the type that is stored, which would otherwise be converted as a whole each time.
        wanted = np.minimum(numbers - self.first_row, np.iinfo(np.uint32).max).astype(np.uint32)
        return np.searchsorted(self.tensor("numbers"), wanted).astype(np.int64)

    def matching(self, condition: Filter) -> NDArray[np.uint8]:
        """A bitmap of the rows that a filter keeps, the first row in the lowest bit; kept for the next query."""
        bits = self._matching.get(condition)
        if bits is None:
            bits = np.packbits(condition.matches(self.columns), bitorder="little")
            with self._lock:
                while len(self._matching) >= FILTERS_KEPT:
                    del self._matching[next(iter(self._matching))]
                self._matching[condition] = bits
        return bits

    @cached_property
    def first_rows(self) -> NDArray[np.uint8]:
        """A bitmap of the first row of each document, in an index of passages."""
        return np.packbits(self.tensor("passages")[:, 0] <= 1, bitorder="little")

    @cached_property
    def columns(self) -> Columns:
        """The metadata that can be filtered by; read when a filter names it."""
        if self.format_1:
            raise InputError(
                f"{self.path.parent.parent} has format 1, without columns to filter by and ids to look up; "
                "jv5kit compact brings it to the present format"
            )
        return Columns.stored(json.loads(self._entry.layout)["columns"], self.tensor)

    def verify(self) -> None:
        """Check every block.

        Raises:
            IndexDamagedError: one is not what was written.
        """
        for name, verified in self._verified.items():
            verified[:] = False
            self._verify(name, None)

    def release(self) -> None:
        """Let go of the pages that were read, which count as memory of the process; they are read again at need."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _tensor(self, name: str) -> Any:
        if name not in self._layout.tensors and self.format_1:
            _ = self.columns
        return self._layout.tensors[name]

    def _view(self, name: str) -> NDArray[Any]:
        offset, spec = self._tensor(name)
        count = math.prod(spec.shape)
        return np.frombuffer(self._map, spec.dtype, count, offset).reshape(spec.shape)

    def _verify(self, name: str, blocks: NDArray[np.int64] | None) -> None:
        offset, spec = self._tensor(name)
        verified = self._verified[name]
        with self._lock:
            todo = np.flatnonzero(~verified) if blocks is None else blocks[~verified[blocks]]
            if not len(todo):
                return
            data = np.frombuffer(self._map, np.uint8, spec.bytes, offset)
            bad = _native.damaged_block(data, spec.block_bytes, self._layout.checksums[name], todo.astype(np.int64))
            if bad is not None:
                raise IndexDamagedError.of(self.path, f"block {bad} of {name} does not match its checksum")
            verified[todo] = True
