"""The pieces of a job over a file of documents: one for each range of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from socket import gethostname
from typing import TYPE_CHECKING

from jv5kit.encoder import CutTexts
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from jv5kit.sharding.ranges import ByteRange, Cut


@dataclass(frozen=True, slots=True)
class Piece:
    """The shard that the ``number``-th range, from 0, of ``count`` becomes."""

    number: int
    count: int
    range: ByteRange

    @property
    def name(self) -> str:
        """What files are named by."""
        return f"{self.number:05d}-of-{self.count:05d}"

    def __str__(self) -> str:
        return f"shard {self.name}"


@dataclass(frozen=True, slots=True)
class Done:
    """A piece that is done: how many documents it has, what was passed over and why, and which texts were cut."""

    piece: Piece
    documents: int
    skipped: tuple[str, ...] = ()
    cut: CutTexts = field(default_factory=CutTexts)


def pieces_of(cut: Cut) -> list[Piece]:
    """All pieces of a file, in order."""
    return [Piece(number, len(cut.ranges), part) for number, part in enumerate(cut.ranges)]


def check_unchanged(documents: Path, cut: Cut) -> None:
    """Refuse a file that is not the one that was cut, as far as its size tells.

    Raises:
        InputError: it has another size, on this machine or by now.
    """
    size = documents.stat().st_size if documents.exists() else cut.size
    if size != cut.size:
        raise InputError(
            f"{documents} has {size} bytes on {gethostname()}, but had {cut.size} when it was cut into shards: every "
            "machine has to read the same file, and nobody may write it meanwhile"
        )
