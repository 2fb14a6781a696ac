"""New segments: rows that are new and rows of older segments, one after another in one file, without deleted ones."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jv5kit import _native
from jv5kit.errors import IndexDamagedError
from jv5kit.storage.columns import Columns
from jv5kit.storage.ids import fences, id_hashes, merged, sorted_hashes
from jv5kit.storage.layout import Layout, TensorSpec, header_of, segment_specs
from jv5kit.storage.state import SegmentEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.storage.deletions import Deletions
    from jv5kit.storage.ids import Sorted
    from jv5kit.storage.state import Settings


class Part(Protocol):
    """Rows on their way into a segment."""

    rows: int

    def pieces(self, name: str) -> Iterator[Any]:
        """The bytes of a tensor of embeddings, in order."""

    def numbers(self) -> NDArray[np.int64]:
        """The document number of each row, ascending."""

    def ids(self) -> Sorted:
        """The hashes of the ids, in order, and their rows within the part."""

    def columns(self) -> tuple[Columns, NDArray[np.bool_] | None]:
        """The columns of the part, and which of their rows it keeps (None: all)."""


class NewRows:
    """Documents that are new: arrays in memory."""

    def __init__(
        self,
        first_row: int,
        ids: Sequence[str],
        metadata: Sequence[Mapping[str, Any]],
        tensors: Mapping[str, NDArray[Any]],
    ) -> None:
        self.rows = len(ids)
        self._first_row = first_row
        self._ids = ids
        self._metadata = metadata
        self._tensors = tensors

    def pieces(self, name: str) -> Iterator[Any]:
        """See :class:`Part`."""
        yield np.ascontiguousarray(self._tensors[name]).reshape(-1).view(np.uint8).data

    def numbers(self) -> NDArray[np.int64]:
        """See :class:`Part`."""
        return np.arange(self._first_row, self._first_row + self.rows)

    def ids(self) -> Sorted:
        """See :class:`Part`."""
        return sorted_hashes(id_hashes(self._ids))

    def columns(self) -> tuple[Columns, NDArray[np.bool_] | None]:
        """See :class:`Part`."""
        return Columns.of(self._metadata), None


class StoredRows:
    """The rows of a segment that are not deleted, read block by block, each block verified on the way.

    It is read rather than mapped: mapped pages would count as memory of the process.
    """

    def __init__(self, path: Path, settings: Settings, entry: SegmentEntry, deletions: Deletions) -> None:
        self.rows = entry.live
        self._path = path
        self._entry = entry
        self._kept = deletions.kept()
        self._layout = Layout.read(path, entry.checksum, segment_specs(settings, entry))

    def pieces(self, name: str) -> Iterator[Any]:
        """See :class:`Part`."""
        if self._kept is None:
            yield from self._blocks(name)
            return
        row_bytes = self._layout.tensors[name][1].row_bytes
        pending, row = b"", 0
        for block in self._blocks(name):
            pending += block
            whole = len(pending) // row_bytes
            rows = np.frombuffer(pending, np.uint8, whole * row_bytes).reshape(whole, row_bytes)
            yield rows[self._kept[row : row + whole]].reshape(-1).data
            pending, row = pending[whole * row_bytes :], row + whole

    def numbers(self) -> NDArray[np.int64]:
        """See :class:`Part`."""
        if "numbers" in self._layout.tensors:
            numbers = self._tensor("numbers").astype(np.int64) + self._entry.first_row
        else:
            numbers = np.arange(self._entry.first_row, self._entry.first_row + self._entry.rows)
        return numbers if self._kept is None else numbers[self._kept]

    def ids(self) -> Sorted:
        """See :class:`Part`."""
        hashes, rows = self._tensor("ids"), self._tensor("id_rows")
        if self._kept is None:
            return hashes, rows
        kept = self._kept[rows]
        moved = (np.cumsum(self._kept) - 1).astype(np.uint32)
        return hashes[kept], moved[rows[kept]]

    def columns(self) -> tuple[Columns, NDArray[np.bool_] | None]:
        """See :class:`Part`."""
        layout = json.loads(self._entry.layout)["columns"]
        return Columns.stored(layout, self._tensor), self._kept

    def _tensor(self, name: str) -> NDArray[Any]:
        _, spec = self._layout.tensors[name]
        return np.frombuffer(b"".join(self._blocks(name)), spec.dtype).reshape(spec.shape)

    def _blocks(self, name: str) -> Iterator[bytes]:
        offset, spec = self._layout.tensors[name]
        with self._path.open("rb") as file:
            file.seek(offset)
            for block, checksum in enumerate(self._layout.checksums[name]):
                data = file.read(min(spec.block_bytes, spec.bytes - block * spec.block_bytes))
                if _native.crc32c(data) != checksum:
                    raise IndexDamagedError.of(self._path, f"block {block} of {name} does not match its checksum")
                yield data


def write_segment(path: Path, settings: Settings, number: int, parts: Sequence[Part]) -> SegmentEntry:
    """Write and fsync a segment of the rows of ``parts``; embeddings are never in memory as a whole.

    Args:
        path: a file that is not there.
        settings: of the index.
        number: of the segment.
        parts: rows, in the order of their documents' numbers; at least one row.

    Returns:
        What the catalogue is to know of the segment.
    """
    rows = sum(part.rows for part in parts)
    small = _small_tensors(parts)
    columns = Columns.concatenate([part.columns() for part in parts]) if len(parts) > 1 else _only(parts[0])
    small |= columns.tensors()
    numbers = small["numbers"]
    first_row = int(numbers[0])
    sparse = int(numbers[-1]) - first_row + 1 != rows
    small["numbers"] = (numbers - first_row).astype("<u4")
    layout = json.dumps({"sparse": sparse, "columns": columns.layout}, separators=(",", ":"))
    entry = SegmentEntry(number, first_row, rows, 0, layout)
    specs = segment_specs(settings, entry)
    header = header_of(specs)
    digest = bytearray(header)
    with path.open("xb") as file:
        file.write(header)
        tables = []
        for spec in specs:
            pieces = _in_blocks(_pieces(spec, small, parts), spec.block_bytes)
            checksums = []
            for piece in pieces:
                file.write(piece)
                checksums.append(_native.block_checksums(np.frombuffer(piece, np.uint8), spec.block_bytes))
            tables.append(b"".join(table.astype("<u4").tobytes() for table in checksums))
        for table in tables:
            file.write(table)
            digest += table
        file.flush()
        os.fsync(file.fileno())
    return SegmentEntry(number, first_row, rows, _native.crc32c(bytes(digest)), layout)


def _only(part: Part) -> Columns:
    columns, kept = part.columns()
    return columns if kept is None else Columns.concatenate([(columns, kept)])


def _small_tensors(parts: Sequence[Part]) -> dict[str, NDArray[Any]]:
    """The tensors that are made anew rather than copied: numbers and ids."""
    numbers = np.concatenate([part.numbers() for part in parts])
    ids, first = [], 0
    for part in parts:
        hashes, rows = part.ids()
        ids.append((hashes, rows + np.uint32(first)))
        first += part.rows
    hashes, rows = merged(ids) if len(ids) > 1 else ids[0]
    return {"numbers": numbers, "ids": hashes, "id_rows": rows, "id_fences": fences(hashes)}


def _pieces(spec: TensorSpec, small: Mapping[str, NDArray[Any]], parts: Sequence[Part]) -> Iterator[Any]:
    if spec.name == "padding":
        yield bytes(spec.bytes)
    elif spec.name in small:
        yield np.ascontiguousarray(small[spec.name], spec.dtype).reshape(-1).view(np.uint8).data
    else:
        for part in parts:
            yield from part.pieces(spec.name)


def _in_blocks(pieces: Iterator[Any], block_bytes: int) -> Iterator[bytes | memoryview]:
    """The same bytes in pieces of whole blocks, but for the last one."""
    pending = bytearray()
    for piece in pieces:
        if not pending and len(piece) % block_bytes == 0 and len(piece):
            yield piece
            continue
        pending += piece
        whole = len(pending) // block_bytes * block_bytes
        if whole:
            yield bytes(pending[:whole])
            del pending[:whole]
    if pending:
        yield bytes(pending)
