"""An index in shards, searched as one: what the shards find is merged into what one index would find, to the last bit.

Documents are in the order of the shards, so that ties are in the order of the documents. A shard gives for each query
the candidates that it would give by itself; those of the whole index are the best of them all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, TypeVar

import numpy as np

from jv5kit import querying
from jv5kit.errors import InputError, Jv5kitError
from jv5kit.index_model import IndexModel
from jv5kit.rotation import Rotation
from jv5kit.scan import Candidates, Stage
from jv5kit.sharding.published import read_published
from jv5kit.sharding.shard import ReshapedError, Shard
from jv5kit.sources import id_list
from jv5kit.storage.columns import Columns
from jv5kit.storage.snapshot import fields_of
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jv5kit.encoder import Encoder
    from jv5kit.querying import How, Where
    from jv5kit.sharding.shard import Description
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document, Hit, SearchMode

    Question = tuple[str, tuple[Any, ...]]

T = TypeVar("T")

AGREE_SECONDS = 60.0
"""How long shards may take to see the same published state, on a network that shows a new file late."""

_ROW_BITS = 40
"""Bits of the number of a row within its shard; those above number the shard."""


class Shards(Protocol):
    """The shards of an index, wherever they are."""

    def __len__(self) -> int:
        """How many there are."""

    def ask(self, questions: Mapping[int, Question]) -> dict[int, tuple[int, Any]]:
        """The answers of some shards to a method of :class:`~jv5kit.sharding.shard.Shard` and its arguments each."""


class LocalShards:
    """The shards of a folder, open in this process."""

    def __init__(self, folder: Path) -> None:
        count = len(read_published(folder).shards)
        self._shards = [Shard(folder, number, count) for number in range(count)]

    def __len__(self) -> int:
        """See :class:`Shards`."""
        return len(self._shards)

    def ask(self, questions: Mapping[int, Question]) -> dict[int, tuple[int, Any]]:
        """See :class:`Shards`."""
        return {
            number: getattr(self._shards[number], method)(*arguments)
            for number, (method, arguments) in questions.items()
        }


@dataclass(frozen=True, slots=True)
class _State:
    """A published state, as its shards describe it."""

    checksum: int
    shards: Sequence[Description]
    columns: Sequence[Columns]
    rotation: Rotation | None

    @property
    def settings(self) -> Settings:
        return self.shards[0].settings


class _OutdatedError(Exception):
    """Answers are not all of the state that was asked for: ask for the newest one."""


class ShardedStore:
    """An index in shards, for reading; see :class:`jv5kit.stores.Store`."""

    def __init__(self, name: str, shards: Shards) -> None:
        self.name = name
        self._shards = shards
        self._model = IndexModel(name)
        self._state = self._describe()

    @property
    def settings(self) -> Settings:
        """What built the index."""
        return self._state.settings

    @property
    def encoder(self) -> Encoder:
        """The model that built the index, loaded when it is first used."""
        return self._model.encoder(self.settings)

    def use_encoder(self, model: Encoder | str | os.PathLike[str], /) -> None:
        """Say where the model of the index is now."""
        self._model.use(self.settings, model)

    @property
    def fields(self) -> dict[str, list[str]]:
        """The fields of the metadata that can be filtered by, each with the types of its values."""
        return fields_of(self._state.columns)

    @property
    def row_count(self) -> int:
        """Number of rows: one for each document, or for each of its passages."""
        return sum(shard.rows for shard in self._state.shards)

    def __len__(self) -> int:
        """Number of documents."""
        return sum(shard.documents for shard in self._state.shards)

    def search(
        self,
        queries: Any,
        top_k: int = 10,
        /,
        *,
        filter: Where | None = None,
        oversample: int = 4,
        hybrid: bool = False,
        words: str | Sequence[str] | None = None,
        stages: dict[str, float] | None = None,
        mode: SearchMode | None = None,
    ) -> Any:
        """Find the documents nearest to each query, see :meth:`jv5kit.Index.search`: the same hits as of one index.

        Raises:
            InputError: an argument is wrong, or the search is to be hybrid.
        """
        how = querying.How.of(top_k, filter, oversample, hybrid, words, stages, mode)
        if hybrid:
            raise InputError(
                f"{self.name} is in shards, each of which knows its own words only: for hybrid search build one index, "
                "with --lexical"
            )
        return self._ask(lambda state: self._search(state, queries, how))

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        """The documents of some ids, None for each that is not there."""
        wanted = id_list(ids)
        parts = self._ask(lambda state: self._all(state, "get", wanted))
        found: dict[str, Document] = {}
        for part in parts:
            found |= part
        return [found.get(identifier) for identifier in wanted]

    def count(self, filter: Where | None = None) -> int:
        """How many documents there are, or how many a filter keeps."""
        if filter is None:
            return len(self)
        condition = parse_filter(filter)

        def count(state: _State) -> int:
            condition.check(state.columns)
            return sum(self._all(state, "count", condition))

        return self._ask(count)

    def add(self, documents: Iterable[Any] | None = None, /, **options: Any) -> NoReturn:
        """Refuse: a document that is added would be nobody's, since shards are cut from one input."""
        raise InputError(
            f"{self.name} is in shards, which are built together: nothing can be added; build it again with --force, "
            "or index what is new by itself"
        )

    upsert = add

    def refresh(self) -> bool:
        """Take up the newest state; returns whether there was a new one."""
        before, self._state = self._state, self._describe()
        return self._state.checksum != before.checksum

    def close(self) -> None:
        """Let go of the shards."""

    def __enter__(self) -> Self:
        """It is open from its making on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _search(self, state: _State, given: Any, how: How) -> list[Hit] | list[list[Hit]]:
        """As :func:`jv5kit.querying.search`, with the scan and the documents left to the shards."""
        settings = state.settings
        with Stage(how.stages, "encode"):
            encode = partial(self._model.encode_queries, settings)
            queries = querying.queries_of(given, how.words, settings, state.rotation, encode)
        querying.scanned_settings(settings, queries, how.mode)
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
            querying.warn_of_unknown(how.condition, self.fields)
        found = list(zip(scores.tolist(), rows.tolist(), strict=True))
        hits = querying.hits_of(found, documents, passages)
        return hits[0] if queries.single else hits

    def _fetch(self, state: _State, rows: Any) -> tuple[dict[int, Any], dict[int, Any]]:
        """The documents of some rows, and which passages of them those are."""
        of_shard = rows >> _ROW_BITS
        wanted = {int(shard): rows[of_shard == shard] - (shard << _ROW_BITS) for shard in np.unique(of_shard)}
        questions = {shard: ("fetch", (state.checksum, numbers.tolist())) for shard, numbers in wanted.items()}
        documents: dict[int, Any] = {}
        passages: dict[int, Any] = {}
        for shard, (checksum, found) in self._shards.ask(questions).items():
            if checksum != state.checksum:
                raise _OutdatedError
            for collected, part in zip((documents, passages), found, strict=True):
                collected |= {(shard << _ROW_BITS) + number: value for number, value in part.items()}
        return documents, passages

    def _all(self, state: _State, method: str, *arguments: Any) -> list[Any]:
        """The answers of all shards in a state, in their order."""
        answers = self._shards.ask({shard: (method, arguments) for shard in range(len(self._shards))})
        if any(checksum != state.checksum for checksum, _ in answers.values()):
            raise _OutdatedError
        return [answers[shard][1] for shard in sorted(answers)]

    def _ask(self, question: Callable[[_State], T]) -> T:
        """Ask the state that is known; where another one is published by now, ask that."""
        while True:
            try:
                return question(self._state)
            except (_OutdatedError, ReshapedError):
                self.refresh()

    def _describe(self) -> _State:
        """The newest state, on which all shards agree."""
        deadline = time.monotonic() + AGREE_SECONDS
        while True:
            answers = self._shards.ask({shard: ("describe", ()) for shard in range(len(self._shards))})
            checksums = {checksum for checksum, _ in answers.values()}
            if len(checksums) == 1:
                break
            if time.monotonic() > deadline:
                raise Jv5kitError(
                    f"the shards of {self.name} do not agree on what is published, after {AGREE_SECONDS:.0f} seconds: "
                    "see whether all machines see the same folder"
                )
            time.sleep(0.02)
        shards = [answers[shard][1] for shard in sorted(answers)]
        columns = [Columns.stored(layout, _no_tensor) for shard in shards for layout in shard.columns]
        matrix = shards[0].rotation
        return _State(checksums.pop(), shards, columns, None if matrix is None else Rotation.stored(matrix))


def merge(parts: Sequence[Candidates], count: int) -> Candidates:
    """The candidates of one index, out of those of its shards: ``count`` of each query, if so many were chosen.

    Their positions become numbers of rows through all shards.
    """
    scores = np.concatenate([part.scores for part in parts], axis=1)
    rows = np.concatenate([part.positions + (shard << _ROW_BITS) for shard, part in enumerate(parts)], axis=1)
    keys = [part.keys for part in parts if part.keys is not None]
    if len(keys) < len(parts):
        return Candidates(scores, rows)
    order = np.lexsort((rows, np.concatenate(keys, axis=1)), axis=1)[:, :count]
    return Candidates(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


def _no_tensor(name: str) -> NoReturn:
    raise Jv5kitError(f"{name} is with the shards")
