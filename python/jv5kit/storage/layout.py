"""The layout of a segment file: safetensors, whose header follows from what the catalogue says of the segment.

Beside each tensor ``name`` a tensor ``name.crc32c`` holds the checksum of each of its blocks. The catalogue holds one
checksum of the file's header and of those tables, so that nothing in the file is taken on trust, not even where it says
that its tensors are.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit import _native
from jv5kit.errors import IndexDamagedError
from jv5kit.storage.columns import Columns
from jv5kit.storage.ids import FENCE_IDS
from jv5kit.storage.passages import passage_specs
from jv5kit.storage.vectors import vector_specs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.storage.state import SegmentEntry, Settings

BLOCK_BYTES = 1 << 20
"""Bytes under one checksum, where a tensor is read as a whole."""

SMALL_BLOCK_BYTES = 16 << 10
"""Bytes under one checksum, where rows are read at random."""

_READ_AT_RANDOM = {"rows", "scales", "numbers", "ids", "id_rows", "passages"}

_FIRST = {"codes", "rows", "embeddings"}
"""Tensors that are scanned: they come first, the others after them in the order of their alignment."""

_ALIGNMENT = 64
"""The first tensor starts at a multiple of it, so that its codes start on a cache line."""

_MAX_HEADER_BYTES = 1 << 20
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (4, 8)},
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of a tensor."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the tensor."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first axis."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    @property
    def block_bytes(self) -> int:
        """Bytes under one checksum."""
        return SMALL_BLOCK_BYTES if self.name in _READ_AT_RANDOM else BLOCK_BYTES

    @property
    def blocks(self) -> int:
        """Number of its checksums."""
        return -(-self.bytes // self.block_bytes)


def segment_specs(settings: Settings, entry: SegmentEntry) -> list[TensorSpec]:
    """All tensors of a segment, in the order of the file."""
    rows = entry.rows
    vectors = [TensorSpec(*spec) for spec in vector_specs(settings, rows)]
    if not entry.layout:
        return vectors  # format 1
    layout = json.loads(entry.layout)
    specs = [
        *vectors,
        TensorSpec("ids", np.dtype("<u8"), (rows,)),
        TensorSpec("id_fences", np.dtype("<u8"), (-(-rows // FENCE_IDS),)),
        TensorSpec("id_rows", np.dtype("<u4"), (rows,)),
        *(TensorSpec(*spec) for spec in passage_specs(settings, rows)),
        *(TensorSpec(*spec) for spec in Columns.tensor_specs(layout["columns"])),
    ]
    if layout["sparse"]:
        specs.append(TensorSpec("numbers", np.dtype("<u4"), (rows,)))
    specs.sort(key=lambda spec: -spec.dtype.itemsize if spec.name not in _FIRST else -64)
    first = [spec for spec in specs if spec.name in _FIRST]
    unaligned = -sum(spec.bytes for spec in first) % 8
    if unaligned:
        specs.insert(len(first), TensorSpec("padding", np.dtype("u1"), (unaligned,)))
    return specs


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a segment's tensors are, ``(offset, spec)``, and the checksums of their blocks."""

    tensors: dict[str, tuple[int, TensorSpec]]
    checksums: dict[str, NDArray[np.uint32]]

    @classmethod
    def read(cls, path: Path, checksum: int, specs: Sequence[TensorSpec]) -> Layout:
        """Read the header and the checksums of a segment; both must be those that the catalogue vouches for.

        Raises:
            IndexDamagedError: they are not, or the file is missing, of another size, or a symbolic link.
        """
        expected = header_of(specs)
        if path.is_symlink() or path.parent.is_symlink():
            raise IndexDamagedError.of(path, "it is, or is reached by, a symbolic link")
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                header = file.read(len(expected))
                if header != expected:
                    raise IndexDamagedError.of(path, _header_problem(header, size))
                tensors, offset = {}, len(header)
                for spec in specs:
                    tensors[spec.name] = (offset, spec)
                    offset += spec.bytes
                whole = offset + 4 * sum(spec.blocks for spec in specs)
                if size != whole:
                    raise IndexDamagedError.of(path, f"it has {size} bytes instead of {whole}")
                file.seek(offset)
                digest = bytearray(header)
                checksums = {}
                for spec in specs:
                    table = file.read(4 * spec.blocks)
                    digest += table
                    checksums[spec.name] = np.frombuffer(table, "<u4")
        except FileNotFoundError:
            raise IndexDamagedError.of(path, "it is missing") from None
        if _native.crc32c(bytes(digest)) != checksum:
            raise IndexDamagedError.of(path, "its table of checksums does not match the catalogue")
        return cls(tensors, checksums)


def header_of(specs: Sequence[TensorSpec]) -> bytes:
    """The safetensors header: it follows from the tensors, so a reader knows all of it."""
    entries: dict[str, Any] = {}
    offset = 0

    def entry(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        nonlocal offset
        end = offset + dtype.itemsize * math.prod(shape)
        entries[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end

    for spec in specs:
        entry(spec.name, spec.dtype, spec.shape)
    for spec in specs:
        entry(f"{spec.name}.crc32c", _DTYPES["U32"], (spec.blocks,))
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
