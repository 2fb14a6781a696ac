"""An encoding job: a folder of shards, and the manifest of what they are made of, by which it can be gone on with.

::

    OUTPUT/manifest.json                      the input, the encoding, and the number of shards
    OUTPUT/embeddings-00000-of-00008.npy      float32 rows, or codes
    OUTPUT/ids-00000-of-00008.jsonl           the id of each, a JSON string a line
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from jv5kit.embeddings import EmbeddingsFile
from jv5kit.encoder import cut_texts
from jv5kit.errors import InputError
from jv5kit.sharding.encoding import Encoding, encode_shard
from jv5kit.sharding.manifest import MANIFEST, goes_on, write_manifest
from jv5kit.sharding.pieces import Done, Piece, check_unchanged, pieces_of
from jv5kit.storage.folder import disk_errors
from jv5kit.storage.lock import WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from jv5kit.encoder import Encoder
    from jv5kit.errors import DocumentError
    from jv5kit.sharding.engines import Engine
    from jv5kit.sharding.ranges import Cut

_SHARDS = ("embeddings-*-of-*.npy", "ids-*-of-*.jsonl")


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """What is to be encoded, how, and where to.

    Attributes:
        documents: the input.
        cut: its ranges.
        encoding: how it is encoded.
        folder: for the shards.
        skip_invalid: pass over lines that cannot be used, instead of ending in an error.
    """

    documents: Path
    cut: Cut
    encoding: Encoding
    folder: Path
    skip_invalid: bool = False

    def embeddings(self, piece: Piece) -> Path:
        """The file of a piece, which is done when it is there."""
        return self.folder / f"embeddings-{piece.name}.npy"

    def ids(self, piece: Piece) -> Path:
        """The file of its ids."""
        return self.folder / f"ids-{piece.name}.jsonl"

    def manifest(self) -> dict[str, Any]:
        """What the manifest says."""
        made_of = {"shards": len(self.cut.ranges), "bytes": self.cut.size, "checksum": self.cut.checksum}
        return made_of | asdict(self.encoding)

    @contextmanager
    def open(self, *, force: bool = False) -> Iterator[list[Done]]:
        """The right to write the folder; gives the shards that are done.

        Args:
            force: replace the shards of another job.

        Raises:
            InputError: the folder holds something else, or the shards of another job.
            IndexLockedError: another process is writing it.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Before anything is written: what somebody else has there may be named as ours is.
            self._check_own()
            lock = WriteLock(self.folder)
        try:
            with disk_errors(self.folder):
                self._begin(force=force)
            paths = {piece: self.embeddings(piece) for piece in pieces_of(self.cut)}
            yield [
                Done(one, len(EmbeddingsFile(path)))
                for one, path in paths.items()
                if path.exists() and self.ids(one).exists()
            ]
        finally:
            # The folder has the same files, whatever happened on the way.
            self._sweep(".*.tmp", "lock")
            lock.release()

    def run(self, done: list[Done], engine: Engine) -> Generator[Done]:
        """Encode the shards that are not done; each is safe when it is given.

        Raises:
            DocumentError: a line cannot be used.
            Jv5kitError: the disk is full, or workers died.
        """
        there = {one.piece for one in done}
        return engine.run(self.load, [piece for piece in pieces_of(self.cut) if piece not in there])

    def load(self) -> Callable[[Piece], Done]:
        """What encodes a shard, with the model loaded."""
        return partial(self._encode, self.encoding.load())

    def _encode(self, encoder: Encoder, piece: Piece) -> Done:
        check_unchanged(self.documents, self.cut)
        skipped: list[str] = []

        def skip(error: DocumentError) -> None:
            skipped.append(str(error))

        with cut_texts() as cut:
            documents = encode_shard(
                self.documents,
                piece.range.start,
                piece.range.end,
                self.embeddings(piece),
                self.ids(piece),
                self.encoding,
                encoder,
                first_line=piece.range.first_line,
                skip=skip if self.skip_invalid else None,
            )
        return Done(piece, documents, tuple(skipped), cut)

    def _check_own(self) -> None:
        """Refuse a folder that holds something else."""
        # Another job may be beginning, or have ended before it had a manifest.
        ours = {"lock", MANIFEST, *(one.name for one in self.folder.glob(f".{MANIFEST}.*.tmp"))}
        if not (self.folder / MANIFEST).exists() and any(one.name not in ours for one in self.folder.iterdir()):
            raise InputError(f"{self.folder} exists and holds no embeddings of jv5kit; choose another folder")

    def _begin(self, *, force: bool) -> None:
        path = self.folder / MANIFEST
        self._sweep(".*.tmp")
        if not goes_on(path, self.manifest(), force=force):
            self._sweep(*_SHARDS)
            write_manifest(path, self.manifest())

    def _sweep(self, *patterns: str) -> None:
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
