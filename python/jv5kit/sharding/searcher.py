"""A search over shards: what each finds by itself is merged into what one index would find, to the last bit.

Shards are in the order of their documents, so that ties are too. Each gives for a query the candidates that it would
have alone; those that the whole index would have are the best of them.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import numpy as np

from jv5kit import querying
from jv5kit.errors import Jv5kitError
from jv5kit.rotation import Rotation
from jv5kit.scan import Candidates, Stage
from jv5kit.sharding.published import read_published
from jv5kit.sharding.shard import ReshapedError, Shard
from jv5kit.sharding.writer import ROW_BITS
from jv5kit.storage.columns import Columns
from jv5kit.storage.snapshot import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.filters import Filter
    from jv5kit.querying import How
    from jv5kit.sharding.shard import Description
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document, Hit, Passage

    Question = tuple[str, tuple[Any, ...]]

T = TypeVar("T")

AGREE_SECONDS = 60.0
"""How long shards may take to see the same published state: a network may show a new file late."""


class Shards(Protocol):
    """The shards of an index, wherever they are."""

    def __len__(self) -> int:
        """How many there are."""

    def ask(self, questions: Mapping[int, Question]) -> dict[int, tuple[int, Any]]:
        """What some shards answer to a method of :class:`~jv5kit.sharding.shard.Shard` and its arguments each.

        Raises:
            ReshapedError: the index has another number of shards by now; these are the new ones from here on, if they
                are to be had.
        """

    def close(self) -> None:
        """Let go of them."""


class LocalShards:
    """The shards of a folder, open in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: list[Shard] = []
        self._open()

    def __len__(self) -> int:
        """See :class:`Shards`."""
        return len(self._shards)

    def ask(self, questions: Mapping[int, Question]) -> dict[int, tuple[int, Any]]:
        """See :class:`Shards`."""
        shards = self._shards
        if max(questions, default=-1) >= len(shards):
            # Another thread has taken up an index of fewer shards.
            raise ReshapedError(f"{self._folder} has {len(shards)} shards by now")
        try:
            return {
                number: getattr(shards[number], method)(*arguments) for number, (method, arguments) in questions.items()
            }
        except ReshapedError:
            self._open()
            raise

    def close(self) -> None:
        """See :class:`Shards`."""
        for shard in self._shards:
            shard.close()

    def _open(self) -> None:
        count = len(read_published(self._folder).shards)
        self._shards = [Shard(self._folder, number, count) for number in range(count)]


@dataclass(frozen=True, slots=True)
class State:
    """A published state, as the shards describe it.

    Attributes:
        checksum: tells it from others.
        shards: what each is.
        columns: of all segments, without their values.
        rotation: that queries go through.
    """

    checksum: int
    shards: Sequence[Description]
    columns: Sequence[Columns]
    rotation: Rotation | None

    @property
    def settings(self) -> Settings:
        """Of the index."""
        return self.shards[0].settings

    @property
    def fields(self) -> dict[str, list[str]]:
        """The fields of the metadata that can be filtered by, each with the types of its values."""
        return fields_of(self.columns)


class OutdatedError(Exception):
    """Answers are not of the state that was asked for."""


class Searcher:
    """The shards of an index, asked as one; safe from several threads.

    Attributes:
        state: the newest state that was seen.
    """

    def __init__(
        self, name: str, shards: Shards, encode: Callable[[Settings, Sequence[str]], NDArray[np.float32]]
    ) -> None:
        self._name = name
        self._shards = shards
        self._encode = encode
        self.state = self._describe()

    def refresh(self) -> bool:
        """Take up the newest state; returns whether there was a new one."""
        before = self.state
        question: Question = "version", ()
        # One shard knows whether there is; where others do not see it yet, their answers will say so.
        with suppress(ReshapedError):
            ((checksum, _),) = self._shards.ask({0: question}).values()
            if checksum == before.checksum:
                return False
        self.state = self._describe()
        return self.state.checksum != before.checksum

    def close(self) -> None:
        """Let go of the shards."""
        self._shards.close()

    def search(self, given: Any, how: How) -> list[Hit] | list[list[Hit]]:
        """The hits of one query, or a list of them for each of several, as :func:`jv5kit.querying.search` gives them.

        Raises:
            InputError: a query or a filter does not fit the index.
        """
        return self._ask(lambda state: self._search(state, given, how))

    def get(self, ids: Sequence[str]) -> dict[str, Document]:
        """The documents of those ids that there are."""
        found: dict[str, Document] = {}
        for part in self._ask(lambda state: self._all(state, "get", ids)):
            found |= part
        return found

    def count(self, condition: Filter) -> int:
        """How many documents a filter keeps.

        Raises:
            InputError: the filter does not fit the index.
        """

        def count(state: State) -> int:
            condition.check(state.columns)
            return sum(self._all(state, "count", condition))

        return self._ask(count)

    def _search(self, state: State, given: Any, how: How) -> list[Hit] | list[list[Hit]]:
        with Stage(how.stages, "encode"):
            encode = partial(self._encode, state.settings)
            queries = querying.queries_of(given, how.words, state.settings, state.rotation, encode)
        querying.settings_for(state.settings, queries, how)
        if how.condition is not None:
            how.condition.check(state.columns)
        if not len(queries):
            return []
        parts = self._all(state, "find", replace(queries, texts=None), replace(how, words=None, stages={}))
        for stage in {stage for part in parts for stage in part.stages}:
            slowest = max(part.stages.get(stage, 0.0) for part in parts)
            how.stages[stage] = how.stages.get(stage, 0.0) + slowest
        scores, rows = merge([part.candidates for part in parts], how.top_k * how.oversample).best(how.top_k)
        with Stage(how.stages, "documents"):
            documents, passages = self._fetch(state, np.unique(rows))
        if how.condition is not None and not documents:
            querying.warn_of_unknown(how.condition, state.fields)
        found = list(zip(scores.tolist(), rows.tolist(), strict=True))
        hits = querying.hits_of(found, documents, passages)
        return hits[0] if queries.single else hits

    def _fetch(self, state: State, rows: NDArray[np.int64]) -> tuple[dict[int, Document], dict[int, Passage | None]]:
        """The documents of some rows, and which passages of them those are."""
        of_shard = rows >> ROW_BITS
        questions: dict[int, Question] = {}
        for shard in np.unique(of_shard).tolist():
            numbers = rows[of_shard == shard] - (shard << ROW_BITS)
            questions[shard] = "fetch", (state.checksum, numbers.tolist())
        documents: dict[int, Document] = {}
        passages: dict[int, Passage | None] = {}
        for shard, (checksum, (part, spans)) in self._shards.ask(questions).items():
            if checksum != state.checksum:
                raise OutdatedError
            documents |= {(shard << ROW_BITS) + number: document for number, document in part.items()}
            passages |= {(shard << ROW_BITS) + number: passage for number, passage in spans.items()}
        return documents, passages

    def _all(self, state: State, method: str, *arguments: Any) -> list[Any]:
        """The answers of all shards, of a state, in their order."""
        question: Question = method, arguments
        answers = self._shards.ask(dict.fromkeys(range(len(self._shards)), question))
        if any(checksum != state.checksum for checksum, _ in answers.values()):
            raise OutdatedError
        return [answers[shard][1] for shard in sorted(answers)]

    def _ask(self, question: Callable[[State], T]) -> T:
        """Ask about the state that is known; where another one is published by now, ask about that."""
        while True:
            try:
                return question(self.state)
            except (OutdatedError, ReshapedError):
                self.state = self._describe()

    def _describe(self) -> State:
        """The newest state."""
        try:
            return self._agreed()
        except ReshapedError:
            return self._agreed()

    def _agreed(self) -> State:
        """The newest state, when all shards see the same one."""
        deadline = time.monotonic() + AGREE_SECONDS
        question: Question = "describe", ()
        while True:
            answers = self._shards.ask(dict.fromkeys(range(len(self._shards)), question))
            checksums = {checksum for checksum, _ in answers.values()}
            if len(checksums) == 1:
                break
            if time.monotonic() > deadline:
                raise Jv5kitError(
                    f"the shards of {self._name} have not agreed for {AGREE_SECONDS:.0f} seconds on what is published: "
                    "see whether all machines see the same folder"
                )
            time.sleep(0.02)
        shards = [answers[shard][1] for shard in sorted(answers)]
        columns = [Columns.stored(layout, _no_values) for shard in shards for layout in shard.columns]
        matrix = shards[0].rotation
        return State(checksums.pop(), shards, columns, None if matrix is None else Rotation.stored(matrix))


def merge(parts: Sequence[Candidates], count: int) -> Candidates:
    """The candidates of one index out of those of its shards, their rows numbered through all of them.

    Args:
        parts: of the shards, in their order.
        count: candidates that the index has for each query at most, where they are chosen by other keys than scores.
    """
    scores = np.concatenate([part.scores for part in parts], axis=1)
    rows = np.concatenate([part.positions + (shard << ROW_BITS) for shard, part in enumerate(parts)], axis=1)
    keys = [part.keys for part in parts if part.keys is not None]
    if len(keys) < len(parts):
        return Candidates(scores, rows)
    order = np.lexsort((rows, np.concatenate(keys, axis=1)), axis=1)[:, :count]
    return Candidates(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


def _no_values(name: str) -> NoReturn:
    raise Jv5kitError(f"the values of {name} are with the shards")
