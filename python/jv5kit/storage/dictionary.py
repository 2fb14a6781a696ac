"""Dictionaries of strings, sorted by their UTF-8 bytes, which is the order of code points.

A string's code is its place, so that equality and order of strings are equality and order of small integers.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Dictionary:
    """Distinct strings in order, as one text and the places where they begin.

    Attributes:
        bounds: unsigned ``(n + 1,)``: string i is ``text[bounds[i]:bounds[i + 1]]``.
        text: uint8, UTF-8.
    """

    def __init__(self, bounds: NDArray[np.integer], text: NDArray[np.uint8]) -> None:
        self.bounds = bounds
        self.text = text

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> Dictionary:
        """The dictionary of strings that are distinct and in order."""
        bounds = np.zeros(len(strings) + 1, np.uint64)
        np.cumsum(np.fromiter(map(len, strings), np.uint64, len(strings)), out=bounds[1:])
        return cls(narrow(bounds), np.frombuffer(b"".join(strings), np.uint8))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, code: int) -> bytes:
        return self.text[int(self.bounds[code]) : int(self.bounds[code + 1])].tobytes()

    def find(self, string: str) -> tuple[int, bool]:
        """The number of strings before this one, and whether it is there, in which case that is its code."""
        wanted = string.encode()
        code = bisect_left(self, wanted)
        return code, code < len(self) and self[code] == wanted

    def strings(self, codes: NDArray[np.intp]) -> list[bytes]:
        """The strings of some codes."""
        text, bounds = self.text.tobytes(), self.bounds.astype(np.intp)
        return [text[i:j] for i, j in zip(bounds[codes].tolist(), bounds[codes + 1].tolist(), strict=True)]


def encode(strings: Sequence[str]) -> tuple[NDArray[np.intp], Dictionary]:
    """The code of each string, and their dictionary."""
    distinct = sorted(set(strings))
    place = dict(zip(distinct, range(len(distinct)), strict=True))
    codes = np.fromiter(map(place.__getitem__, strings), np.intp, len(strings))
    return codes, Dictionary.of([string.encode() for string in distinct])


def merge(parts: Sequence[tuple[NDArray[np.unsignedinteger], Dictionary]]) -> tuple[NDArray[np.intp], Dictionary]:
    """The codes of several parts, one after another, in one dictionary of the strings that are used."""
    used, strings = [], []
    for codes, dictionary in parts:
        used.append(np.flatnonzero(np.bincount(codes, minlength=len(dictionary))))
        strings.append(dictionary.strings(used[-1]))
    # Sorting runs that are in order each is merging them.
    distinct = list(dict.fromkeys(sorted(chain.from_iterable(strings))))
    place = dict(zip(distinct, range(len(distinct)), strict=True))
    merged = []
    for (codes, dictionary), old, own in zip(parts, used, strings, strict=True):
        new = np.zeros(len(dictionary), np.intp)
        new[old] = np.fromiter(map(place.__getitem__, own), np.intp, len(own))
        merged.append(new[codes])
    return np.concatenate(merged), Dictionary.of(distinct)


def narrow(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """Whole numbers in the smallest type that holds them: unsigned stays unsigned, signed signed."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for size in (1, 2, 4):
        dtype = np.dtype(f"<{values.dtype.kind}{size}")
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(f"<{values.dtype.kind}8")
