"""One state of an index, open for reading: its catalogue, segments and deletions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.errors import IndexDamagedError
from jv5kit.storage.catalog import Catalog
from jv5kit.storage.deletions import Deletions
from jv5kit.storage.graphs import GRAPHS, Graph, GraphRecord
from jv5kit.storage.ids import candidates, id_hashes
from jv5kit.storage.passages import whole
from jv5kit.storage.rotations import read_rotation
from jv5kit.storage.segments import Segment
from jv5kit.storage.vectors import same_vectors, vector_specs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.filters import Filter
    from jv5kit.rotation import Rotation
    from jv5kit.storage.columns import Columns
    from jv5kit.storage.state import SegmentEntry, State
    from jv5kit.types import Document

SEGMENTS = "segments"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of an index. Segments and deletions are those of ``state.segments``, in that order."""

    catalog: Catalog
    version: int
    state: State
    segments: tuple[Segment, ...]
    deletions: tuple[Deletions, ...]
    graph: Graph | None
    rotation: Rotation | None

    @property
    def documents(self) -> int:
        """Documents in the index."""
        if self.state.settings.passages is None:
            return self.state.rows
        kept = [
            segment.first_rows if deletions.kept_bits is None else segment.first_rows & deletions.kept_bits
            for segment, deletions in zip(self.segments, self.deletions, strict=True)
        ]
        return sum(int.from_bytes(bits.tobytes()).bit_count() for bits in kept)

    def find(self, ids: Sequence[str]) -> dict[str, tuple[list[int], Document]]:
        """The rows, in order, and the whole document of each id that is in the index.

        Raises:
            ReplacedError: the index has another state by now, in which some are gone.
            IndexDamagedError: the rows of an id are not those of one whole document.
        """
        # In order, so that a search for many runs through the segment once.
        hashes = np.sort(id_hashes(ids))
        found = [np.empty(0, np.int64)]
        for segment, deletions in zip(self.segments, self.deletions, strict=True):
            rows = candidates(segment, hashes)
            if len(rows):
                found.append(segment.numbers(rows[~deletions.contain(rows)]))
        numbers = np.unique(np.concatenate(found))
        if not len(numbers):
            return {}
        wanted = set(ids)
        of_id: dict[str, list[int]] = {}
        stored = self.catalog.documents(numbers.tolist(), self.state)
        for row in numbers.tolist():
            if stored[row].id in wanted:
                of_id.setdefault(stored[row].id, []).append(row)
        spans = dict(zip(numbers.tolist(), self.passages(numbers).tolist(), strict=True))
        documents = {}
        for identifier, own in of_id.items():
            try:
                documents[identifier] = own, whole([stored[row] for row in own], [spans[row] for row in own])
            except ValueError as error:
                raise IndexDamagedError.of(self.catalog.path, str(error)) from None
        return documents

    def same_rows(self, numbers: NDArray[np.int64], tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether each of some rows, ascending, is the given tensors' row."""
        same = np.ones(len(numbers), np.bool_)
        for segment, within in zip(self.segments, self.locate(numbers), strict=True):
            if len(within):
                local = segment.positions(numbers[within])
                for name, *_ in vector_specs(self.state.settings, segment.rows):
                    stored = segment.rows_of(name, local)[local]
                    same[within] &= same_vectors(self.state.settings, name, stored, tensors[name][within])
        return same

    def passages(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Which passage each of some rows is, ``(n, 3)``, as :mod:`jv5kit.storage.passages` has it."""
        spans = np.zeros((len(numbers), 3), np.uint32)
        if self.state.settings.passages is not None:
            for segment, within in zip(self.segments, self.locate(numbers), strict=True):
                if len(within):
                    local = segment.positions(numbers[within])
                    spans[within] = segment.rows_of("passages", local)[local]
        return spans

    def count_documents(self, numbers: Sequence[int]) -> int:
        """The documents that some rows are of, all the rows of each."""
        return int((self.passages(np.array(numbers, np.int64))[:, 0] <= 1).sum())

    def masks(self, condition: Filter | None) -> list[NDArray[np.uint8] | None]:
        """For each segment a bitmap of the rows that are not deleted and that a filter keeps; None for all.

        Raises:
            InputError: the filter compares a field with a value of a type that the field never has.
        """
        if condition is not None:
            condition.check([segment.columns for segment in self.segments])
        return self.unchecked_masks(condition)

    def unchecked_masks(self, condition: Filter | None) -> list[NDArray[np.uint8] | None]:
        """The same, of a filter that was checked against the index of which this is a part."""
        kept = [deletions.kept_bits for deletions in self.deletions]
        if condition is None:
            return kept
        matching = [segment.matching(condition) for segment in self.segments]
        return [bits if live is None else bits & live for bits, live in zip(matching, kept, strict=True)]

    def matching(self, condition: Filter) -> list[int]:
        """Numbers of the rows that a filter keeps; the errors are those of :meth:`masks`."""
        return self.numbers(self.masks(condition))

    def numbers(self, masks: Sequence[NDArray[np.uint8] | None]) -> list[int]:
        """Numbers of the rows that masks keep."""
        numbers: list[int] = []
        for segment, mask in zip(self.segments, masks, strict=True):
            if mask is not None:
                rows = np.flatnonzero(np.unpackbits(mask, count=segment.rows, bitorder="little"))
                numbers += segment.numbers(rows).tolist()
        return numbers

    def has_its_graph(self) -> bool:
        """Whether the index still has the graph of this state."""
        return not self.catalog.is_gone() and self.catalog.state().graph == self.state.graph

    def fields(self) -> dict[str, list[str]]:
        """The fields of the metadata that can be filtered by, in order, each with the types of its values."""
        return fields_of(segment.columns for segment in self.segments if not segment.format_1)

    def positions(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of documents, numbered through over the segments; -1 for one that this state does not have."""
        positions = np.full(len(numbers), -1, np.int64)
        first = 0
        for segment, within in zip(self.segments, self.locate(numbers), strict=True):
            if len(within):
                local = segment.positions(numbers[within])
                inside = local < segment.rows
                local, within = local[inside], within[inside]
                there = segment.numbers(local) == numbers[within]
                positions[within[there]] = first + local[there]
            first += segment.rows
        return positions

    def locate(self, numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Where documents are: for each segment the indices into ``numbers`` of those that it holds."""
        firsts = np.array([segment.first_row for segment in self.segments], np.int64)
        of_segment = np.searchsorted(firsts, numbers, "right") - 1
        return [np.flatnonzero(of_segment == i) for i in range(len(self.segments))]


def fields_of(segments: Iterable[Columns]) -> dict[str, list[str]]:
    """The fields of some segments' columns, in order, each with the types of its values."""
    kinds: dict[str, set[str]] = {}
    for columns in segments:
        for field in columns.fields:
            column = columns.get(field)
            kinds.setdefault(field, set()).update(column.kinds if column else ())
    return {field: sorted(kinds[field]) for field in sorted(kinds)}


def segment_path(folder: Path, entry: SegmentEntry) -> Path:
    """The file of a segment."""
    return folder / SEGMENTS / entry.file_name


def open_snapshot(folder: Path, catalog: Catalog, previous: Snapshot | None = None) -> Snapshot:
    """The newest state of an index; what was open and verified in a previous one stays so."""
    known: Mapping[SegmentEntry, tuple[Segment, Deletions]] = {}
    files: dict[tuple[int, int], Segment] = {}
    if previous is not None:
        pairs = zip(previous.segments, previous.deletions, strict=True)
        known = dict(zip(previous.state.segments, pairs, strict=True))
        files = {(entry.number, entry.checksum): segment for entry, (segment, _) in known.items()}
    while True:
        version = catalog.version()
        state, bitmaps = catalog.load(known)
        try:
            segments, deletions = [], []
            for entry in state.segments:
                file = files.get((entry.number, entry.checksum))
                segments.append(file or Segment(segment_path(folder, entry), state.settings, entry))
                deletions.append(known[entry][1] if entry in known else deletions_of(catalog, entry, bitmaps))
        except IndexDamagedError:
            # A writer may have merged the segments between the reading of their names and their opening.
            if catalog.is_gone():
                catalog = Catalog(folder)
            elif catalog.version() == version:
                raise
            continue
        if previous is not None and previous.state.settings == state.settings:
            rotation = previous.rotation
        else:
            rotation = read_rotation(folder, state.settings)
        graph = _graph(folder, state, previous)
        return Snapshot(catalog, version, state, tuple(segments), tuple(deletions), graph, rotation)


def _graph(folder: Path, state: State, previous: Snapshot | None) -> Graph | None:
    record = GraphRecord.of(state.graph)
    if record is None:
        return None
    if previous is not None and previous.graph is not None and previous.graph.record == record:
        return previous.graph
    return Graph(folder / GRAPHS / record.file_name, state.settings.dim, record)


def deletions_of(catalog: Catalog, entry: SegmentEntry, bitmaps: Mapping[int, Mapping[int, bytes]]) -> Deletions:
    """The deleted rows of a segment, out of the bitmaps of the catalogue, verified."""
    deletions = Deletions.of_blocks(entry.rows, bitmaps[entry.number]) if entry.deleted else Deletions(entry.rows)
    if (deletions.count, deletions.checksum) != (entry.deleted, entry.deletions):
        raise IndexDamagedError.of(catalog.path, f"the deletions of segment {entry.number} do not match their checksum")
    return deletions
