"""An indexing job: an index in shards, each of them built of a range of a file of documents.

What is done of it stays where it is built, with a manifest, until all of it is published; the same job goes on with it.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jv5kit import _native
from jv5kit.building import ROTATION_SAMPLE, add, whole
from jv5kit.documents import read_documents, read_range
from jv5kit.encoder import cut_texts
from jv5kit.sharding.building import BUILDING, build_shard, new_shards, publish_built, settle_duplicates
from jv5kit.sharding.manifest import MANIFEST, goes_on, write_manifest
from jv5kit.sharding.pieces import Done, Piece, check_unchanged, pieces_of
from jv5kit.sharding.published import shard_path
from jv5kit.sources import Source
from jv5kit.storage.catalog import Catalog
from jv5kit.storage.snapshot import open_snapshot
from jv5kit.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from jv5kit.encoder import Encoder
    from jv5kit.errors import DuplicateError, InputError
    from jv5kit.rotation import Rotation
    from jv5kit.sharding.encoding import Encoding
    from jv5kit.sharding.engines import Engine
    from jv5kit.sharding.published import Published
    from jv5kit.sharding.ranges import Cut
    from jv5kit.storage.state import Settings


@dataclass(frozen=True, slots=True)
class IndexJob:
    """What is to be indexed, how, and where to.

    Attributes:
        documents: the input.
        cut: its ranges.
        encoding: how it is encoded.
        settings: of the index.
        folder: of the index.
        rotation: that embeddings go through.
        skip_invalid: pass over documents that cannot be used, instead of ending in an error.
    """

    documents: Path
    cut: Cut
    encoding: Encoding
    settings: Settings
    folder: Path
    rotation: Rotation | None = None
    skip_invalid: bool = False

    @contextmanager
    def open(self, *, force: bool = False) -> Iterator[list[Done]]:
        """The right to build the index; gives the shards that are done.

        Args:
            force: replace an index that is there, or the shards of another job.

        Raises:
            IndexExistsError: the path is taken.
            InputError: the folder holds the shards of another job.
            IndexLockedError: another process is writing there.
        """
        with new_shards(self.folder, force=force) as place:
            if not goes_on(place / MANIFEST, self.manifest(), force=force):
                shutil.rmtree(place)
                place.mkdir()
                write_manifest(place / MANIFEST, self.manifest())
            yield [
                Done(piece, _documents(shard_path(place, piece.number)))
                for piece in pieces_of(self.cut)
                if shard_path(place, piece.number).exists()
            ]

    def manifest(self) -> dict[str, Any]:
        """What the manifest says."""
        made_of = {"shards": len(self.cut.ranges), "bytes": self.cut.size, "checksum": self.cut.checksum}
        rotation = None if self.rotation is None else _native.crc32c(self.rotation.matrix.tobytes())
        return made_of | asdict(self.settings) | {"dtype": self.encoding.dtype, "rotation": rotation}

    def run(self, done: list[Done], engine: Engine) -> Generator[Done]:
        """Build the shards that are not done; each is safe when it is given.

        Raises:
            InputError: a document cannot be used.
            Jv5kitError: the disk is full, or workers died.
        """
        there = {one.piece for one in done}
        return engine.run(self.load, [piece for piece in pieces_of(self.cut) if piece not in there])

    def publish(self, refused: Callable[[DuplicateError], None]) -> Published:
        """Make the shards the index, when all are done.

        Args:
            refused: called with the error of each document whose id an earlier shard has, where they are passed over.

        Raises:
            DuplicateError: there is such a document.
        """
        place, count = self.folder / BUILDING, len(self.cut.ranges)
        settle_duplicates(place, count, refused if self.skip_invalid else None)
        published = publish_built(self.folder, count)
        (self.folder / published.shards[0]).with_name(MANIFEST).unlink(missing_ok=True)
        return published

    def load(self) -> Callable[[Piece], Done]:
        """What builds a shard, with the model loaded."""
        return partial(self._build, self.encoding.load())

    def _build(self, encoder: Encoder, piece: Piece) -> Done:
        check_unchanged(self.documents, self.cut)
        skipped: list[str] = []

        def note(error: InputError) -> None:
            skipped.append(str(error))

        skip = note if self.skip_invalid else None
        part = piece.range
        documents = read_range(self.documents, part.start, part.end, first_line=part.first_line, skip=skip)
        path = shard_path(self.folder / BUILDING, piece.number)
        with cut_texts() as cut:
            count = build_shard(path, self.settings, Source(documents, encoder), self.rotation, skip)
        return Done(piece, count, tuple(skipped), cut)


def fitted_rotation(documents: Path, encoder: Encoder, settings: Settings, *, skip_invalid: bool) -> Rotation:
    """The rotation that one index of a file of documents would have: fitted on the first of them.

    Raises:
        InputError: there is no document, or one that cannot be used.
    """

    def passed_over(_: InputError) -> None:
        """The shards will tell."""

    skip = passed_over if skip_invalid else None
    first = islice(read_documents(documents, skip), ROTATION_SAMPLE)
    with TemporaryDirectory() as folder, whole(Writer.create(Path(folder) / "first", settings, force=False)) as writer:
        add(writer, Source(first, encoder), rotate=True, skip=skip, show_progress_bar=False)
        assert writer.rotation is not None
        return writer.rotation


def _documents(path: Path) -> int:
    """Documents of a shard that is built."""
    snapshot = open_snapshot(path, Catalog(path, immutable=True))
    snapshot.catalog.close()
    return snapshot.documents
