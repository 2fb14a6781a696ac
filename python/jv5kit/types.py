"""The nouns of the package: documents in, hits out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Precision = Literal["float32", "int8", "ubinary"]
"""How an index stores embeddings: float32 values, 8-bit integers with a scale a row, or one bit a dimension."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Rescore = Literal["int8", "codes", "none"]
"""What orders the candidates that bits find: int8 rows beside them, the bits against the float query, or nothing."""

RESCORES: tuple[Rescore, ...] = get_args(Rescore)

SearchMode = Literal["float32", "int8", "ubinary", "ubinary+int8"]
"""What a search compares a query with: rows of a precision, or bits whose candidates int8 rows rescore."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to find, under an id of its own.

    ``title`` is encoded before the text, on a line of its own; ``metadata`` is any JSON object. ``origin`` says where
    the document was read (``file:line``), for messages; it is not stored, and equal documents may differ in it.
    """

    id: str
    text: str
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    origin: str | None = field(default=None, compare=False, repr=False)

    @property
    def content(self) -> str:
        """What an encoder reads: the title, if there is one, and the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document's text: the ``number``-th, from 1 on, and its characters, ``text[start:end]``."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found, with ``score`` an estimate of the cosine in [-1, 1] as far as the stored precision knows it.

    In an index of passages, where the document has several, ``passage`` is the one that was found, and ``text`` is the
    text of that passage.
    """

    id: str
    score: float
    title: str | None
    text: str
    metadata: dict[str, Any]
    passage: Passage | None = None

    def to_dict(self) -> dict[str, Any]:
        """The hit as ``jv5kit search --json`` prints it."""
        return asdict(self)
