"""Documents by id: in each segment the hashes of its ids, sorted, beside the rows that they belong to.

A hash that is found is a candidate, whose document has the last word; a hash that is not found is no document, and
the checksums of the blocks that were looked at vouch for that. An id that is new, as most ids of a build are, touches
nothing else; and hashes are merged with the segments, so a build writes in order, however its ids are spread.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from jv5kit.storage.segments import Segment

    Sorted = tuple[NDArray[np.uint64], NDArray[np.uint32]]

FENCE_IDS = 2048
"""Hashes from one fence to the next: a block of checksums (16 KiB)."""


def id_hashes(ids: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit hashes ``(n,)`` of ids: the first 8 bytes of a BLAKE2b of that length, little-endian."""
    return np.frombuffer(b"".join(blake2b(i.encode(), digest_size=8).digest() for i in ids), "<u8")


def sorted_hashes(hashes: NDArray[np.uint64], rows: NDArray[np.uint32] | None = None) -> Sorted:
    """Hashes in order, each with its row (by default its position)."""
    order = np.argsort(hashes, kind="stable")
    return hashes[order], order.astype(np.uint32) if rows is None else rows[order]


def fences(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first hash of each block."""
    return hashes[::FENCE_IDS]


def candidates(segment: Segment, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of a segment whose ids may be those of ``hashes``: positions in ``hashes``, and rows, side by side."""
    starts = segment.tensor("id_fences")
    if len(hashes) >= len(starts):
        stored = segment.tensor("ids")
        low = np.searchsorted(stored, hashes, "left")
        # Most ids of a build are new: the other end is looked for only where something is.
        there = np.flatnonzero(stored[np.minimum(low, len(stored) - 1)] == hashes)
        high = low.copy()
        high[there] = np.searchsorted(stored, hashes[there], "right")
    else:
        # Hashes that are equal may lie on both sides of a fence.
        first = np.maximum(np.searchsorted(starts, hashes, "left").astype(np.int64) - 1, 0)
        last = np.maximum(np.searchsorted(starts, hashes, "right").astype(np.int64) - 1, 0)
        low, high = np.empty(len(hashes), np.int64), np.empty(len(hashes), np.int64)
        for i, value in enumerate(hashes):
            begin, end = int(first[i]) * FENCE_IDS, min((int(last[i]) + 1) * FENCE_IDS, segment.rows)
            block = segment.rows_of("ids", np.arange(begin, end, FENCE_IDS))[begin:end]
            low[i] = begin + np.searchsorted(block, value, "left")
            high[i] = begin + np.searchsorted(block, value, "right")
    counts = high - low
    positions = np.repeat(np.arange(len(hashes)), counts)
    if not len(positions):
        return positions, positions
    offsets = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.repeat(low, counts) + offsets
    return positions, segment.rows_of("id_rows", places)[places].astype(np.int64)


def merged(parts: Sequence[Sorted]) -> Sorted:
    """The hashes of several parts, whose rows are numbered through already, in order."""
    hashes, rows = (np.concatenate(side) for side in zip(*parts, strict=True))
    return sorted_hashes(hashes, rows)
