"""The number of the last commit, in a file of its own: what is older than it has lost something.

SQLite takes a damaged write-ahead log for one that ends earlier, and an older copy of its file for the file. Either
would answer as the index once did. So every commit is followed by its number here, before it is acknowledged; a
catalogue that is behind it is damaged, and one that is ahead of it is that of a writer that died in between.

Two slots are written in turn, each with a checksum, so that a write that is cut short leaves the other one.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from jv5kit import _native
from jv5kit.errors import IndexDamagedError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "head"

_SLOT = struct.Struct("<QI4x")


def write_head(folder: Path, commit: int) -> None:
    """Note the number of a commit: on disk when this returns."""
    descriptor = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        data = _slot(commit)
        if os.fstat(descriptor).st_size == 0:
            data, place = data + data, 0
        else:
            place = commit % 2 * _SLOT.size
        if os.pwrite(descriptor, data, place) != len(data):
            raise OSError(28, "No space left on device")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_head(folder: Path) -> int:
    """The number of the last commit that was acknowledged.

    Raises:
        IndexDamagedError: the file is missing, or not what was written.
    """
    path = folder / FILE
    if path.is_symlink():
        raise IndexDamagedError.of(path, "it is a symbolic link")
    try:
        data = path.read_bytes() if path.stat().st_size == 2 * _SLOT.size else b""
    except FileNotFoundError:
        raise IndexDamagedError.of(path, "it is missing") from None
    slots = [data[start : start + _SLOT.size] for start in (0, _SLOT.size)]
    commits = [_SLOT.unpack(slot)[0] for slot in slots if len(slot) == _SLOT.size]
    sound = [commit for commit, slot in zip(commits, slots, strict=False) if slot == _slot(commit)]
    if not sound:
        raise IndexDamagedError.of(path, "no part of it matches its checksum")
    return int(max(sound))


def _slot(commit: int) -> bytes:
    number = struct.pack("<Q", commit)
    return _SLOT.pack(commit, _native.crc32c(number))
