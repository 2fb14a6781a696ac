"""The file of an index's graph: hnswlib's own format, which trusts its file, so it is verified before it is loaded."""

from __future__ import annotations

import importlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jv5kit import _native
from jv5kit.errors import IndexDamagedError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GRAPHS = "graphs"

BLOCK_BYTES = 16 << 20
"""Bytes that are read and summed at a time."""


@dataclass(frozen=True, slots=True)
class GraphRecord:
    """A graph as the catalogue knows it.

    Attributes:
        number: names its file.
        end: the graph holds the rows of documents below this number.
        rows: how many it holds.
        size: bytes of the file.
        checksum: CRC32C of the checksums of its blocks.
    """

    number: int
    end: int
    rows: int
    size: int
    checksum: int

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The record that a state has, None if it has no graph."""
        return cls(**json.loads(text)) if text else None

    def to_json(self) -> str:
        """The record as a state keeps it."""
        return json.dumps(asdict(self))

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.number:06d}.hnsw"


class Graph:
    """A graph, loaded and verified when it is first used."""

    def __init__(self, path: Path, dim: int, record: GraphRecord) -> None:
        self.record = record
        self._path = path
        self._dim = dim
        self._lock = threading.Lock()
        self._loaded: Any = None

    def loaded(self) -> Any:
        """Hnswlib's index, its labels the numbers of documents.

        Raises:
            IndexDamagedError: the file is missing, or not what was written.
            MissingExtraError: hnswlib is not installed.
        """
        with self._lock:
            if self._loaded is None:
                check_graph(self._path, self.record)
                self._loaded = new_graph(self._dim)
                self._loaded.load_index(str(self._path))
            return self._loaded

    def nearest(
        self, queries: NDArray[np.float32], count: int, width: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """The ``count`` nearest rows to each query that a search among ``width`` candidates finds.

        Returns:
            Numbers and distances, both ``(q, count)``; None where it finds fewer.
        """
        graph = self.loaded()
        # The width is a setting of the graph, not of a query: another thread must not change it in between.
        with self._lock:
            graph.set_ef(width)
            try:
                labels, distances = graph.knn_query(queries, count)
            except RuntimeError:
                # hnswlib's way to say that it has found fewer.
                return None
        return labels.astype(np.int64), distances


def hnswlib() -> Any:
    """The library that graphs are made with.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("hnswlib")
    except ModuleNotFoundError:
        raise MissingExtraError("approximate search needs hnswlib: pip install 'jv5kit[hnsw]'") from None


def new_graph(dim: int) -> Any:
    """An empty graph for unit rows, whose distance is one minus the cosine.

    Raises:
        MissingExtraError: hnswlib is not installed.
    """
    return hnswlib().Index("ip", dim)


def check_graph(path: Path, record: GraphRecord) -> None:
    """Refuse a file that is not the one that was written.

    Raises:
        IndexDamagedError: the file is missing, a symbolic link, or has other bytes.
    """
    if path.is_symlink() or path.parent.is_symlink():
        raise IndexDamagedError.of(path, "it is, or is reached by, a symbolic link")
    try:
        found = file_checksum(path)
    except FileNotFoundError:
        raise IndexDamagedError.of(path, "it is missing") from None
    if found != (record.size, record.checksum):
        raise IndexDamagedError.of(path, "it does not match its checksum")


def save_graph(path: Path, graph: Any) -> tuple[int, int]:
    """Write, fsync and name a graph; its size and checksum."""
    unnamed = path.with_suffix(".tmp")
    graph.save_index(str(unnamed))
    with unnamed.open("rb") as file:
        os.fsync(file.fileno())
    found = file_checksum(unnamed)
    unnamed.replace(path)
    return found


def file_checksum(path: Path) -> tuple[int, int]:
    """Size of a file, and CRC32C of the checksums of its blocks."""
    size, sums = 0, bytearray()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            size += len(block)
            sums += _native.block_checksums(np.frombuffer(block, np.uint8), 1 << 20).astype("<u4").tobytes()
    return size, _native.crc32c(bytes(sums))
