"""Segments: immutable safetensors files of codes and rows, with a CRC32C for each block.

Beside each tensor ``name`` a tensor ``name.crc32c`` holds the checksum of each of its blocks. The catalogue holds one
checksum of the file's header and of those tensors, so that nothing in the file is taken on trust. The header is parsed
here, bounds-checked against the file before anything is allocated, because the library's reader would copy the tensors.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit import _native
from jv5kit.errors import IndexDamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

BLOCK_BYTES = {"codes": 1 << 20, "embeddings": 1 << 20, "rows": 16 << 10, "scales": 16 << 10}
"""Bytes under one checksum: large where a tensor is read as a whole, small where rows are read at random."""

_ALIGNMENT = 64
"""The first tensor starts at a multiple of it, so that its codes start on a cache line."""

_MAX_HEADER_BYTES = 1 << 20
_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and row shape of a tensor with one entry a document."""

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(self.dtype.itemsize * np.prod(self.row_shape, dtype=int))


def write_segment(path: Path, specs: Sequence[TensorSpec], parts: Sequence[Part]) -> int:
    """Write and fsync a segment of the rows of ``parts``, one after another; memory does not grow with their size.

    Returns:
        The checksum for the catalogue.
    """
    rows = sum(part.rows for part in parts)
    header = _header(specs, rows)
    digest = bytearray(header)
    with path.open("xb") as file:
        file.write(header)
        tables = []
        for spec in specs:
            block_bytes = BLOCK_BYTES[spec.name]
            checksums = []
            # Pieces of a part end anywhere; blocks of the file do not.
            pending = bytearray()
            for part in parts:
                for piece in part.pieces(spec):
                    file.write(piece)
                    pending += piece
                    whole = len(pending) // block_bytes * block_bytes
                    if whole:
                        checksums.append(_checksums(pending[:whole], block_bytes))
                        del pending[:whole]
            checksums.append(_checksums(pending, block_bytes))
            tables.append(np.concatenate(checksums).astype("<u4").tobytes())
        for table in tables:
            file.write(table)
            digest += table
        file.flush()
        os.fsync(file.fileno())
    return _native.crc32c(bytes(digest))


class Part:
    """Rows on their way into a segment: arrays in memory, one for each tensor."""

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        self.rows = len(next(iter(tensors.values())))
        self._tensors = tensors

    def pieces(self, spec: TensorSpec) -> Iterator[bytes | memoryview]:
        """The bytes of a tensor, in order."""
        tensor = np.ascontiguousarray(self._tensors[spec.name], dtype=spec.dtype)
        yield tensor.reshape(-1).view(np.uint8).data


class SegmentPart(Part):
    """The rows of an existing segment, copied block by block, each block verified on the way."""

    def __init__(self, path: Path, rows: int, checksum: int, specs: Sequence[TensorSpec]) -> None:
        self.rows = rows
        self._path = path
        self._layout = _Layout.read(path, rows, checksum, specs)

    def pieces(self, spec: TensorSpec) -> Iterator[bytes | memoryview]:
        """The bytes of a tensor, in order, read with no more than a block in memory."""
        offset, length = self._layout.tensors[spec.name]
        checksums = self._layout.checksums[spec.name]
        block_bytes = BLOCK_BYTES[spec.name]
        with self._path.open("rb") as file:
            file.seek(offset)
            for block, checksum in enumerate(checksums):
                data = file.read(min(block_bytes, length - block * block_bytes))
                if _native.crc32c(data) != checksum:
                    raise IndexDamagedError.of(self._path, f"block {block} of {spec.name} does not match its checksum")
                yield data


class Segment:
    """A segment open for reading: its tensors mapped, their blocks verified when they are first used.

    Raises:
        IndexDamagedError: the file is missing, or its size, header or checksums are not those that were written.
    """

    def __init__(self, path: Path, first_row: int, rows: int, checksum: int, specs: Sequence[TensorSpec]) -> None:
        self.first_row = first_row
        self.rows = rows
        self._path = path
        self._layout = _Layout.read(path, rows, checksum, specs)
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            # Merged into another one since its layout was read.
            raise IndexDamagedError.of(path, "it is missing") from None
        self._specs = {spec.name: spec for spec in specs}
        self._verified = {name: np.zeros(len(sums), np.bool_) for name, sums in self._layout.checksums.items()}
        self._lock = threading.Lock()

    def tensor(self, name: str) -> NDArray[Any]:
        """A whole tensor ``(rows, …)``, verified."""
        self._verify(name, None)
        return self._view(name)

    def rows_of(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A whole tensor ``(rows, …)``, of which only some rows (numbers within the segment) are verified."""
        first = rows.ravel() * self._specs[name].row_bytes
        last = first + self._specs[name].row_bytes - 1
        touched = np.concatenate([first, last]) // BLOCK_BYTES[name]
        span = (last - first).max(initial=0) // BLOCK_BYTES[name]
        # A row longer than a block has blocks between its first and its last.
        between = [first // BLOCK_BYTES[name] + i for i in range(1, int(span))]
        self._verify(name, np.unique(np.concatenate([touched, *between])))
        return self._view(name)

    def _view(self, name: str) -> NDArray[Any]:
        spec = self._specs[name]
        offset, _ = self._layout.tensors[name]
        count = int(np.prod((self.rows, *spec.row_shape), dtype=int))
        return np.frombuffer(self._map, spec.dtype, count, offset).reshape(self.rows, *spec.row_shape)

    def _verify(self, name: str, blocks: NDArray[np.int64] | None) -> None:
        verified = self._verified[name]
        with self._lock:
            todo = np.flatnonzero(~verified) if blocks is None else blocks[~verified[blocks]]
            if not len(todo):
                return
            offset, length = self._layout.tensors[name]
            data = np.frombuffer(self._map, np.uint8, length, offset)
            bad = _native.damaged_block(data, BLOCK_BYTES[name], self._layout.checksums[name], todo.astype(np.int64))
            if bad is not None:
                raise IndexDamagedError.of(self._path, f"block {bad} of {name} does not match its checksum")
            verified[todo] = True


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a segment's tensors are, ``(offset, bytes)``, and the checksums of their blocks."""

    tensors: dict[str, tuple[int, int]]
    checksums: dict[str, NDArray[np.uint32]]

    @classmethod
    def read(cls, path: Path, rows: int, checksum: int, specs: Sequence[TensorSpec]) -> _Layout:
        """Read the header and the checksums of a segment; both must be those that the catalogue vouches for."""
        expected = _header(specs, rows)
        if path.is_symlink():
            raise IndexDamagedError.of(path, "it is a symbolic link")
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                header = file.read(len(expected))
                if header != expected:
                    raise IndexDamagedError.of(path, _header_problem(header, size))
                tensors, offset = {}, len(header)
                for spec in specs:
                    tensors[spec.name] = (offset, rows * spec.row_bytes)
                    offset += rows * spec.row_bytes
                counts = {spec.name: -(-rows * spec.row_bytes // BLOCK_BYTES[spec.name]) for spec in specs}
                if size != offset + 4 * sum(counts.values()):
                    raise IndexDamagedError.of(
                        path, f"it has {size} bytes instead of {offset + 4 * sum(counts.values())}"
                    )
                file.seek(offset)
                digest = bytearray(header)
                checksums = {}
                for name, count in counts.items():
                    table = file.read(4 * count)
                    digest += table
                    checksums[name] = np.frombuffer(table, "<u4")
        except FileNotFoundError:
            raise IndexDamagedError.of(path, "it is missing") from None
        if _native.crc32c(bytes(digest)) != checksum:
            raise IndexDamagedError.of(path, "its table of checksums does not match the catalogue")
        return cls(tensors, checksums)


def _header(specs: Sequence[TensorSpec], rows: int) -> bytes:
    """The safetensors header: it follows from the tensors and the number of rows, so a reader knows all of it."""
    entries: dict[str, Any] = {}
    offset = 0

    def entry(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        nonlocal offset
        end = offset + int(dtype.itemsize * np.prod(shape, dtype=int))
        entries[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end

    for spec in specs:
        entry(spec.name, spec.dtype, (rows, *spec.row_shape))
    for spec in specs:
        entry(f"{spec.name}.crc32c", _DTYPES["U32"], (-(-rows * spec.row_bytes // BLOCK_BYTES[spec.name]),))
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _header_problem(header: bytes, size: int) -> str:
    if len(header) < 8:
        return f"it is cut short, at {size} bytes"
    length = struct.unpack("<Q", header[:8])[0]
    if length > min(size - 8, _MAX_HEADER_BYTES):
        return f"its header claims {length} bytes in a file of {size}"
    return "its header is not the one that was written"


def _checksums(data: bytes | bytearray, block_bytes: int) -> NDArray[np.uint32]:
    return _native.block_checksums(np.frombuffer(data, np.uint8), block_bytes)
