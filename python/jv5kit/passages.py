"""Long documents into passages: overlapping parts of the text that a model reads one by one, each in full.

What the model is given of a passage has at most as many tokens as asked for: special tokens, the prompt, the title on a
line of its own, and a part of the text. (A title leaves half of the room to the text: of a longer one the beginning is
read.) A passage begins an eighth of its room before the one before it ends, or a little earlier, where a word begins.
The cuts are between tokens of the whole text, and a part of it may have other tokens than there; so the parts are
counted again, and cut shorter where they have too many.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.encoder import load_tokenizer
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from jv5kit.encoder import Encoder
    from jv5kit.types import Document

    Spans = list[tuple[int, int]]

LEAST_TOKENS = 8
"""Tokens of a passage, at least."""

MOST_DIFFERENCE = 8
"""Tokens by which a text may differ from its parts: of one that may be that near its limit, all is counted at once."""

LEAST_ROOM = 8
"""Tokens of text and title that a passage must have room for, at least."""

OVERLAP = 8
"""A passage shares one part in so many with the next one."""

BLOCK_CHARACTERS = 16_384
"""Longest text that is tokenized at once, which bounds the memory for a long one."""

_TOGETHER = 64
"""Texts that are tokenized together."""

_BLANKS = " \n\t"


@dataclass(frozen=True, slots=True)
class Split:
    """Documents as the rows of an index: one for each that is whole, one for each passage of the others.

    Attributes:
        documents: each with the text of its row.
        contents: what an encoder reads of each row.
        spans: which passage each is, as :mod:`jv5kit.storage.passages` has it.
    """

    documents: list[Document] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, NDArray[np.uint32]]:
        """The spans as a segment keeps them."""
        return {"passages": np.array(self.spans, "<u4").reshape(-1, 3)}


class Splitter:
    """Splits what is longer than a number of tokens.

    Raises:
        InputError: the model cannot read so many, or they leave no room for text.
    """

    def __init__(self, encoder: Encoder, prompt: str, tokens: int) -> None:
        checkpoint = encoder.checkpoint
        if tokens > checkpoint.max_tokens:
            raise InputError(
                f"passages={tokens} is more than the {checkpoint.max_tokens} tokens that {checkpoint.name!r} reads at "
                f"a time: give at most {checkpoint.max_tokens}"
            )
        self._tokens = tokens
        self._prompt = prompt
        self._tokenizer = load_tokenizer(checkpoint)
        self._tokenizer.no_truncation()
        # A letter, since some tokenizers make nothing of a text that is empty.
        self._always = self._count(["a"])[0] - 1
        least = self._always + LEAST_ROOM
        if tokens < least:
            raise InputError(
                f"passages={tokens} leaves no room for a text: special tokens and the prompt are {self._always} "
                f"tokens; give at least {least}"
            )

    def split(self, documents: Sequence[Document]) -> Split:
        """The rows of documents, in order."""
        rows = Split()
        starts = self._starts([document.text for document in documents])
        for document, of_text in zip(documents, starts, strict=True):
            line, spans = self._passages(document, of_text)
            for number, (start, end) in enumerate(spans, 1):
                one = document if len(spans) == 1 else replace(document, text=document.text[start:end])
                rows.documents.append(one)
                rows.contents.append(line + one.text)
                rows.spans.append((number if len(spans) > 1 else 0, start, end))
        return rows

    def _passages(self, document: Document, starts: NDArray[np.int64]) -> tuple[str, Spans]:
        """The line of the title, as each passage has it, and where the passages are."""
        text = document.text
        line = f"{document.title}\n" if document.title else ""
        near = self._always + len(starts) <= self._tokens + MOST_DIFFERENCE
        if near and self._count([line + text])[0] <= self._tokens:
            return line, [(0, len(text))]
        line = self._shortened(line)
        room = self._tokens - (self._count([line + "a"])[0] - 1)
        while True:
            spans = cut(text, starts, max(1, room))
            excess = max(self._count([line + text[start:end] for start, end in spans])) - self._tokens
            if excess <= 0 or room <= 1:
                return line, spans
            room -= excess

    def _shortened(self, line: str) -> str:
        """As much of a title's line as leaves the text half of the room."""
        (starts,) = self._starts([line])
        most = (self._tokens - self._always) // 2
        return line if len(starts) <= most else line[: int(starts[most])].rstrip() + "\n"

    def _count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text as the encoder has them, with prompt and special tokens."""
        counts: list[int] = []
        for first in range(0, len(texts), _TOGETHER):
            part = [self._prompt + text for text in texts[first : first + _TOGETHER]]
            counts += [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(part)]
        return counts

    def _starts(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Where each token of each text begins, in characters, ascending; without prompt and special tokens."""
        blocks = [(i, *block) for i, text in enumerate(texts) for block in _blocks(text)]
        starts: list[list[NDArray[np.int64]]] = [[np.empty(0, np.int64)] for _ in texts]
        for first in range(0, len(blocks), _TOGETHER):
            part = blocks[first : first + _TOGETHER]
            found = self._tokenizer.encode_batch(
                [texts[i][start:end] for i, start, end in part], add_special_tokens=False
            )
            for (i, start, _), encoding in zip(part, found, strict=True):
                starts[i].append(start + np.array([offset for offset, _ in encoding.offsets], np.int64))
        return [np.maximum.accumulate(np.concatenate(of_text)) for of_text in starts]


def cut(text: str, starts: NDArray[np.int64], room: int) -> Spans:
    """Cut a text into overlapping spans of at most ``room`` tokens, ``(start, end)`` in characters, that cover it.

    Args:
        text: the text.
        starts: where its tokens begin, ascending; several may begin at one place, and are not parted.
        room: tokens of a span, at least 1.
    """
    count = len(starts)
    if count <= room:
        return [(0, len(text))]
    overlap = room // OVERLAP
    # Tokens before which a text may be cut, and those of them that begin a word.
    places = np.flatnonzero(np.diff(starts)) + 1
    begin_words = (text[start - 1].isspace() or text[start].isspace() for start in starts[places].tolist())
    words = places[np.fromiter(begin_words, np.bool_, len(places))]
    spans: Spans = []
    first, end = 0, 0
    while count - first > room:
        end = (
            _last(words, first + room // 2 + 1, first + room)
            or _last(places, first + 1, first + room)
            or _first(places, first + 1, count)
            or count
        )
        spans.append((first, end))
        if end == count:
            break
        earliest = first + 1
        first = (
            _last(words, max(earliest, end - 2 * overlap), end - overlap)
            or _last(places, earliest, end - overlap)
            or end
        )
    else:
        # The last one reaches back, so that it is as long as the others.
        spans.append((_first(words, count - room, first) or first, count))
    return [(int(starts[a]) if a else 0, int(starts[b]) if b < count else len(text)) for a, b in spans]


def _last(places: NDArray[np.int64], low: int, high: int) -> int | None:
    """The last of some places, ascending, from ``low`` to ``high``."""
    found = int(places.searchsorted(high, "right")) - 1
    return int(places[found]) if found >= 0 and places[found] >= low else None


def _first(places: NDArray[np.int64], low: int, high: int) -> int | None:
    """The first of some places, ascending, from ``low`` to ``high``."""
    found = int(places.searchsorted(low))
    return int(places[found]) if found < len(places) and places[found] <= high else None


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Consecutive parts of a text, cut before blanks where there are some."""
    start = 0
    while len(text) - start > BLOCK_CHARACTERS:
        limit = start + BLOCK_CHARACTERS
        end = max(text.rfind(blank, start + 1, limit) for blank in _BLANKS)
        end = end if end > 0 else limit
        yield start, end
        start = end
    yield start, len(text)
