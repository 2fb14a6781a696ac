"""The rotation of an index: a file of its own, whose checksum is among the settings and in its name."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING

import numpy as np

from jv5kit import _native
from jv5kit.errors import IndexDamagedError
from jv5kit.rotation import Rotation

if TYPE_CHECKING:
    from pathlib import Path

    from jv5kit.storage.state import Settings


def rotation_file(checksum: int) -> str:
    """The name of the file of a rotation."""
    return f"rotation-{checksum:08x}.safetensors"


def write_rotation(folder: Path, rotation: Rotation) -> int:
    """Write, fsync and name a rotation; its checksum for the settings."""
    data = _header(len(rotation.matrix)) + np.ascontiguousarray(rotation.matrix, "<f4").tobytes()
    checksum = _native.crc32c(data)
    path = folder / rotation_file(checksum)
    unnamed = path.with_suffix(".tmp")
    with unnamed.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unnamed.replace(path)
    return checksum


def read_rotation(folder: Path, settings: Settings) -> Rotation | None:
    """The rotation of an index, verified; None if it has none.

    Raises:
        IndexDamagedError: its file is missing, or not what was written.
    """
    if settings.rotation is None:
        return None
    path = folder / rotation_file(settings.rotation)
    header = _header(settings.source_dim)
    if path.is_symlink():
        raise IndexDamagedError.of(path, "it is a symbolic link")
    try:
        with path.open("rb") as file:
            data = file.read(len(header) + 4 * settings.source_dim**2 + 1)
    except FileNotFoundError:
        raise IndexDamagedError.of(path, "it is missing") from None
    if _native.crc32c(data) != settings.rotation or not data.startswith(header):
        raise IndexDamagedError.of(path, "it does not match its checksum")
    matrix = np.frombuffer(data, "<f4", offset=len(header))
    return Rotation.stored(matrix.reshape(settings.source_dim, settings.source_dim))


def _header(dim: int) -> bytes:
    tensor = {"rotation": {"dtype": "F32", "shape": [dim, dim], "data_offsets": [0, 4 * dim * dim]}}
    text = json.dumps(tensor, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return struct.pack("<Q", len(text)) + text
