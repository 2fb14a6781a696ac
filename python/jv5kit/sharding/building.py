"""New shards of an index: built apart, checked against one another, and published together.

::

    docs.jv5s/building/00002/    shard 2, whole, of an index that is not published yet

What was built is kept beside an index that it is to replace. When all shards are there, their folder is renamed to the
version that it becomes.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np

from jv5kit import building
from jv5kit.errors import DuplicateError, IndexExistsError, InputError, Jv5kitError
from jv5kit.sharding.published import FILE, open_shard, publish, read_published, shard_name, shard_path, sweep
from jv5kit.storage.catalog import Catalog
from jv5kit.storage.folder import disk_errors, fsync_path
from jv5kit.storage.ids import candidates
from jv5kit.storage.lock import WriteLock
from jv5kit.storage.snapshot import open_snapshot
from jv5kit.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jv5kit.rotation import Rotation
    from jv5kit.sharding.published import Published
    from jv5kit.sources import Source
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.state import Settings

BUILDING = "building"


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a path where an index in shards cannot be made.

    Raises:
        IndexExistsError: it holds one (and ``force`` is false), or something else, which is never replaced.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    ours = (FILE, BUILDING, "lock")
    if not folder.is_dir() or not all(
        path.name in ours or path.name.isdecimal() or path.suffix == ".tmp" for path in folder.iterdir()
    ):
        raise IndexExistsError(f"{folder} exists and is no index in shards; choose another path")
    if (folder / FILE).exists() and not force:
        try:
            published = read_published(folder)
            numbers = range(len(published.shards))
            found = f"{sum(open_shard(folder, published, number).documents for number in numbers)} documents"
        except Jv5kitError as error:
            found = f"unreadable: {error}"
        raise IndexExistsError(
            f"{folder} is an index already ({found}); "
            "add to it with --append (Index.add), or replace it with --force (force=True)"
        )


@contextmanager
def new_shards(folder: Path, *, force: bool) -> Iterator[Path]:
    """The right to make an index in shards; gives the folder to build them in.

    Raises:
        IndexExistsError: see :func:`check_free`.
        IndexLockedError: another process is writing there.
    """
    check_free(folder, force=force)
    with disk_errors(folder):
        (folder / BUILDING).mkdir(parents=True, exist_ok=True)
        lock = WriteLock(folder)
        for path in (folder / BUILDING).glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)
    try:
        yield folder / BUILDING
    finally:
        lock.release()


def build_shard(
    path: Path,
    settings: Settings,
    source: Source,
    rotation: Rotation | None = None,
    skip: Callable[[InputError], None] | None = None,
) -> int:
    """Build a shard, which is whole when it is there; returns how many documents it has.

    Args:
        path: of the shard.
        settings: of the index.
        source: its documents.
        rotation: that embeddings go through.
        skip: called with the error of each document that cannot be used, which is passed over; None raises it.
    """
    unnamed = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with building.whole(Writer.create(unnamed, settings, force=False, journal="delete")) as writer:
            if rotation is not None:
                writer.set_rotation(rotation)
            added = building.add(writer, source, skip=skip, show_progress_bar=False)
        with disk_errors(path):
            # Another attempt may have been first, and ended before it could say so.
            if not path.exists():
                unnamed.replace(path)
            fsync_path(path.parent)
    finally:
        shutil.rmtree(unnamed, ignore_errors=True)
    return added.documents


def settle_duplicates(folder: Path, count: int, refused: Callable[[DuplicateError], None] | None) -> None:
    """Take documents out of shards that have the id of a document in an earlier one.

    Args:
        folder: that the shards were built in.
        count: how many there are.
        refused: called with the error of each such document; None raises it.

    Raises:
        DuplicateError: there is such a document.
    """
    snapshots = []
    for number in range(count):
        path = shard_path(folder, number)
        snapshots.append(open_snapshot(path, Catalog(path, immutable=True)))
    hashes = [np.unique(np.concatenate([_EMPTY, *(one.tensor("ids") for one in shot.segments)])) for shot in snapshots]
    found, times = np.unique(np.concatenate(hashes), return_counts=True)
    repeated = found[times > 1]
    earlier: set[str] = set()
    for number, snapshot in enumerate(snapshots):
        own = _with_hashes(snapshot, repeated)
        snapshot.catalog.close()
        taken = sorted(own.keys() & earlier)
        for identifier in taken:
            error = DuplicateError(f"the id {identifier!r} of a document in shard {number} is taken by an earlier one")
            if refused is None:
                raise error
            refused(error)
        earlier |= own.keys()
        if taken:
            writer = Writer.open(shard_path(folder, number), journal="delete")
            writer.delete([row for identifier in taken for row in own[identifier]])
            writer.abandon()


def publish_built(folder: Path, count: int) -> Published:
    """Make the shards that were built the index."""
    try:
        before = read_published(folder)
    except Jv5kitError:
        # There was none, or what cannot be read is replaced.
        before = None
    version = 1 if before is None else before.version + 1
    with disk_errors(folder):
        sweep(folder, before)
        named = folder / f"{version:06d}"
        (folder / BUILDING).replace(named)
        try:
            return publish(folder, [shard_name(version, number) for number in range(count)], before)
        except BaseException:
            # The same job goes on with it, unless it is published.
            with suppress(OSError, Jv5kitError):
                if not (folder / FILE).exists() or read_published(folder) == before:
                    named.replace(folder / BUILDING)
            raise


_EMPTY = np.empty(0, np.uint64)


def _with_hashes(snapshot: Snapshot, hashes: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> dict[str, list[int]]:
    """The rows of the documents whose ids have one of some hashes, by id."""
    rows: list[int] = []
    for segment, deletions in zip(snapshot.segments, snapshot.deletions, strict=True):
        local = candidates(segment, hashes)
        rows += segment.numbers(local[~deletions.contain(local)]).tolist()
    found: dict[str, list[int]] = {}
    for row, document in snapshot.catalog.documents(rows, snapshot.state).items():
        found.setdefault(document.id, []).append(row)
    return found
