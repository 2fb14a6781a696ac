"""What an index is at one moment: its settings, its segments, and how many documents it has had."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jv5kit import _native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.types import Precision, Rescore


@dataclass(frozen=True, slots=True)
class Settings:
    """What built an index, so that a query is encoded the same way.

    Attributes:
        dim: dimensions stored.
        precision: how embeddings are stored.
        source_dim: dimensions of the embeddings before truncation; queries may have either.
        model: the model's name, or None where embeddings were given.
        fingerprint: of the model's files.
        query_prompt: put before each query.
        document_prompt: put before each document.
        generation: counts the indexes that were at this place; a row number means a document of one of them.
        rescore: what orders the candidates that the codes of a ubinary index find.
        rotation: checksum of the rotation that embeddings go through before truncation, or None.
        lexical: whether the texts have a lexical index.
        hnsw: whether the rows have a graph for approximate search.
        passages: tokens of a passage at most, where longer documents are split; None where they are not.
    """

    dim: int
    precision: Precision
    source_dim: int
    model: str | None = None
    fingerprint: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    generation: int = 0
    rescore: Rescore = "int8"
    rotation: int | None = None
    lexical: bool = False
    hnsw: bool = False
    passages: int | None = None

    @property
    def format(self) -> int:
        """The format of an index of these settings; those without passages stay what older versions read."""
        return 2 if self.passages is None else 3

    def to_json(self) -> str:
        """The settings as the catalogue keeps them."""
        values = asdict(self)
        if self.passages is None:
            del values["passages"]
        return json.dumps(values, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A segment as the catalogue knows it.

    Attributes:
        number: names its file.
        first_row: number of its first document.
        rows: rows in the file, deleted ones included.
        checksum: of the file's header and tables of checksums.
        layout: JSON of what the shapes of its tensors follow from, beside the settings; empty in format 1.
        deleted: rows that are deleted.
        deletions: checksum of the bitmap of those.
    """

    number: int
    first_row: int
    rows: int
    checksum: int
    layout: str = ""
    deleted: int = 0
    deletions: int = 0

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.number:06d}.safetensors"

    @property
    def live(self) -> int:
        """Rows that are not deleted."""
        return self.rows - self.deleted

    def record(self) -> tuple[int, int, int, int, str, int, int]:
        """The entry as a row of the catalogue."""
        return (self.number, self.first_row, self.rows, self.checksum, self.layout, self.deleted, self.deletions)


@dataclass(frozen=True, slots=True)
class State:
    """One committed state of an index.

    Attributes:
        settings: of the index.
        segments: in the order of their documents.
        next_row: number of the next document; numbers are never given twice.
        graph: the approximate index over some of the rows, as its own record.
        commit: counts the commits of the index.
    """

    settings: Settings
    segments: tuple[SegmentEntry, ...] = ()
    next_row: int = 0
    graph: str = ""
    commit: int = 0

    @property
    def rows(self) -> int:
        """Rows that are not deleted: one for each document, or for each of its passages."""
        return sum(segment.live for segment in self.segments)

    def digest(self) -> int:
        """The checksum that is kept beside the state."""
        return digest(self.record(), [entry.record() for entry in self.segments])

    def record(self) -> tuple[str, int, str, int]:
        """The state, but for its segments, as a row of the catalogue."""
        return (self.settings.to_json(), self.next_row, self.graph, self.commit)


def digest(record: Sequence[Any], entries: Sequence[Sequence[Any]]) -> int:
    """CRC32C of a state as it lies in the catalogue."""
    return _native.crc32c(json.dumps([list(record), [list(entry) for entry in entries]]).encode())
