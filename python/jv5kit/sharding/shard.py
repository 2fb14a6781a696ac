"""A shard open for reading, and what it answers: its part of a search, which the others' parts complete.

Every answer comes with the checksum of the published state that it is of, so that answers of several shards are known
to belong together.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import IndexDamagedError, Jv5kitError
from jv5kit.scan import Candidates, Rows, Stage, candidates, code_candidates
from jv5kit.search_modes import in_mode
from jv5kit.sharding.published import FILE, Published, open_shard, read_bytes
from jv5kit.storage.passages import passage_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.filters import Filter
    from jv5kit.querying import How, Queries
    from jv5kit.storage.columns import Layout
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document, Passage


@dataclass(frozen=True, slots=True)
class Description:
    """What a shard is.

    Attributes:
        settings: of the index.
        documents: how many it has.
        rows: how many those have.
        bytes: of its files.
        columns: the layouts of the columns of its segments.
        rotation: that queries go through, or None.
    """

    settings: Settings
    documents: int
    rows: int
    bytes: int
    columns: list[Layout]
    rotation: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a shard finds.

    Attributes:
        candidates: of its rows, whose positions are their numbers here.
        stages: the milliseconds of each stage.
    """

    candidates: Candidates
    stages: dict[str, float] = field(default_factory=dict)


class ReshapedError(Jv5kitError):
    """The index has another number of shards by now."""


class Shard:
    """A shard of the index in a folder, in its newest published state; safe from several threads.

    Every method raises :class:`ReshapedError` where the index is no longer one of ``count`` shards.
    """

    def __init__(self, folder: Path, number: int, count: int) -> None:
        self._folder = folder
        self._number = number
        self._count = count
        self._lock = threading.Lock()
        self._data = b""
        self._snapshots: dict[int, Snapshot] = {}

    def version(self) -> tuple[int, None]:
        """The published state, by its checksum alone."""
        return self._newest()[0], None

    def describe(self) -> tuple[int, Description]:
        """What it is."""
        checksum, snapshot = self._newest()
        state = snapshot.state
        files = (path for path in snapshot.catalog.path.parent.rglob("*") if path.is_file())
        return checksum, Description(
            state.settings,
            snapshot.documents,
            state.rows,
            sum(path.stat().st_size for path in files),
            [json.loads(entry.layout)["columns"] for entry in state.segments],
            None if snapshot.rotation is None else snapshot.rotation.matrix,
        )

    def find(self, queries: Queries, how: How) -> tuple[int, Found]:
        """The candidates of queries, which fit the index, and whose filter was checked against all of it."""
        state, snapshot = self._newest()
        stages: dict[str, float] = {}
        settings = in_mode(snapshot.state.settings, how.mode)
        if not snapshot.segments:
            empty = np.empty((len(queries), 0), np.int64)
            return state, Found(Candidates(empty.astype(np.float32), empty, empty))
        with Stage(stages, "filter"):
            rows = Rows(settings, snapshot.segments, snapshot.unchecked_masks(how.condition))
        if queries.codes is not None:
            found = code_candidates(rows, queries.codes, how.top_k, stages)
        else:
            found = candidates(rows, queries.embeddings, how.top_k, how.oversample, stages)
        return state, Found(Candidates(found.scores, rows.numbers(found.positions), found.keys), stages)

    def fetch(
        self, state: int, numbers: Sequence[int]
    ) -> tuple[int, tuple[dict[int, Document], dict[int, Passage | None]]]:
        """The documents of rows that a state has, and which passages of them those are.

        The state before the newest one is known still; of an older one the answer is of another state, and empty.
        """
        snapshot = self._snapshots.get(state)
        if snapshot is None:
            # Another one was asked before, or this one has lost what it had open.
            newest, snapshot = self._newest()
            if newest != state:
                return newest, ({}, {})
        documents = snapshot.catalog.documents(numbers, snapshot.state)
        spans = snapshot.passages(np.array(numbers, np.int64)).tolist()
        return state, (documents, {one: passage_of(span) for one, span in zip(numbers, spans, strict=True)})

    def get(self, ids: Sequence[str]) -> tuple[int, dict[str, Document]]:
        """The documents of those ids that it has."""
        state, snapshot = self._newest()
        return state, {identifier: document for identifier, (_, document) in snapshot.find(ids).items()}

    def count(self, condition: Filter) -> tuple[int, int]:
        """How many documents a filter keeps, which was checked against the whole index."""
        state, snapshot = self._newest()
        return state, snapshot.count_documents(snapshot.numbers(snapshot.unchecked_masks(condition)))

    def close(self) -> None:
        """Close its files."""
        for snapshot in self._snapshots.values():
            snapshot.catalog.close()

    def _newest(self) -> tuple[int, Snapshot]:
        """The published state, open, and its checksum."""
        while True:
            data = read_bytes(self._folder)
            with self._lock:
                if data == self._data:
                    return next(reversed(self._snapshots.items()))
                published = Published.of_bytes(self._folder / FILE, data)
                if len(published.shards) != self._count:
                    raise ReshapedError(
                        f"{self._folder} has {len(published.shards)} shards by now, not {self._count}: publish it "
                        "again, with 'jv5kit publish'"
                    )
                last = dict([*self._snapshots.items()][-1:])
                try:
                    opened = open_shard(self._folder, published, self._number, *last.values())
                except IndexDamagedError:
                    # Another state may have been published, and this one swept, while it was opened.
                    if read_bytes(self._folder) == data:
                        raise
                    continue
                self._snapshots, self._data = last | {published.checksum: opened}, data
