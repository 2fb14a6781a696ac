"""Which rows of a segment are deleted: a bitmap, kept in blocks so that a deletion writes little whatever went before.

The checksum of a bitmap is the sum of those of its blocks, so a block can be exchanged without reading the others.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from jv5kit import _native

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

BLOCK_ROWS = 8192
"""Rows in a block: 1 KiB of bitmap."""

_BLOCK_BYTES = BLOCK_ROWS // 8


class Deletions:
    """The deleted rows of a segment; immutable.

    Attributes:
        bits: uint8, one bit a row, the first row in the lowest bit of the first byte; None where nothing is deleted.
        count: how many rows are deleted.
        checksum: of the bitmap.
    """

    def __init__(self, rows: int, bits: NDArray[np.uint8] | None = None, count: int = 0, checksum: int = 0) -> None:
        self.rows = rows
        self.bits = bits
        self.count = count
        self.checksum = checksum

    @classmethod
    def of_blocks(cls, rows: int, blocks: Mapping[int, bytes]) -> Deletions:
        """The deletions that the catalogue has; blocks of another size or place leave a wrong checksum behind."""
        bits = np.zeros(-(-rows // 8), np.uint8)
        checksum = 0
        for block, data in blocks.items():
            place = bits[block * _BLOCK_BYTES : (block + 1) * _BLOCK_BYTES]
            if isinstance(data, bytes) and block >= 0 and len(data) == len(place):
                place[:] = np.frombuffer(data, np.uint8)
                checksum = (checksum + _block_checksum(block, data)) % 2**32
        return cls(rows, bits, int.from_bytes(bits.tobytes()).bit_count(), checksum)

    def with_rows(self, rows: NDArray[np.int64]) -> tuple[Deletions, dict[int, bytes]]:
        """These deletions and those of more rows, with the blocks that changed."""
        bits = np.zeros(-(-self.rows // 8), np.uint8) if self.bits is None else self.bits.copy()
        checksum = self.checksum
        changed = {}
        blocks = np.unique(rows // BLOCK_ROWS).tolist()
        before = {block: bits[block * _BLOCK_BYTES : (block + 1) * _BLOCK_BYTES].tobytes() for block in blocks}
        np.bitwise_or.at(bits, rows // 8, (1 << (rows % 8)).astype(np.uint8))
        count = self.count
        for block in blocks:
            data = bits[block * _BLOCK_BYTES : (block + 1) * _BLOCK_BYTES].tobytes()
            changed[block] = data
            if any(before[block]):
                checksum -= _block_checksum(block, before[block])
            checksum += _block_checksum(block, data)
            count += int.from_bytes(data).bit_count() - int.from_bytes(before[block]).bit_count()
        return Deletions(self.rows, bits, count, checksum % 2**32), changed

    def contain(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of some rows is deleted."""
        if self.bits is None:
            return np.zeros(len(rows), np.bool_)
        return (self.bits[rows // 8] >> (rows % 8).astype(np.uint8) & 1).astype(np.bool_)

    def kept(self) -> NDArray[np.bool_] | None:
        """One flag a row, true where it is not deleted; None where nothing is."""
        if self.bits is None:
            return None
        return np.asarray(np.unpackbits(self.bits, count=self.rows, bitorder="little") == 0)

    @cached_property
    def kept_bits(self) -> NDArray[np.uint8] | None:
        """The flags of :meth:`kept` as a bitmap; None where nothing is deleted."""
        if self.bits is None:
            return None
        kept = ~self.bits
        if self.rows % 8:
            kept[-1] &= (1 << self.rows % 8) - 1
        return kept


def _block_checksum(block: int, data: bytes) -> int:
    return _native.crc32c(struct.pack("<Q", block) + data)
