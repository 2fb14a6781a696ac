"""The folder of an index: what may be in it, when it may be made, what is swept from it, and what the disk says."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from jv5kit.errors import IndexExistsError, InputError, Jv5kitError
from jv5kit.storage.catalog import FILE, Catalog
from jv5kit.storage.graphs import GRAPHS, GraphRecord
from jv5kit.storage.rotations import rotation_file
from jv5kit.storage.snapshot import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jv5kit.storage.state import State

_OUR_FILES = re.compile(
    rf"lock|head|{SEGMENTS}|{GRAPHS}|rotation-[0-9a-f]{{8}}\.(safetensors|tmp)|{re.escape(FILE)}(\.tmp)?(-wal|-shm|-journal)?"
)

_SEGMENT_FILE = re.compile(r"\d{6,}\.(safetensors|tmp)")
_FILE_BESIDE = re.compile(r"\d{6,}\.(hnsw|tmp)|rotation-[0-9a-f]{8}\.(safetensors|tmp)")


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a path where a new index cannot be made.

    Raises:
        IndexExistsError: it holds an index (and ``force`` is false), or something else, which is never replaced.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or not all(_OUR_FILES.fullmatch(path.name) for path in folder.iterdir()):
        raise IndexExistsError(f"{folder} exists and is no jv5kit index; choose another path")
    if (folder / FILE).exists() and not force:
        try:
            opened = Catalog(folder)
            state = opened.state()
            count = f"{state.rows} {'documents' if state.settings.passages is None else 'passages'}"
            opened.close()
        except Jv5kitError as error:
            count = f"unreadable: {error}"
        raise IndexExistsError(
            f"{folder} is an index already ({count}); "
            "add to it with --append (Index.add), or replace it with --force (force=True)"
        )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error of ours that names the index."""
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} cannot be written: {error}") from error
    except OSError as error:
        raise Jv5kitError(f"{folder} cannot be written: {error}; what was committed is safe") from error


def fsync_path(path: Path) -> None:
    """Make what is in a file, or the names in a folder, last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which has its name and lasts when the block ends, and is never seen before, nor in part.

    Any number of processes may write the same path: one of them comes last.
    """
    unnamed = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with unnamed.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unnamed.replace(path)
        fsync_path(path.parent)
    finally:
        unnamed.unlink(missing_ok=True)


def sweep(folder: Path, state: State) -> None:
    """Remove what no transaction named: a writer died between naming a file and registering it."""
    known = {entry.file_name for entry in state.segments}
    for path in (folder / SEGMENTS).glob("*"):
        if path.name not in known and _SEGMENT_FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)
    sweep_beside(folder, state)


def sweep_beside(folder: Path, state: State) -> None:
    """Remove graphs and rotations that are not those of a state."""
    record, rotation = GraphRecord.of(state.graph), state.settings.rotation
    known = {record.file_name if record else None, rotation_file(rotation) if rotation is not None else None}
    for path in (*(folder / GRAPHS).glob("*"), *folder.glob("rotation-*")):
        if path.name not in known and _FILE_BESIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)
