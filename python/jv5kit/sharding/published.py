"""The state of an index in shards: which version of each shard is published, in one file that is replaced as a whole.

::

    docs.jv5s/shards.json      the published state
    docs.jv5s/000001/00002/    shard 2 as version 1 had it first: an index as :mod:`jv5kit.storage` has it
    docs.jv5s/lock             names the writer

A shard that is published is never written again: a change makes a version of its own of the shards that it meets, in
which the files that stay are links, and publishes all of it by one rename. So a reader, on whatever machine, needs no
locks and no shared memory, only the files that the state names; those of the state before are kept until the next one.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from jv5kit import _native
from jv5kit.errors import IndexDamagedError, IndexFormatError, IndexNotFoundError
from jv5kit.storage.catalog import Catalog
from jv5kit.storage.folder import fsync_path, new_file
from jv5kit.storage.snapshot import SEGMENTS, Snapshot, open_snapshot
from jv5kit.storage.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FILE = "shards.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Published:
    """A published state.

    Attributes:
        version: counts the states.
        shards: the folder of each shard within that of the index, in the order of their documents.
        digests: of what the catalogue of each says.
        before: the folders of the state before.
    """

    version: int
    shards: tuple[str, ...]
    digests: tuple[int, ...]
    before: tuple[str, ...] = ()

    @property
    def checksum(self) -> int:
        """Of all of it: another state has another one."""
        return _checksum({"format": FORMAT} | asdict(self))

    def to_bytes(self) -> bytes:
        """The state as its file has it."""
        return json.dumps({"format": FORMAT} | asdict(self) | {"checksum": self.checksum}, indent=1).encode() + b"\n"

    @classmethod
    def of_bytes(cls, path: Path, data: bytes) -> Self:
        """The state that a file has.

        Raises:
            IndexFormatError: its format is newer than this version reads.
            IndexDamagedError: it is not what was written.
        """
        try:
            record = json.loads(data)
            checksum, number = record.pop("checksum"), record["format"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IndexDamagedError.of(path, "it is not JSON, or lacks its checksum") from None
        if checksum != _checksum(record):
            raise IndexDamagedError.of(path, "it does not match its checksum")
        if number != FORMAT:
            raise IndexFormatError(
                f"{path} has format {number}; this jv5kit reads {FORMAT}: pip install --upgrade jv5kit"
            )
        return cls(record["version"], *(tuple(record[name]) for name in ("shards", "digests", "before")))


def read_published(folder: Path) -> Published:
    """The published state of an index in shards.

    Raises:
        IndexNotFoundError: the folder holds none.
        IndexFormatError: its format is newer than this version reads.
        IndexDamagedError: it is not what was written.
    """
    return Published.of_bytes(folder / FILE, read_bytes(folder))


def read_bytes(folder: Path) -> bytes:
    """The file of the published state, in its newest state on a network as well: opening it asks the server.

    Raises:
        IndexNotFoundError: there is none.
    """
    try:
        return (folder / FILE).read_bytes()
    except OSError as error:
        raise IndexNotFoundError(f"{folder} holds no index in shards: {FILE}: {error.strerror}") from None


def open_shard(folder: Path, published: Published, number: int, previous: Snapshot | None = None) -> Snapshot:
    """A shard as it is published, of which what an earlier snapshot has verified stays so.

    Raises:
        IndexDamagedError: it is missing, or not what was written.
    """
    path = folder / published.shards[number]
    try:
        snapshot = open_snapshot(path, Catalog(path, immutable=True), previous)
    except IndexNotFoundError:
        raise IndexDamagedError.of(path, f"shard {number} of {len(published.shards)} is missing") from None
    if snapshot.state.digest() != published.digests[number]:
        raise IndexDamagedError.of(path, f"shard {number} is in another state than the one that was published")
    return snapshot


def verify_shards(folder: Path, on_documents: Callable[[int], None] | None = None) -> list[str]:
    """Check every shard as it is published, as :func:`jv5kit.storage.verify.verify` does one index.

    Raises:
        IndexNotFoundError: there is no index.
        IndexFormatError: its format is newer than this version reads.
    """
    while True:
        try:
            published = read_published(folder)
        except IndexDamagedError as error:
            return [str(error)]
        problems = []
        for number, shard in enumerate(published.shards):
            try:
                open_shard(folder, published, number).catalog.close()
                problems += verify(folder / shard, on_documents, immutable=True)
            except (IndexDamagedError, IndexNotFoundError) as error:
                problems.append(str(error))
        # The files of a state go when two others were published since.
        if not problems or read_bytes(folder) == published.to_bytes():
            return problems


def publish(folder: Path, shards: Sequence[str], before: Published | None) -> Published:
    """Make some folders the shards of the index, and remove what neither this state nor the one before has."""
    digests = []
    for shard in shards:
        catalog = Catalog(folder / shard, immutable=True)
        digests.append(catalog.state().digest())
        catalog.close()
    version, old = (before.version, before.shards) if before is not None else (0, ())
    published = Published(version + 1, tuple(shards), tuple(digests), old)
    # The names of new versions before the state that has them.
    fsync_path(folder)
    with new_file(folder / FILE) as file:
        file.write(published.to_bytes())
    sweep(folder, published)
    return published


def sweep(folder: Path, published: Published | None) -> None:
    """Remove versions of shards that a state does not have, nor the one before it."""
    kept = set() if published is None else {*published.shards, *published.before}
    for path in folder.glob("[0-9]*/*"):
        if str(path.relative_to(folder)) not in kept:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("[0-9]*"):
        with suppress(OSError):
            path.rmdir()


def shard_name(version: int, number: int) -> str:
    """The folder of a shard that a version brings."""
    return str(shard_path(Path(f"{version:06d}"), number))


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is built in a folder that is to become a version."""
    return folder / f"{number:05d}"


def copy_shard(source: Path, target: Path) -> None:
    """Make a version of a shard that can be written: what is never written in place is linked."""
    (target / SEGMENTS).mkdir(parents=True)
    for path in (*source.glob("rotation-*"), *(source / SEGMENTS).iterdir()):
        _link(path, target / path.relative_to(source))
    for name in ("index.sqlite", "head"):
        _copy(source / name, target / name)
    for made in (target / SEGMENTS, target, target.parent):
        fsync_path(made)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Not every file system has links.
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    fsync_path(target)


def _checksum(record: dict[str, Any]) -> int:
    return _native.crc32c(json.dumps(record, sort_keys=True).encode())
