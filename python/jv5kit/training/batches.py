"""Which rows a training step gets: the same for the same seed, and the same again after a restart.

A batch comes from one source, drawn by the weights of the sources, whatever their sizes: of two with weights 1 and 3,
one gives a quarter of the batches. Each source is gone through in a shuffled order, every row once an epoch, before any
comes again (:mod:`jv5kit.training.windows`). Everything that is random is a function of the seed and a number (of the
batch, or of the epoch), so that a few numbers are all there is to keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.errors import InputError
from jv5kit.training.permutation import seed_of
from jv5kit.training.rows import Labeled, Pair
from jv5kit.training.windows import Cursor, Windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.random import Generator

    from jv5kit.training.labels import LabelGroups
    from jv5kit.training.rows import Row, Source

TRIES = 32
"""Rounds of draws for rows that share no label, before a row has fewer of them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of a step.

    Attributes:
        source: where they come from.
        positions: of the rows there; for labeled ones, of the anchors.
        rows: of the source's kind; pairs in place of labeled ones.
        number: of the batch, from 0.
    """

    source: Source
    positions: tuple[int, ...]
    rows: list[Row]
    number: int


class Batches:
    """Batches without end.

    Args:
        sources: at least one, of names that differ.
        batch: rows a batch, unless the source has its own; with ``tokens``, at most.
        seed: of everything that is random.
        tokens: a budget of tokens a batch, all texts of its rows counted, at four characters a token: rows of near
            length come together, and a batch has as many as fit. None gives every batch its number of rows.
        negatives: texts of other labels that are drawn against each row of a labeled source, whose batches are pairs:
            a text, another one of one of its labels, and these.

    Raises:
        InputError: there is no source that is to be used, two have one name, or a number is too small.
    """

    def __init__(
        self, sources: Sequence[Source], batch: int, *, seed: int, tokens: int | None = None, negatives: int = 7
    ) -> None:
        names = [source.name for source in sources]
        for name, value, least in (("batch", batch, 1), ("tokens", tokens, 1), ("negatives", negatives, 0)):
            if value is not None and value < least:
                raise InputError(f"{name}={value}; it must be at least {least}")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"two sources have the name {twice!r}; give one of them another")
        self.sources, self.number, self._seed, self._negatives = list(sources), 0, seed, negatives
        bounds = np.cumsum([source.weight for source in sources])
        if not len(bounds) or bounds[-1] == 0:
            raise InputError("there is no source with a weight above 0")
        self._bounds = bounds / bounds[-1]
        self._settings = {"seed": seed, "batch": batch, "tokens": tokens, "negatives": negatives}
        self._windows = [
            Windows(source, source.batch or batch, tokens=tokens, negatives=negatives, key=(seed, source.name))
            for source in sources
        ]

    def __iter__(self) -> Batches:
        """The batches themselves: each is given out once."""
        return self

    def __next__(self) -> Batch:
        """The next batch."""
        drawn = (seed_of("source", self._seed, self.number) >> 11) / 2.0**53
        index = int(np.searchsorted(self._bounds, drawn, "right"))
        source = self.sources[index]
        positions = next(self._windows[index])
        rows = source.rows(positions)
        if source.labels is not None:
            random = np.random.default_rng(seed_of("labels", self._seed, self.number))
            rows = self._drawn(source, source.labels, positions, rows, random)
        self.number += 1
        return Batch(source, tuple(positions), rows, self.number - 1)

    def _drawn(
        self, source: Source, groups: LabelGroups, positions: Sequence[int], rows: Sequence[Row], random: Generator
    ) -> list[Row]:
        """Each row with a positive and negatives, drawn at random (section 3.4 of the paper)."""
        anchors = [row for row in rows if isinstance(row, Labeled)]
        positives = []
        for position, row in zip(positions, anchors, strict=True):
            shared = [label for label in row.labels if groups.count(label) > 1]
            positives.append(groups.another(position, shared[int(random.integers(len(shared)))], random))
        against = self._against(source, groups, anchors, random)
        # All texts are read together.
        text = _texts(source, {*positives, *chain.from_iterable(against)})
        return [
            Pair(row.text, text[positive], tuple(text[position] for position in others))
            for row, positive, others in zip(anchors, positives, against, strict=True)
        ]

    def _against(
        self, source: Source, groups: LabelGroups, anchors: Sequence[Labeled], random: Generator
    ) -> list[list[int]]:
        """For each row different ones that share no label with it; fewer where so many cannot be found."""
        found: list[list[int]] = [[] for _ in anchors]
        for _ in range(TRIES):
            drawn = [
                (row, others, groups.without(row.labels, random))
                for row, others in zip(anchors, found, strict=True)
                for _ in range(self._negatives - len(others))
            ]
            if not drawn:
                break
            labels = _labels(source, {position for *_, position in drawn if position >= 0}) if groups.several else {}
            for row, others, position in drawn:
                shares = not labels.get(position, frozenset()).isdisjoint(row.labels)
                if position >= 0 and position not in others and not shares:
                    others.append(position)
        return found

    def state(self) -> dict[str, Any]:
        """Where it stands, as a small JSON object for :meth:`restore`."""
        return {
            "number": self.number,
            "settings": dict(self._settings),
            "sources": [
                {
                    "name": source.name,
                    "fingerprint": source.fingerprint(),
                    "epoch": windows.cursor.epoch,
                    "place": windows.cursor.place,
                    "carried": list(windows.cursor.carried),
                    "given": windows.given,
                }
                for source, windows in zip(self.sources, self._windows, strict=True)
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the batches that follow are those that would have followed there.

        Raises:
            InputError: the state is of other settings, or of other data.
        """
        for name, value in self._settings.items():
            if state["settings"][name] != value:
                raise InputError(f"{name} is {value}, but was {state['settings'][name]}; a run goes on as it began")
        before = [(source["name"], source["fingerprint"]) for source in state["sources"]]
        for name, fingerprint in before:
            now = next((source for source in self.sources if source.name == name), None)
            if now is None:
                raise InputError(f"the source {name} is missing; a run goes on with the data that it began with")
            if now.fingerprint() != fingerprint:
                raise InputError(f"the rows of {name} have changed; a run goes on with the data that it began with")
        if [name for name, _ in before] != [source.name for source in self.sources]:
            names = ", ".join(name for name, _ in before)
            raise InputError(f"the sources were {names}, in this order; a run goes on with the data that it began with")
        self.number = state["number"]
        for windows, source in zip(self._windows, state["sources"], strict=True):
            windows.restore(Cursor(source["epoch"], source["place"], tuple(source["carried"])), source["given"])


def _texts(source: Source, positions: set[int]) -> dict[int, str]:
    """The texts at positions of a labeled source."""
    wanted = sorted(positions)
    rows = zip(wanted, source.rows(wanted), strict=True)
    return {position: row.text for position, row in rows if isinstance(row, Labeled)}


def _labels(source: Source, positions: set[int]) -> dict[int, frozenset[str]]:
    """The labels at positions of a labeled source."""
    wanted = sorted(positions)
    rows = zip(wanted, source.rows(wanted), strict=True)
    return {position: frozenset(row.labels) for position, row in rows if isinstance(row, Labeled)}
