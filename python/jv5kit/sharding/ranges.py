"""A file of documents cut into ranges of bytes, in one pass that also counts its lines and takes its checksum."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from jv5kit.documents import refuse_ranges
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SHARD_BYTES = 4 << 20
"""Bytes of a range where no number of shards is asked for: minutes of work for a processor."""

MOST_SHARDS = 4096
"""Shards of a file of any size, where no number of them is asked for."""

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The lines that begin from byte ``start`` to the byte before ``end``; the first of them is ``first_line``."""

    start: int
    end: int
    first_line: int
    lines: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A file cut into ranges, none of them missing a byte; its checksum is a BLAKE2b of 16 bytes."""

    size: int
    checksum: str
    ranges: tuple[ByteRange, ...]

    @property
    def lines(self) -> int:
        """Lines of the file."""
        return sum(part.lines for part in self.ranges)


def cut(path: Path, shards: int | None = None) -> Cut:
    """Cut a file of documents into ranges of equal size, by default of :data:`SHARD_BYTES`.

    Raises:
        InputError: it cannot be read, or not from any byte, or it changes meanwhile.
    """
    refuse_ranges(path)
    try:
        with path.open("rb") as file:
            if not path.is_file():
                raise InputError(f"{path} is no file, and cannot be split among workers: write it to one")
            size = path.stat().st_size
            count = shards or min(max(1, -(-size // SHARD_BYTES)), MOST_SHARDS)
            digest = blake2b(digest_size=16)
            ends = [size * (i + 1) // count for i in range(count)]
            firsts, newlines = [1], 0
            for end in ends:
                # A line end that is the last byte of a range begins a line of the next one.
                while (left := end - 1 - file.tell()) > 0:
                    block = file.read(min(left, _READ_BYTES))
                    if not block:
                        raise InputError(f"{path} became shorter while it was read")
                    newlines += block.count(b"\n")
                    digest.update(block)
                firsts.append(newlines + 2 if end else 1)
            digest.update(file.read())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    bounds = zip([0, *ends], ends, firsts, firsts[1:], strict=False)
    return Cut(size, digest.hexdigest(), tuple(ByteRange(a, b, first, after - first) for a, b, first, after in bounds))
