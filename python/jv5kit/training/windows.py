"""Which rows of a source go into a batch together: all of them once an epoch, no text twice, near length together.

Rows are taken in a shuffled order, a window of several batches at a time. What a row repeats of a batch moves it into
another one, or into the next window; it stays where it is only where no other place is left in its epoch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.training.permutation import Permutation, digest_of, seed_of
from jv5kit.training.rows import Labeled, Pair, Scored, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.training.rows import Row, Source

WINDOW = 16
"""Batches that are planned together; rows for one more are taken, which may stand in for those that fit nowhere."""

READ = 1024
"""Rows whose texts are in memory at a time while a window is planned."""

TOKEN_CHARACTERS = 4
"""Characters of a token, about."""

LEAST_ROWS = 2
"""Rows of a batch by tokens at least, whatever their length: a row alone has nothing to be told from."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row as far as its place matters: its position, what must not be in a batch twice, and its tokens."""

    position: int
    keys: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a source was gone through: all that its next window depends on.

    Attributes:
        epoch: counts from 0.
        place: rows of the epoch's order that were taken before the window.
        carried: positions of rows that were taken, but found no place before the window.
    """

    epoch: int = 0
    place: int = 0
    carried: tuple[int, ...] = ()


class Bin:
    """A batch that is being filled."""

    def __init__(self) -> None:
        self.rows: list[Candidate] = []
        self.tokens = 0
        self._keys: Counter[int] = Counter()

    def takes(self, row: Candidate) -> bool:
        """Whether the row repeats nothing that is in the batch."""
        return not any(key in self._keys for key in row.keys)

    def add(self, row: Candidate) -> None:
        """Take a row, whatever it repeats."""
        self.rows.append(row)
        self.tokens += row.tokens
        self._keys.update(set(row.keys))

    def pop(self, index: int = -1) -> Candidate:
        """Give a row away."""
        row = self.rows.pop(index)
        self.tokens -= row.tokens
        # A key that is counted no more is not there.
        self._keys = self._keys - Counter(set(row.keys))
        return row


def settle(row: Candidate, one: Bin, bins: Sequence[Bin]) -> None:
    """Give a row the free place in a batch.

    Where it repeats something there, it goes into another batch for a row that does not; where no exchange helps, a
    text is in the batch twice.
    """
    if not one.takes(row):
        for other in bins:
            if other is not one and other.takes(row):
                index = next((i for i, there in enumerate(other.rows) if one.takes(there)), None)
                if index is not None:
                    moved = other.pop(index)
                    other.add(row)
                    row = moved
                    break
    one.add(row)


class Windows:
    """The batches of one source, without end.

    Args:
        source: not empty.
        size: rows a batch; where ``tokens`` cuts, at most.
        tokens: a budget for a batch; None cuts by ``size`` alone.
        negatives: texts that are drawn against each labeled row.
        key: what the order depends on.
    """

    def __init__(self, source: Source, size: int, *, tokens: int | None, negatives: int, key: Sequence[object]) -> None:
        self._source, self._size, self._tokens, self._negatives = source, min(size, len(source)), tokens, negatives
        self._key = tuple(key)
        self.restore(Cursor(), 0)
        self._permutation = (-1, Permutation(1, ()))

    def restore(self, cursor: Cursor, given: int) -> None:
        """Go on where another run was: at a window, of which so many batches were given out."""
        self.cursor, self.given = cursor, given
        self._planned: list[list[int]] | None = None
        self._after = cursor

    def __next__(self) -> list[int]:
        """The positions of the next batch."""
        while self._planned is None or self.given == len(self._planned):
            if self._planned is not None:
                self.cursor, self.given = self._after, 0
            self._planned, self._after = self._plan()
        self.given += 1
        return self._planned[self.given - 1]

    def _plan(self) -> tuple[list[list[int]], Cursor]:
        """The batches of the window at the cursor, and the cursor after it."""
        at, count = self.cursor, len(self._source)
        stop = min(count, at.place + max(self._size, (WINDOW + 1) * self._size - len(at.carried)))
        if count - stop < self._size:
            # No small window at the end of an epoch.
            stop = count
        last = stop == count
        rows = self._candidates([*at.carried, *self._order(at.epoch, at.place, stop)])
        if self._tokens is None:
            bins, rest = self._fill(rows, last=last)
            after = self._complete(bins, Cursor(at.epoch + 1)) if last else Cursor(at.epoch, stop)
        else:
            bins, rest = self._cut(rows, self._tokens, last=last)
            after = Cursor(at.epoch + 1) if last else Cursor(at.epoch, stop)
            # Sorted by length so far.
            random = np.random.default_rng(seed_of("batches", *self._key, at.epoch, at.place))
            bins = [bins[i] for i in random.permutation(len(bins))]
        carried = (*after.carried, *(row.position for row in rest))
        return [[row.position for row in one.rows] for one in bins], Cursor(after.epoch, after.place, carried)

    def _order(self, epoch: int, start: int, stop: int) -> list[int]:
        """The rows at some places of an epoch's order."""
        if self._permutation[0] != epoch:
            self._permutation = (epoch, Permutation(len(self._source), ("rows", *self._key, epoch)))
        places: list[int] = self._permutation[1](start, stop).tolist()
        return places

    def _candidates(self, positions: Sequence[int]) -> list[Candidate]:
        """Rows in the order of their positions; a labeled one that is alone with its labels cannot be an anchor."""
        labels, found = self._source.labels, []
        for start in range(0, len(positions), READ):
            part = positions[start : start + READ]
            for position, row in zip(part, self._source.rows(part), strict=True):
                alone = isinstance(row, Labeled) and labels and all(labels.count(label) < 2 for label in row.labels)
                if not alone:
                    found.append(self._candidate(position, row))
        return found

    def _candidate(self, position: int, row: Row) -> Candidate:
        texts, once = _texts_of(row)
        limit = self._source.length or 1 << 30
        tokens = sum(min(limit, -(-len(text) // TOKEN_CHARACTERS)) for text in texts)
        if isinstance(row, Labeled):
            # The texts that will be drawn to it are about as long.
            tokens *= 2 + self._negatives
        return Candidate(position, tuple(map(digest_of, once)), tokens)

    def _fill(self, rows: Sequence[Candidate], *, last: bool) -> tuple[list[Bin], list[Candidate]]:
        """Batches of ``size`` rows, each row in the first that takes it, and the rows that are to be carried.

        The last window of an epoch has a place for every row; the last batch may be smaller.
        """
        count = -(-len(rows) // self._size) if last else min(WINDOW, len(rows) // self._size)
        bins = [Bin() for _ in range(count)]
        room, rest = list(bins), []
        for row in rows:
            found = next((one for one in room if one.takes(row)), None)
            if found is None:
                rest.append(row)
            else:
                found.add(row)
                if len(found.rows) == self._size:
                    room.remove(found)
        for one in room:
            while len(one.rows) < self._size and rest:
                settle(rest.pop(0), one, bins)
        # One at most is smaller, the last: what fills it up comes after all rows of the epoch.
        short = [one for one in bins if len(one.rows) < self._size]
        while len(short) > 1:
            settle(short[-1].pop(), short[0], bins)
            short = [one for one in short if 0 < len(one.rows) < self._size]
        return sorted([one for one in bins if one.rows], key=lambda one: len(one.rows) < self._size), rest

    def _complete(self, bins: Sequence[Bin], after: Cursor) -> Cursor:
        """Fill what is not full at the end of an epoch with the first rows of the next one, and say how far it got."""
        place, carried = after.place, list(after.carried)
        for one in bins:
            while (missing := self._size - len(one.rows)) and place < len(self._source) and len(carried) < self._size:
                stop = min(len(self._source), place + missing)
                for row in self._candidates(self._order(after.epoch, place, stop)):
                    if one.takes(row):
                        one.add(row)
                    else:
                        carried.append(row.position)
                place = stop
        return Cursor(after.epoch, place, tuple(carried))

    def _cut(self, rows: Sequence[Candidate], budget: int, *, last: bool) -> tuple[list[Bin], list[Candidate]]:
        """Batches of rows of near length within a budget, and the rows that are to be carried."""
        bins: list[Bin] = []
        waiting = sorted(rows, key=lambda row: row.tokens)
        while waiting:
            one, later = Bin(), []
            for i, row in enumerate(waiting):
                over = len(one.rows) >= LEAST_ROWS and one.tokens + row.tokens > budget
                if over or len(one.rows) == self._size:
                    later += waiting[i:]
                    break
                if one.takes(row):
                    one.add(row)
                else:
                    later.append(row)
            bins.append(one)
            waiting = later
        # What is left alone, by its length or by what it repeats, waits for a window; then it goes where it fits best.
        whole = [one for one in bins if len(one.rows) >= LEAST_ROWS] or bins[:1]
        rest = [one.rows[0] for one in bins if one not in whole]
        if not last:
            carried, alone = set(self.cursor.carried), rest
            rest = [row for row in alone if row.position not in carried]
            self._place([row for row in alone if row.position in carried], whole)
            return whole, rest
        self._place(rest, whole)
        return whole, []

    def _place(self, rows: Sequence[Candidate], bins: Sequence[Bin]) -> None:
        for row in rows:
            open_bins = [one for one in bins if len(one.rows) < self._size] or bins
            settle(row, min(open_bins, key=lambda one: (not one.takes(row), one.tokens)), bins)


def _texts_of(row: Row) -> tuple[Sequence[str], Sequence[str]]:
    """All texts of a row, and those that no other row of a batch should have."""
    match row:
        case Pair():
            return (row.anchor, row.positive, *row.negatives), (row.anchor, row.positive)
        case Scored():
            # One sentence may be in many pairs: each has its score.
            return (row.sentence1, row.sentence2), ()
        case Labeled() | Text():
            return (row.text,), (row.text,)
