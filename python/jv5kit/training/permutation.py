"""A shuffled order of any number of rows that is computed place by place: nothing of that size is ever built."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROUNDS = 6


class Permutation:
    """A pseudo-random permutation of ``range(size)``: a Feistel network whose outliers walk on until they are inside.

    Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", SIAM J. Comput. 1988;
    the walk: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002. The round function is the mixing
    of splitmix64.

    Args:
        size: at least 1.
        key: what tells one permutation from another.
    """

    def __init__(self, size: int, key: Sequence[object]) -> None:
        self.size = size
        # The least domain of an even number of bits that holds every row: at most four times as large.
        self._half = max(1, -(-(size - 1).bit_length() // 2))
        self._keys = [np.uint64(seed_of(*key, i)) for i in range(ROUNDS)]

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """The rows at places ``start`` to ``stop``, int64 ``(stop - start,)``."""
        values = self._network(np.arange(start, stop, dtype=np.uint64))
        while len(outside := np.flatnonzero(values >= self.size)):
            values[outside] = self._network(values[outside])
        return values.astype(np.int64)

    def _network(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        half, mask = np.uint64(self._half), np.uint64((1 << self._half) - 1)
        left, right = values >> half, values & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return left << half | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64; overflow is meant."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def seed_of(*parts: object) -> int:
    """A 64-bit seed of what it is for, such as a run's seed, a source and an epoch; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def digest_of(text: str) -> int:
    """64 bits that stand for a text where only equality matters."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
