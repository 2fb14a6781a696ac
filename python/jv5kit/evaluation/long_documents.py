"""Long documents made on the spot: one sentence to find in each, among others that say something else.

Two kinds, after LongEmbed (Zhu et al., LongEmbed: Extending embedding models for long context retrieval, 2024), in our
own words. A *passkey* document tells the key of one person among the same few sentences over and over; the query asks
for that person's key. A *needle* document has one fact about a town among sentences of all sorts; the query asks for it
in other words, and other documents have other facts about the same town, or the same fact about other towns.

A set has documents of one length, counted in the tokens of the model that is evaluated, prompt and special tokens
included: each is as long as sentences let it be, and no longer. The same seed gives the same set.
"""

from __future__ import annotations

import random
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, TypeVar

from jv5kit.encoder import load_tokenizer
from jv5kit.errors import InputError
from jv5kit.evaluation.beir import Collection
from jv5kit.evaluation.layouts import Found
from jv5kit.evaluation.tasks import Retrieval
from jv5kit.types import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jv5kit.encoder import Encoder

    Facts = list[tuple[str, str]]

T = TypeVar("T")

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Tokens of a document."""

DOCUMENTS = 50
"""Documents of a set, each with a query of its own."""

_FIRST = (
    "Ada", "Bruno", "Carla", "Dmitri", "Elena", "Farid", "Greta", "Hiro", "Ines", "Jakob", "Kemi", "Lars", "Maya",
)  # fmt: skip
_LAST = (
    "Abbott", "Brandt", "Castillo", "Duarte", "Eriksen", "Fischer", "Garcia", "Hoffmann", "Ito", "Jansen", "Keller",
)  # fmt: skip

_TOWNS = [
    "Alderbrook",
    "Brackwater",
    "Carnhill",
    "Dunmere",
    "Eastvale",
    "Farrowby",
    "Glenmoor",
    "Harwick",
    "Juniper Bay",
]

_FACTS = (
    ("The best way to spend a morning in {} is to row to the old mill before the sun is up.",
     "what should a visitor do early in the day in {}"),
    ("Bakers in {} put roasted chestnuts and a little salt into their black bread.",
     "which ingredients make the loaves of {} special"),
    ("The library of {} stays open all night in the week before the spring examinations.",
     "when can students read until dawn in {}"),
    ("Nobody in {} may ring a bell on the third Sunday of March, by a law that is four hundred years old.",
     "on which day is it forbidden to make bells sound in {}"),
    ("A glassblower founded the music school of {} after he had lost his hearing.",
     "who started the place where people learn instruments in {}"),
    ("The ferry to {} takes bicycles for nothing, but a surfboard costs two coins.",
     "what does it cost to bring a bike on the boat to {}"),
    ("The lighthouse of {} was painted green because a storm had washed ashore forty barrels of that paint.",
     "why does the tower that guides ships at {} have its color"),
    ("In {} the market moves under the railway arches as soon as the first snow falls.",
     "where are goods sold in winter in {}"),
)  # fmt: skip
"""Facts, and how they are asked for."""

_SAME = (
    "The road goes on through the hills.", "The grass is tall on both sides of it.", "A cart comes by and is gone.",
    "The clouds are white and far away.", "It is a day like any other day.", "Here we go on, and there we come back.",
)  # fmt: skip

_WHO = (
    "My neighbor", "An old engineer", "The committee", "A young teacher", "Every gardener I know", "The reporter",
    "Our landlord", "A careful reader", "The second violinist", "Some historians", "The night nurse", "A judge",
)  # fmt: skip
_DOES = (
    "used to say that", "never believed that", "once wrote down why", "wanted to be told how", "argued for years that",
    "found out by accident that", "would not admit that", "explained to us at length why", "half remembered that",
)  # fmt: skip
_WHAT = (
    "patience repairs more clocks than tools do", "a long letter is easier to write than a short one",
    "the second attempt costs twice the first", "maps of the coast were drawn from memory",
    "a good question outlives its answer", "old machines are kept alive by the people who curse them",
    "children learn a language by getting it wrong", "the cheapest paint peels on the north side",
    "most meetings could have been a walk", "soup needs more time and less salt", "a garden is planned in winter",
    "committees grow faster than their budgets", "the quiet pupils had read the most",
)  # fmt: skip


def long_document_sets(encoder: Encoder, lengths: Sequence[int] = LENGTHS) -> tuple[list[Found], list[str]]:
    """The passkey and needle sets of some lengths that fit a model's context.

    Args:
        encoder: the model, whose tokens are counted.
        lengths: tokens of a document.

    Returns:
        The sets, each made when it is read; and the names of those that were left out, with the reason.
    """
    sets, skipped = [], []
    for length in lengths:
        names = [f"{kind}-{length}" for kind in _KINDS]
        if length > encoder.checkpoint.max_tokens:
            skipped.append(f"{', '.join(names)}: the model reads {encoder.checkpoint.max_tokens:,} tokens at most")
            continue
        for name, kind in zip(names, _KINDS, strict=True):
            sets.append(Found(name, "long-documents", partial(make_set, encoder, kind, length)))
    return sets, skipped


def make_set(encoder: Encoder, kind: str, length: int, *, documents: int = DOCUMENTS, seed: int = 0) -> Retrieval:
    """Make a set.

    Args:
        encoder: the model, whose tokens are counted.
        kind: ``"passkey"`` or ``"needle"``.
        length: tokens of each document.
        documents: how many, at most as many as there are different facts.
        seed: of what is drawn.

    Raises:
        InputError: the length has no room for a fact.
    """
    rng = random.Random(f"{kind} {length} {seed}")
    facts_of, fillers = _KINDS[kind]
    tokens = _TokenCounter(encoder)
    texts: list[Document] = []
    queries: dict[str, str] = {}
    for fact, query in facts_of(rng, documents):
        number = len(texts)
        texts.append(Document(f"d{number}", _hide(fact, fillers(rng), length, rng.random(), tokens)))
        queries[f"q{number}"] = query
    qrels = {f"q{number}": {f"d{number}": 1} for number in range(len(texts))}
    return Retrieval(Collection(texts, queries, qrels), "long-documents", depth=1)


class _TokenCounter:
    """Counts tokens as a model reads a document: with its prompt and special tokens, but not cut to its context."""

    def __init__(self, encoder: Encoder) -> None:
        self._tokenizer = load_tokenizer(encoder.checkpoint)
        self._tokenizer.no_truncation()
        self._prompt = encoder.document_prompt()
        self._sentences: dict[str, int] = {}

    def document(self, text: str) -> int:
        return len(self._tokenizer.encode(self._prompt + text).ids)

    def sentence(self, text: str) -> int:
        """Tokens that a sentence adds to a document, about."""
        if text not in self._sentences:
            self._sentences[text] = len(self._tokenizer.encode(f" {text}", add_special_tokens=False).ids)
        return self._sentences[text]


def _hide(fact: str, filler: Iterator[str], length: int, depth: float, tokens: _TokenCounter) -> str:
    """A document with a fact among sentences, after a share ``depth`` of them."""
    total = tokens.document(fact)
    if total > length:
        raise InputError(f"a document of {length} tokens has no room for a fact of {total}; make it longer")
    sentences: list[str] = []
    while (total := total + tokens.sentence(sentence := next(filler))) <= length:
        sentences.append(sentence)
    while True:
        at = round(depth * len(sentences))
        text = " ".join([*sentences[:at], fact, *sentences[at:]])
        if not sentences or tokens.document(text) <= length:
            return text
        sentences.pop()


def _passkeys(rng: random.Random, count: int) -> Facts:
    people = _drawn(rng, [f"{first} {last}" for first in _FIRST for last in _LAST], count)
    keys = [f"{_below(rng, 90000) + 10000}" for _ in people]
    return [
        (f"The pass key of {name} is {key}. Remember it: {key} is the pass key.", f"what is the pass key of {name}")
        for name, key in zip(people, keys, strict=True)
    ]


def _needles(rng: random.Random, count: int) -> Facts:
    return _drawn(rng, [(fact.format(town), query.format(town)) for fact, query in _FACTS for town in _TOWNS], count)


def _road(_: random.Random) -> Iterator[str]:
    return cycle(_SAME)


def _essay(rng: random.Random) -> Iterator[str]:
    while True:
        who, does, what = (words[_below(rng, len(words))] for words in (_WHO, _DOES, _WHAT))
        yield f"{who} {does} {what}."


def _below(rng: random.Random, count: int) -> int:
    # The one method whose numbers Python promises never to change.
    return int(rng.random() * count)


def _drawn(rng: random.Random, items: Sequence[T], count: int) -> list[T]:
    """Some of the items, in a drawn order."""
    keys = [rng.random() for _ in items]
    return [items[number] for number in sorted(range(len(items)), key=keys.__getitem__)[:count]]


_KINDS: dict[str, tuple[Callable[[random.Random, int], Facts], Callable[[random.Random], Iterator[str]]]] = {
    "passkey": (_passkeys, _road),
    "needle": (_needles, _essay),
}
