"""An encoding job: a folder of shards, and the manifest of what they are made of, by which it can be gone on with.

::

    OUTPUT/manifest.json                      the input, the encoding, and the number of shards
    OUTPUT/embeddings-00000-of-00008.npy      float32 rows, or codes
    OUTPUT/ids-00000-of-00008.jsonl           the id of each, a JSON string a line
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from socket import gethostname
from typing import TYPE_CHECKING, Any

from jv5kit.embeddings import EmbeddingsFile
from jv5kit.encoder import CutTexts, cut_texts
from jv5kit.errors import InputError
from jv5kit.sharding.encoding import Encoding, encode_shard
from jv5kit.storage.folder import disk_errors, new_file
from jv5kit.storage.lock import WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from jv5kit.encoder import Encoder
    from jv5kit.errors import DocumentError
    from jv5kit.sharding.engines import Engine
    from jv5kit.sharding.ranges import ByteRange, Cut

MANIFEST = "manifest.json"
FORMAT = 1

_SHARDS = ("embeddings-*-of-*.npy", "ids-*-of-*.jsonl")


@dataclass(frozen=True, slots=True)
class Shard:
    """The ``number``-th range, from 0, of ``count``."""

    number: int
    count: int
    range: ByteRange

    @property
    def name(self) -> str:
        """What its files are named by."""
        return f"{self.number:05d}-of-{self.count:05d}"

    def __str__(self) -> str:
        return f"shard {self.name}"


@dataclass(frozen=True, slots=True)
class Done:
    """A shard that is there: how many documents it has, which lines were passed over, and which texts were cut."""

    shard: Shard
    documents: int
    skipped: tuple[str, ...] = ()
    cut: CutTexts = field(default_factory=CutTexts)


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

    @property
    def shards(self) -> list[Shard]:
        """All of them, in order."""
        return [Shard(number, len(self.cut.ranges), part) for number, part in enumerate(self.cut.ranges)]

    def embeddings(self, shard: Shard) -> Path:
        """The file of a shard, which is done when it is there."""
        return self.folder / f"embeddings-{shard.name}.npy"

    def ids(self, shard: Shard) -> Path:
        """The file of its ids."""
        return self.folder / f"ids-{shard.name}.jsonl"

    def manifest(self) -> dict[str, Any]:
        """What the manifest says."""
        made_of = {"shards": len(self.cut.ranges), "bytes": self.cut.size, "checksum": self.cut.checksum}
        return {"format": FORMAT, **made_of, **asdict(self.encoding)}

    @contextmanager
    def open(self, *, force: bool = False) -> Iterator[list[Done]]:
        """The right to write the folder; gives the shards that are done.

        Args:
            force: replace what is there instead of going on with it.

        Raises:
            InputError: the folder holds something else, or the shards of another job.
            IndexLockedError: another process is writing it.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = WriteLock(self.folder)
        try:
            with disk_errors(self.folder):
                self._begin(force=force)
            paths = {shard: self.embeddings(shard) for shard in self.shards}
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
        there = {one.shard for one in done}
        return engine.run(self.load, [shard for shard in self.shards if shard not in there])

    def load(self) -> Callable[[Shard], Done]:
        """What encodes a shard, with the model loaded."""
        return partial(self._encode, self.encoding.load())

    def _encode(self, encoder: Encoder, shard: Shard) -> Done:
        skipped: list[str] = []
        size = self.documents.stat().st_size if self.documents.exists() else None
        if size not in (None, self.cut.size):
            raise InputError(
                f"{self.documents} has {size} bytes on {gethostname()}, but had {self.cut.size} when it was cut into "
                "shards: every machine has to read the same file, and nobody may write it meanwhile"
            )

        def skip(error: DocumentError) -> None:
            skipped.append(str(error))

        with cut_texts() as cut:
            documents = encode_shard(
                self.documents,
                shard.range.start,
                shard.range.end,
                self.embeddings(shard),
                self.ids(shard),
                self.encoding,
                encoder,
                first_line=shard.range.first_line,
                skip=skip if self.skip_invalid else None,
            )
        return Done(shard, documents, tuple(skipped), cut)

    def _begin(self, *, force: bool) -> None:
        manifest = self.folder / MANIFEST
        begun = manifest.exists()
        if not begun and any(path.name != "lock" and path.suffix != ".tmp" for path in self.folder.iterdir()):
            raise InputError(f"{self.folder} exists and holds no embeddings of jv5kit; choose another folder")
        if begun and not force:
            self._check(read_manifest(self.folder))
        if force:
            manifest.unlink(missing_ok=True)
        self._sweep(".*.tmp", *(_SHARDS if force else ()))
        if force or not begun:
            with new_file(manifest) as file:
                file.write(json.dumps(self.manifest(), indent=1, ensure_ascii=False).encode() + b"\n")

    def _sweep(self, *patterns: str) -> None:
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _check(self, there: dict[str, Any]) -> None:
        for name, wanted in self.manifest().items():
            # A model that was moved has its fingerprint still.
            if name != "model" and there.get(name) != wanted:
                raise InputError(
                    f"{self.folder} was begun with {name} {there.get(name)!r}, not {wanted!r}: go on with the same, "
                    "name another folder, or replace it with --force"
                )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{folder} holds no embeddings of jv5kit: {path.name}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; encode again with --force") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} has a format that this jv5kit does not read: pip install --upgrade jv5kit")
    return manifest
