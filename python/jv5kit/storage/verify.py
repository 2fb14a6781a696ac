"""Every byte of an index checked, and what belongs together: documents, rows, ids, graph and rotation."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import IndexDamagedError
from jv5kit.logs import logger
from jv5kit.storage.catalog import Catalog
from jv5kit.storage.graphs import GRAPHS, GraphRecord, check_graph
from jv5kit.storage.lock import WriteLock
from jv5kit.storage.rotations import read_rotation
from jv5kit.storage.segments import Segment
from jv5kit.storage.snapshot import Snapshot, deletions_of, segment_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.storage.deletions import Deletions

DOCUMENTS_TOGETHER = 10_000
"""Documents that are looked up by id at a time."""

_LEAST, _MOST = -(2**63), 2**63 - 1


def verify(folder: Path, on_documents: Callable[[int], None] | None = None, *, immutable: bool = False) -> list[str]:
    """Check an index: every block of every segment, document and id, the graph, the rotation, the catalogue.

    Args:
        folder: of the index, which nobody may write meanwhile.
        on_documents: called with the number of documents that each step checked.
        immutable: whether nobody ever writes it, so that it needs no lock.

    Returns:
        What is damaged; nothing if the index is sound.

    Raises:
        IndexNotFoundError: there is no index.
        IndexLockedError: another process is writing it.
    """
    Catalog(folder, immutable=immutable).close()
    with ExitStack() as stack:
        try:
            if not immutable:
                stack.enter_context(WriteLock(folder))
            writable = not immutable
        except OSError:
            # A folder that cannot be written: nobody does, but neither can the lexical index be asked to check itself.
            writable = False
        catalog = Catalog(folder, write=writable, immutable=immutable)
        stack.callback(catalog.close)
        found = _Verification(folder, catalog, on_documents or (lambda _: None))
        with found.problem():
            found.run(writable=writable)
        return found.problems


class _Verification:
    """The problems of one index."""

    def __init__(self, folder: Path, catalog: Catalog, on_documents: Callable[[int], None]) -> None:
        self.problems: list[str] = []
        self._folder = folder
        self._catalog = catalog
        self._on_documents = on_documents

    @contextmanager
    def problem(self) -> Iterator[None]:
        """Note damage, and go on behind it."""
        try:
            yield
        except IndexDamagedError as error:
            self.problems.append(str(error))

    def run(self, *, writable: bool) -> None:
        """Check everything."""
        with self.problem():
            self.problems += self._catalog.problems(words=writable)
        state, bitmaps = self._catalog.load()
        if state.settings.lexical and not writable:
            logger.warning("%s cannot be written, so that its lexical index could not check itself", self._folder)
        with self.problem():
            read_rotation(self._folder, state.settings)
        graph = GraphRecord.of(state.graph)
        if graph is not None:
            with self.problem():
                check_graph(self._folder / GRAPHS / graph.file_name, graph)
        sound: dict[int | None, tuple[Segment, Deletions]] = {}
        for entry in state.segments:
            with self.problem():
                segment = Segment(segment_path(self._folder, entry), state.settings, entry)
                segment.verify()
                segment.release()
                sound[entry.number] = segment, deletions_of(self._catalog, entry, bitmaps)
        segments, deletions = zip(*sound.values(), strict=True) if sound else ((), ())
        snapshot = Snapshot(self._catalog, 0, state, segments, deletions, None, None)
        dead = np.array(self._catalog.dead(), np.int64)
        # Each segment with the numbers from its first document on to the next segment; the first one from the least on.
        firsts = [_LEAST, *(entry.first_row for entry in state.segments[1:]), _MOST]
        numbers: list[int | None] = [entry.number for entry in state.segments] or [None]
        for number, (first, end) in zip(numbers, pairwise(firsts), strict=True):
            if number is None or number in sound:
                live = np.empty(0, np.int64) if number is None else _live(*sound[number])
                with self.problem():
                    self._documents(snapshot, live, dead[(dead >= first) & (dead < end)], first, end)

    def _documents(
        self, snapshot: Snapshot, live: NDArray[np.int64], dead: NDArray[np.int64], first: int, end: int
    ) -> None:
        """The documents numbered from ``first`` to before ``end`` are these, and the live ones are found by id."""
        expected = np.union1d(live, dead)
        if len(expected) != len(live) + len(dead):
            raise IndexDamagedError.of(self._catalog.path, "its list of deleted documents names some that are not")
        stream, done = self._catalog.stream(first, end - 1), 0
        while batch := list(islice(stream, DOCUMENTS_TOGETHER)):
            numbers = np.array([number for number, _ in batch], np.int64)
            wanted = expected[done : done + len(batch)]
            if not np.array_equal(numbers, wanted):
                self._difference(numbers, wanted)
            done += len(batch)
            there = numbers[np.isin(numbers, live)]
            if not any(segment.format_1 for segment in snapshot.segments):
                self._ids(snapshot, {number: document.id for number, document in batch}, there)
            self._on_documents(len(there))
        if done < len(expected):
            raise IndexDamagedError.of(self._catalog.path, f"the document of row {expected[done]} is missing")

    def _difference(self, numbers: NDArray[np.int64], wanted: NDArray[np.int64]) -> None:
        extra, missing = np.setdiff1d(numbers, wanted), np.setdiff1d(wanted, numbers)
        problem = f"it has a document of row {extra[0]}, which no segment has" if len(extra) else ""
        if len(missing) and (not len(extra) or missing[0] < extra[0]):
            problem = f"the document of row {missing[0]} is missing"
        raise IndexDamagedError.of(self._catalog.path, problem)

    def _ids(self, snapshot: Snapshot, ids: Mapping[int, str], numbers: NDArray[np.int64]) -> None:
        """Each of these documents is the one that is found by its id."""
        found = snapshot.find([ids[number] for number in numbers.tolist()])
        for number in numbers.tolist():
            rows, _ = found.get(ids[number], ([], None))
            if not rows:
                raise IndexDamagedError.of(self._catalog.path, f"the document {ids[number]!r} is not found by its id")
            if number not in rows:
                raise IndexDamagedError.of(self._catalog.path, f"the id {ids[number]!r} belongs to two documents")


def _live(segment: Segment, deletions: Deletions) -> NDArray[np.int64]:
    rows = np.arange(segment.rows)
    return segment.numbers(rows[~deletions.contain(rows)])
