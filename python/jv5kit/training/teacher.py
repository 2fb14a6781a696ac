"""A teacher's embeddings: each text is encoded once and kept on disk, for this run and for all later ones.

The cache of a teacher is a folder named by its fingerprint, with shards: safetensors files of ``keys`` (a hash of
prompt and text) and ``rows`` (float16, unit length), each with a CRC32C. Rows are checked the first time that some of
them are read, and mapped no longer than that, so that any number of shards takes one open file. A shard is written
aside and renamed, and no other is touched, so that runs may share a cache; one that is damaged is passed over, and its
texts are encoded again.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from jv5kit import _native
from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.logs import logger
from jv5kit.weights import read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from jv5kit.encoder import Encoder
    from jv5kit.weights import Tensor

KEY_BYTES = 16

SHARD_TEXTS = 16_384
"""Texts that are encoded and written together: what an interruption costs."""

Prompted = tuple[str, str]
"""A prompt, and a text that it is put before."""


@dataclass(slots=True)
class _Shard:
    path: Path
    keys: NDArray[np.uint8]
    checksum: int
    checked: bool = False

    def read(self) -> NDArray[np.float16] | None:
        """The rows, or None if they are not those that were written."""
        try:
            rows = _array(read_weights([self.path])["rows"])
        except ModelNotFoundError as error:
            if self.path.exists():
                raise
            logger.warning("%s: its texts are encoded again", error)
            return None
        if not self.checked and self.checksum != _native.crc32c(rows.tobytes()):
            logger.warning("%s is damaged: its texts are encoded again", self.path)
            return None
        self.checked = True
        return rows


class Teacher:
    """Embeddings of a model, from its cache where they are there.

    Args:
        encoder: the model; texts beyond its context are cut.
        cache: folder of the caches of all teachers.
        process: which of ``processes`` this is: each encodes its share of what is missing.
        processes: how many there are, with one cache.
        together: what encoding and writing is done in: no process leaves it before all have written.

    Raises:
        InputError: the cache has embeddings of another dimension.
    """

    def __init__(
        self,
        encoder: Encoder,
        cache: Path,
        *,
        process: int = 0,
        processes: int = 1,
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.encoder = encoder
        self.folder = cache / f"{encoder.checkpoint.fingerprint()}-{encoder.backend.dtype}"
        self._process, self._processes, self._together = process, processes, together
        self._shards: list[_Shard] = []
        self._read: set[str] = set()
        self._order = np.empty(0, np.uint64)
        self._places = np.empty((0, 2), np.int64)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._look()

    @property
    def dim(self) -> int:
        """Values of an embedding."""
        return self.encoder.dim

    def prepare(self, texts: Iterable[Prompted]) -> int:
        """Encode those texts that the cache has not, and write them to it; returns how many those were.

        A text is of one process by its key, whatever each has seen of the cache: none is done twice, or left out.

        Args:
            texts: the same in every process; a text may be there more than once.

        Raises:
            OSError: the cache cannot be written.
        """
        wanted = list(dict.fromkeys(texts))
        keys = _keys(wanted)
        # Other runs may have had them, and other processes of this one.
        self._look()
        missing = self._find(keys)[:, 0] < 0
        own = _firsts(keys) % np.uint64(self._processes) == self._process
        mine = [wanted[i] for i in np.flatnonzero(missing & own).tolist()]
        with self._together():
            for start in range(0, len(mine), SHARD_TEXTS):
                part = mine[start : start + SHARD_TEXTS]
                self._write(part, self._encode(part))
        if missing.any():
            self._look()
        return int(missing.sum())

    def rows(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        """Embeddings of unit length: ``(len(texts), dim)``; what the cache has not is encoded first."""
        wanted = [(prompt, text) for text in texts]
        keys = _keys(wanted)
        places = self._find(keys)
        found = np.empty((len(texts), self.dim), np.float32)
        for number in np.unique(places[:, 0]).tolist():
            here = places[:, 0] == number
            kept = self._shards[number].read() if number >= 0 else None
            if kept is not None:
                found[here] = kept[places[here, 1]]
                continue
            made = [wanted[i] for i in np.flatnonzero(here).tolist()]
            rows = self._encode(made)
            found[here] = rows
            self._write(made, rows)
            if number >= 0:
                self._shards[number].path.unlink(missing_ok=True)
                self._forget(number)
            self._look()
        return found

    def _encode(self, texts: Sequence[Prompted]) -> NDArray[np.float16]:
        rows = np.empty((len(texts), self.dim), np.float16)
        for prompt in dict.fromkeys(prompt for prompt, _ in texts):
            here = [i for i, (own, _) in enumerate(texts) if own == prompt]
            contents = [texts[i][1] for i in here]
            rows[here] = self.encoder.encode(contents, prompt=prompt, show_progress_bar=False)
        return rows

    def _write(self, texts: Sequence[Prompted], rows: NDArray[np.float16]) -> None:
        keys = _keys(texts)
        checksums = np.array([_native.crc32c(keys.tobytes()), _native.crc32c(rows.tobytes())], np.uint32)
        content = save({"keys": keys, "rows": rows, "crc32c": checksums.view(np.int32)})
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        aside = path.with_suffix(".tmp")
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)

    def _look(self) -> None:
        """Take up the shards that are new."""
        orders, places = [self._order], [self._places]
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._read:
                continue
            self._read.add(path.name)
            shard = self._load(path)
            if shard is not None:
                own = np.empty((len(shard.keys), 2), np.int64)
                own[:, 0], own[:, 1] = len(self._shards), np.arange(len(shard.keys))
                self._shards.append(shard)
                orders.append(_firsts(shard.keys))
                places.append(own)
        if len(orders) > 1:
            firsts, joined = np.concatenate(orders), np.concatenate(places)
            order = np.argsort(firsts, kind="stable")
            self._order, self._places = firsts[order], joined[order]

    def _load(self, path: Path) -> _Shard | None:
        try:
            tensors = read_weights([path])
            keys, rows, checksums = (_array(tensors[name]) for name in ("keys", "rows", "crc32c"))
            of_keys, of_rows = checksums.view(np.uint32).tolist()
            if of_keys != _native.crc32c(keys.tobytes()) or len(keys) != len(rows):
                raise ValueError("its keys are not those that were written")
        except (ModelNotFoundError, OSError, KeyError, ValueError) as error:
            logger.warning("%s is damaged (%s): its texts are encoded again", path, error)
            return None
        if rows.shape[1:] != (self.dim,):
            raise InputError(
                f"{path} has embeddings of {rows.shape[-1]} dimensions, the teacher {self.encoder.checkpoint.name!r} "
                f"makes {self.dim}: it is the cache of another model; remove the folder {self.folder}"
            )
        # A copy: what is mapped keeps its file open.
        return _Shard(path, keys.copy(), of_rows)

    def _forget(self, number: int) -> None:
        """Let nothing be found in a shard any more; the others keep their numbers."""
        stays = self._places[:, 0] != number
        self._order, self._places = self._order[stays], self._places[stays]

    def _find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Shard and row of each key, -1 where it is not there."""
        places = np.full((len(keys), 2), -1, np.int64)
        if not len(self._order):
            return places
        firsts = _firsts(keys)
        for i, position in enumerate(np.searchsorted(self._order, firsts).tolist()):
            # Of hashes that begin alike there may be several, one time in a million runs.
            while position < len(self._order) and self._order[position] == firsts[i]:
                shard, row = self._places[position].tolist()
                if (self._shards[shard].keys[row] == keys[i]).all():
                    places[i] = shard, row
                    break
                position += 1
        return places


def cache_folder(named: str) -> Path:
    """Where teachers' embeddings are kept."""
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("JV5KIT_CACHE") or "~/.cache/jv5kit").expanduser() / "teachers"


def _keys(texts: Sequence[Prompted]) -> NDArray[np.uint8]:
    digests = [
        hashlib.blake2b(f"{len(prompt)}\0{prompt}{text}".encode(), digest_size=KEY_BYTES).digest()
        for prompt, text in texts
    ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, KEY_BYTES)


def _firsts(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys[:, :8]).view("<u8")[:, 0].astype(np.uint64)


def _array(tensor: Tensor) -> NDArray[Any]:
    kinds: dict[str, type[np.generic]] = {"U8": np.uint8, "F16": np.float16, "I32": np.int32}
    kind, shape, content = tensor
    return content.view(kinds[kind]).reshape(shape)
