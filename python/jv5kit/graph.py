"""Approximate search over float32 rows by a graph (HNSW): grown by the writer, searched beside what it does not hold.

The graph holds the rows of all documents up to one; later ones are compared exactly, until there are so many that the
graph takes them in. What is deleted or filtered out is passed over among its answers. Where that leaves too few, and
where a filter keeps so little that comparing it is cheap, the search is exact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.errors import IndexDamagedError, InputError
from jv5kit.scan import Rows, Stage, best, scan
from jv5kit.storage.graphs import Graph, hnswlib, new_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.scan import Found, Part
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.writer import Writer
    from jv5kit.types import Precision

NEIGHBORS = 16
"""Links of a row in the graph (M)."""

BUILD_WIDTH = 200
"""Candidates looked at when a row is put in (ef_construction)."""

SEARCH_WIDTH = 64
"""Candidates looked at when a query is answered, at least (ef)."""

LEAST_ROWS = 10_000
"""Rows that are compared exactly before a graph is worth its cost."""

GROWTH = 0.1
"""Rows beside the graph, as a part of those in it, at which it takes them in."""

NARROW = 0.1
"""A filter that keeps less than this part of the rows is answered exactly."""


def check_graph(precision: Precision) -> None:
    """Refuse a graph where none can be grown, before anything else is done.

    Raises:
        InputError: the index has no rows that a graph could hold.
        MissingExtraError: hnswlib is not installed.
    """
    if precision != "float32":
        raise InputError(f"hnsw goes with precision 'float32', whose rows its graph holds, not with {precision!r}")
    hnswlib()


def grow(writer: Writer, *, anew: bool = False) -> None:
    """Let the graph of an index take in the rows that it does not hold yet, if there are enough of them.

    Args:
        writer: of the index.
        anew: build it without what was deleted, as compacting does.
    """
    # A new index without documents is not there yet; what is, is the one that it replaces.
    if not writer.state.settings.hnsw or not writer.state.segments:
        return
    snapshot = writer.snapshot()
    old = None if anew else snapshot.graph
    held, end = (old.record.rows, old.record.end) if old else (0, 0)
    fresh = []
    for segment, deletions in zip(snapshot.segments, snapshot.deletions, strict=True):
        rows = np.arange(segment.rows)
        fresh.append(rows[(segment.numbers(rows) >= end) & ~deletions.contain(rows)])
    count = sum(map(len, fresh))
    if count < (1 if anew else max(LEAST_ROWS, GROWTH * held)):
        return
    if old is not None:
        graph = old.loaded()
        graph.resize_index(held + count)
    else:
        graph = new_graph(snapshot.state.settings.dim)
        graph.init_index(count, M=NEIGHBORS, ef_construction=BUILD_WIDTH, random_seed=0)
    for segment, chosen in zip(snapshot.segments, fresh, strict=True):
        for start in range(0, len(chosen), LEAST_ROWS):
            part = chosen[start : start + LEAST_ROWS]
            graph.add_items(segment.rows_of("embeddings", part)[part], segment.numbers(part))
    writer.set_graph(graph, held + count)


def search(snapshot: Snapshot, rows: Rows, queries: NDArray[np.float32], top_k: int, stages: dict[str, float]) -> Found:
    """The best rows of each query, as :func:`jv5kit.scan.scan` gives them, most of them found by the graph."""
    graph = snapshot.graph
    kept = [
        segment.rows if mask is None else int.from_bytes(mask.tobytes()).bit_count() for segment, mask in _parts(rows)
    ]
    if graph is None or sum(kept) < max(NARROW * len(rows), top_k):
        return scan(rows, queries, top_k, 1, stages)
    with Stage(stages, "graph"):
        found = _by_graph(snapshot, graph, rows, queries, top_k)
    if found is None:
        return scan(rows, queries, top_k, 1, stages)
    beside = _beside(rows, graph.record.end)
    if beside is None:
        return found
    others = scan(beside, queries, top_k, 1, stages)
    scores, numbers = (np.concatenate([found[i], others[i]], axis=1) for i in (0, 1))
    return best(scores, numbers, top_k)


def _by_graph(snapshot: Snapshot, graph: Graph, rows: Rows, queries: NDArray[np.float32], top_k: int) -> Found | None:
    """What the graph finds and the masks keep; None where that is less than ``top_k`` rows, or the graph is gone."""
    try:
        graph.loaded()
    except IndexDamagedError:
        # A writer may have put another graph in the place of this one before it was ever used.
        if snapshot.has_its_graph():
            raise
        return None
    count, held = top_k, graph.record.rows
    while count <= held:
        nearest = graph.nearest(queries, count, max(SEARCH_WIDTH, 2 * count))
        if nearest is None:
            return None
        numbers, distances = nearest
        kept = rows.include(snapshot.positions(numbers.ravel())).reshape(numbers.shape)
        if (kept.sum(axis=1) >= top_k).all():
            scores = np.where(kept, 1 - distances, -np.inf).astype(np.float32)
            scores, numbers = best(scores, numbers, top_k)
            return np.clip(scores, -1, 1), numbers
        if count == held:
            return None
        count = min(4 * count, held)
    return None


def _beside(rows: Rows, end: int) -> Rows | None:
    """The rows that are not in the graph; None if there are none."""
    parts = [
        (segment, mask if segment.first_row >= end else _later(segment, mask, end))
        for segment, mask in _parts(rows)
        if int(segment.numbers(np.array([segment.rows - 1]))[0]) >= end
    ]
    if not parts:
        return None
    segments, masks = zip(*parts, strict=True)
    return replace(rows, segments=segments, masks=masks)


def _later(segment: Part, mask: NDArray[np.uint8] | None, end: int) -> NDArray[np.uint8]:
    """The mask without the documents below ``end``."""
    later = np.packbits(segment.numbers(np.arange(segment.rows)) >= end, bitorder="little")
    return later if mask is None else later & mask


def _parts(rows: Rows) -> Sequence[tuple[Part, Any]]:
    return list(zip(rows.segments, rows.masks, strict=True))
