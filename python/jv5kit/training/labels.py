"""Which rows each label has, on disk: what rows of one label and rows of others are drawn by.

``groups.npy`` has an entry for each label of each row, the number of the row, grouped by label and in order; those of
label i are ``groups[starts[i] : starts[i + 1]]``. It is mapped, so that memory stays flat whatever the number of rows.
"""

from __future__ import annotations

import array
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.random import Generator
    from numpy.typing import NDArray

BLOCK = 1 << 20
"""Entries that are sorted at a time."""


class LabelWriter:
    """Notes the labels of rows as they come, and groups the rows by them in the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._codes: dict[str, int] = {}
        self._noted = array.array("q")
        self._file = (folder / "noted.bin").open("w+b")
        self.counts: list[int] = []

    @property
    def names(self) -> list[str]:
        """The labels so far, by their first row."""
        return list(self._codes)

    def add(self, row: int, labels: Sequence[str]) -> None:
        """Note the labels of a row."""
        for label in labels:
            code = self._codes.setdefault(label, len(self._codes))
            if code == len(self.counts):
                self.counts.append(0)
            self.counts[code] += 1
            self._noted.extend((code, row))
        if len(self._noted) >= BLOCK:
            self._flush()

    def _flush(self) -> None:
        self._noted.tofile(self._file)
        del self._noted[:]

    def close(self) -> None:
        """Write the groups: a counting sort, block by block."""
        self._flush()
        self._file.seek(0)
        starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        groups = np.lib.format.open_memmap(self._folder / "groups.npy", "w+", np.int64, (int(starts[-1]),))
        next_free = starts[:-1].copy()
        while len(noted := np.fromfile(self._file, np.int64, 2 * BLOCK).reshape(-1, 2)):
            codes, rows = noted[np.argsort(noted[:, 0], kind="stable")].T
            within = np.arange(len(codes)) - np.searchsorted(codes, codes)
            groups[next_free[codes] + within] = rows
            next_free += np.bincount(codes, minlength=len(next_free))
        groups.flush()
        self._file.close()
        (self._folder / "noted.bin").unlink()
        np.save(self._folder / "starts.npy", starts)
        (self._folder / "labels.json").write_text(json.dumps(self.names), encoding="utf-8")


class LabelGroups:
    """The rows of each label, to draw from.

    Attributes:
        names: the labels.
        several: whether a row has more than one.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.names: list[str] = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self._codes = {name: code for code, name in enumerate(self.names)}
        self._starts: NDArray[np.int64] = np.load(folder / "starts.npy")
        self._groups: NDArray[np.int64] = np.load(folder / "groups.npy", mmap_mode="r")
        self.several: bool = len(self._groups) > rows

    def count(self, label: str) -> int:
        """How many rows have a label."""
        start, end = self._span(label)
        return end - start

    def another(self, row: int, label: str, random: Generator) -> int:
        """A row of a label other than the given one, which has the label too, as any other of them; -1 if none is."""
        start, end = self._span(label)
        if end - start < 2:
            return -1
        own = start + int(np.searchsorted(self._groups[start:end], row))
        drawn = int(random.integers(start, end - 1))
        return int(self._groups[drawn + (drawn >= own)])

    def without(self, labels: Sequence[str], random: Generator) -> int:
        """A row of a label that is none of these, drawn among all such rows; -1 if there is none.

        A row with several labels counts as often, and may have one of these beside the other.
        """
        spans = sorted(self._span(label) for label in labels)
        left = int(self._starts[-1]) - sum(end - start for start, end in spans)
        if left < 1:
            return -1
        drawn = int(random.integers(left))
        for start, end in spans:
            if drawn >= start:
                drawn += end - start
        return int(self._groups[drawn])

    def _span(self, label: str) -> tuple[int, int]:
        code = self._codes[label]
        return int(self._starts[code]), int(self._starts[code + 1])
