"""One index and the same in shards, and whether they answer alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit import Index
from jv5kit.stores.sharded import ShardedIndex

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.stores import Store

DIM = 32
COUNT = 400


def rows(count: int = COUNT, seed: int = 0) -> NDArray[np.float32]:
    """Embeddings many of which are the same, or nearly so: ties, and what rounding could make ties of."""
    generator = np.random.default_rng(seed)
    few = generator.standard_normal((40, DIM)).astype(np.float32)
    found = few[generator.integers(0, 40, count)]
    found[::4] += np.float32(1e-7) * generator.standard_normal(found[::4].shape).astype(np.float32)
    return found


def records(count: int = COUNT) -> list[dict[str, Any]]:
    return [
        {"id": f"d{i}", "text": f"text {i}", "n": i, "of": [f"m{i % 7}"], "half": i < count / 2} for i in range(count)
    ]


def both(folder: Path, shards: int = 3, **options: Any) -> tuple[Index, ShardedIndex]:
    whole = Index.build(folder / "whole.jv5", records(), embeddings=rows(), **options)
    return whole, ShardedIndex.build(folder / "parts.jv5s", records(), embeddings=rows(), shards=shards, **options)


def assert_same(whole: Index, parts: Store, seed: int = 1, sizes: Sequence[int] = (1, 7, 50, COUNT + 9)) -> None:
    """Both answer alike, to questions of every kind, for so many hits."""
    generator = np.random.default_rng(seed)
    queries = rows(12, seed=seed) + np.float32(0.01) * generator.standard_normal((12, DIM)).astype(np.float32)
    asked: list[dict[str, Any]] = [
        {},
        {"oversample": 1},
        {"filter": 'n >= 100 and of = "m1"'},
        {"filter": "half = true", "oversample": 9},
        {"filter": "n < 0"},
        *({"mode": mode} for mode in whole.modes),
    ]
    for options in asked:
        for top_k in sizes:
            assert parts.search(queries, top_k, **options) == whole.search(queries, top_k, **options), (options, top_k)
    assert parts.search(queries[0], 5) == whole.search(queries[0], 5)
    assert parts.search(np.empty((0, DIM))) == []
    if whole.settings.precision == "ubinary":
        codes = generator.integers(0, 256, (5, whole.settings.dim // 8)).astype(np.uint8)
        assert parts.search(codes, 60) == whole.search(codes, 60)
    assert (len(parts), parts.row_count, parts.fields) == (len(whole), whole.row_count, whole.fields)
    assert parts.count('of = "m3" or n > 390') == whole.count('of = "m3" or n > 390')
    ids = [f"d{i}" for i in range(0, COUNT, 13)] + ["none"]
    assert parts.get(ids) == whole.get(ids)
    assert parts.settings == whole.settings
    assert parts.modes == whole.modes
