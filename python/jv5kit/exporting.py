"""An index as files that other programs read: NumPy arrays, the ids, and an index of FAISS.

The rows are those of the documents, in their order, without what was deleted. They are written block by block, so that
memory does not grow with the index; only FAISS has to keep its index in memory as a whole.
"""

from __future__ import annotations

import importlib
import json
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from numpy.lib import format as npy

from jv5kit.errors import InputError, Jv5kitError, MissingExtraError
from jv5kit.storage.catalog import ReplacedError
from jv5kit.storage.passages import passage_specs
from jv5kit.storage.vectors import vector_specs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.storage.segments import Segment
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.state import Settings

BLOCK_ROWS = 16_384
"""Rows that are written at a time."""

FILES = (
    "codes.npy",
    "rows.npy",
    "scales.npy",
    "embeddings.npy",
    "passages.npy",
    "rotation.npy",
    "ids.jsonl",
    "index.faiss",
)
"""What an export may consist of."""


def export(
    snapshot: Snapshot, folder: Path, *, faiss: bool, force: bool, on_rows: Callable[[int], None] | None
) -> list[Path]:
    """Write one state of an index into a folder, see :meth:`jv5kit.Index.export`; returns the files."""
    converted = _FaissIndex(snapshot.state.settings) if faiss else None
    if folder.resolve().is_relative_to(snapshot.catalog.path.parent.resolve()):
        raise InputError(f"{folder} is the index itself, or within it; export to another folder")
    old = [folder / name for name in FILES if (folder / name).exists()]
    if old and not force:
        raise InputError(f"{old[0]} exists; replace the export with --force (force=True), or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _Files(folder, old) as files:
            settings, count = snapshot.state.settings, snapshot.state.rows
            arrays = {
                name: files.open_array(f"{name}.npy", dtype, shape)
                for name, dtype, shape in (*vector_specs(settings, count), *passage_specs(settings, count))
            }
            ids = files.open("ids.jsonl")
            for segment, rows in _live_rows(snapshot):
                blocks = {name: np.ascontiguousarray(segment.rows_of(name, rows)[rows]) for name in arrays}
                for name, block in blocks.items():
                    arrays[name].write(block.data)
                lines = [json.dumps(one, ensure_ascii=False) for one in _ids(snapshot, segment.numbers(rows))]
                ids.write("".join(f"{line}\n" for line in lines).encode())
                if converted is not None:
                    converted.add(blocks)
                segment.release()
                if on_rows is not None:
                    on_rows(len(rows))
            if snapshot.rotation is not None:
                matrix = snapshot.rotation.matrix
                files.open_array("rotation.npy", matrix.dtype, matrix.shape).write(np.ascontiguousarray(matrix).data)
            if converted is not None:
                converted.write(files.new("index.faiss"))
            return files.close()
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from None


class _Files:
    """Files of a folder that get their names together, when all of them are written, in the place of old ones."""

    def __init__(self, folder: Path, old: Sequence[Path]) -> None:
        self._folder = folder
        self._old = old
        self._names: list[str] = []
        self._open = ExitStack()

    def new(self, name: str) -> Path:
        """The path to write a file to."""
        self._names.append(name)
        return self._unnamed(name)

    def open(self, name: str) -> IO[bytes]:
        """A new file, open for writing."""
        return self._open.enter_context(self.new(name).open("wb"))

    def open_array(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> IO[bytes]:
        """A new ``.npy`` file, its header written."""
        file = self.open(name)
        npy.write_array_header_1_0(
            file, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
        )
        return file

    def close(self) -> list[Path]:
        """Give the files their names."""
        self._open.close()
        for path in self._old:
            path.unlink()
        return [self._unnamed(name).replace(self._folder / name) for name in self._names]

    def __enter__(self) -> Self:
        """Nothing is open yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing half done behind."""
        self._open.close()
        for name in self._names:
            self._unnamed(name).unlink(missing_ok=True)

    def _unnamed(self, name: str) -> Path:
        return self._folder / f".{name}.tmp"


def _live_rows(snapshot: Snapshot) -> Iterator[tuple[Segment, NDArray[np.int64]]]:
    """Each segment with the rows that are not deleted, so many at a time."""
    for segment, deletions in zip(snapshot.segments, snapshot.deletions, strict=True):
        for start in range(0, segment.rows, BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, segment.rows))
            rows = rows[~deletions.contain(rows)]
            if len(rows):
                yield segment, rows


def _ids(snapshot: Snapshot, numbers: NDArray[np.int64]) -> list[str]:
    try:
        documents = snapshot.catalog.documents(numbers.tolist(), snapshot.state)
    except ReplacedError:
        raise Jv5kitError(
            f"{snapshot.catalog.path.parent}: documents were removed for good while they were exported; export it again"
        ) from None
    return [documents[number].id for number in numbers.tolist()]


class _FaissIndex:
    """The flat index of FAISS for the rows of an index: of codes where there are some, of inner products otherwise.

    FAISS has no rows of int8 with a scale each; they become the float32 that they stand for.

    Raises:
        MissingExtraError: FAISS is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            self._faiss = importlib.import_module("faiss")
        except ModuleNotFoundError:
            raise MissingExtraError("an index of FAISS needs faiss-cpu: pip install 'jv5kit[faiss]'") from None
        self._binary = settings.precision == "ubinary"
        make = self._faiss.IndexBinaryFlat if self._binary else self._faiss.IndexFlatIP
        self._index = make(settings.dim)

    def add(self, blocks: dict[str, NDArray[Any]]) -> None:
        """Add rows."""
        if self._binary:
            self._index.add(blocks["codes"])
        elif "embeddings" in blocks:
            self._index.add(blocks["embeddings"])
        else:
            self._index.add(blocks["rows"].astype(np.float32) * blocks["scales"][:, None])

    def write(self, path: Path) -> None:
        """Write the index."""
        (self._faiss.write_index_binary if self._binary else self._faiss.write_index)(self._index, str(path))
