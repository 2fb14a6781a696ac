"""What the tests of all stores are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIM = 64


def rows(count: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def codes(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, DIM // 8)).astype(np.uint8)


def records(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": f"d{i}",
            "text": f"text {i}",
            "title": f"Title {i}" if i % 2 else None,
            "n": i,
            "of": ["all", f"m{i % 3}"],
        }
        for i in range(first, first + count)
    ]


def naive(query: NDArray[np.uint8], stored: NDArray[np.uint8]) -> list[int]:
    """Hamming distances, bit by bit."""
    return [
        sum((int(a) ^ int(b)).bit_count() for a, b in zip(query.tolist(), row.tolist(), strict=True)) for row in stored
    ]
