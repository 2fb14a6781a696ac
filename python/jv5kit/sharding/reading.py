"""The embeddings of a folder of shards as one array, read slice by slice, with their ids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.embeddings import EmbeddingsFile
from jv5kit.errors import InputError
from jv5kit.sharding.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.types import Document


class EmbeddingsFolder:
    """What :mod:`jv5kit.sharding.encode_job` wrote, in the order of the input.

    Raises:
        InputError: it is no such folder, or a shard is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        count = read_manifest(folder / MANIFEST)["shards"]
        names = [f"{number:05d}-of-{count:05d}" for number in range(count)]
        for name in names:
            for path in (folder / f"embeddings-{name}.npy", folder / f"ids-{name}.jsonl"):
                if not path.exists():
                    raise InputError(
                        f"{path} is missing: {folder} is not encoded to its end, or has lost it; run the same "
                        "'jv5kit encode' again, which makes what is not there"
                    )
        self._files = [EmbeddingsFile(folder / f"embeddings-{name}.npy") for name in names]
        self.ids = _Ids([folder / f"ids-{name}.jsonl" for name in names], [len(file) for file in self._files])
        self.dtype = self._files[0].dtype
        self.shape = (len(self.ids), self._files[0].shape[1])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """A slice of consecutive rows."""
        parts = self.ids.split(rows)
        return np.concatenate([self._files[shard][part] for shard, part in parts] or [self._files[0][:0]])

    def matched(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Documents, in step with the ids.

        Raises:
            InputError: a document is not the one that has the next embedding.
        """
        ids = iter(self.ids)
        for row, document in enumerate(documents):
            # That there are more documents than embeddings is noticed where both are counted.
            if (identifier := next(ids, document.id)) != document.id:
                raise InputError(
                    f"{document.origin}: the document {document.id!r} is not the one of row {row} of the embeddings, "
                    f"{identifier!r}: index the file that was encoded, and pass over what was passed over"
                )
            yield document


class _Ids:
    """Ids in several files, one of which is in memory at a time."""

    def __init__(self, paths: list[Path], counts: list[int]) -> None:
        self._paths = paths
        self._ends = np.cumsum(counts).tolist()
        self._read: tuple[int, list[str]] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[str]:
        for shard in range(len(self._paths)):
            yield from self._of(shard)

    def __getitem__(self, rows: slice) -> list[str]:
        return [one for shard, part in self.split(rows) for one in self._of(shard)[part]]

    def split(self, rows: slice) -> Iterator[tuple[int, slice]]:
        """The shards that hold some rows, each with those within it."""
        start, stop, _ = rows.indices(len(self))
        first = 0
        for shard, end in enumerate(self._ends):
            if start < end and stop > first:
                yield shard, slice(max(0, start - first), min(stop, end) - first)
            first = end

    def _of(self, shard: int) -> list[str]:
        if self._read is None or self._read[0] != shard:
            path = self._paths[shard]
            try:
                ids = [str(json.loads(line)) for line in path.read_bytes().splitlines()]
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{path} is damaged: {error}; remove it and its embeddings, and encode again"
                ) from None
            count = self._ends[shard] - (self._ends[shard - 1] if shard else 0)
            if len(ids) != count:
                raise InputError(f"{path} has {len(ids)} ids for {count} embeddings: remove both, and encode again")
            self._read = shard, ids
        return self._read[1]
