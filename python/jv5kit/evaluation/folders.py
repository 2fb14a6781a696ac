"""Which evaluation sets a folder holds."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from jv5kit.errors import InputError
from jv5kit.evaluation.layouts import Found, beir_set, file_set, row_sets
from jv5kit.evaluation.public import LAYOUTS
from jv5kit.evaluation.rows import SUFFIXES
from jv5kit.evaluation.tasks import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jv5kit.evaluation.tasks import EvaluationSet

_DEPTH = 3
"""Folders within folders that are looked into."""

_NAMES = 12
"""Names of sets that a message lists."""


def find_sets(root: Path, split: str = "test") -> tuple[list[Found], list[str]]:
    """Find the evaluation sets of a folder, which may be one or hold several, or of a file of rows.

    Args:
        root: the folder, or the file.
        split: the part that is evaluated, ``"test"`` or ``"dev"`` (or any for which a folder of BEIR has judgements).

    Returns:
        The sets, each named by its folder below ``root`` and what distinguishes it there; and the folders with files
        that are none.

    Raises:
        InputError: there is no such folder, or no set in it, or a file in it is cut off from what it needs.
    """
    if root.is_file():
        one = file_set(root) if root.name.endswith(SUFFIXES) else None
        if one is None:
            raise InputError(f"{root} is no evaluation set: its fields are those of none; see 'jv5kit eval --help'")
        return [_named(one, root.name.partition(".")[0])], []
    if not root.is_dir():
        raise InputError(f"there is no folder {root}")
    found, strange = _below(root, root.resolve().name, "", split, 0)
    if not found:
        raise InputError(
            f"{root} holds no evaluation set with a split {split!r}: a set is a folder in the layout of BEIR "
            "(corpus.jsonl, queries.jsonl, qrels/test.tsv), or has rows in test.jsonl, test.csv or test.tsv"
        )
    return found, strange


def _below(folder: Path, name: str, prefix: str, split: str, depth: int) -> tuple[list[Found], list[str]]:
    """The sets of a folder: ``name`` is that of a set that has none of its own, ``prefix`` goes before one that has."""
    for layout in (*LAYOUTS, beir_set, row_sets):
        try:
            found = layout(folder, split)
        except InputError as error:
            raise type(error)(f"{name}: {error}") from None
        if found:
            return [_named(one, f"{prefix}{one.name}" if one.name else name) for one in found], []
    sets, strange = [], []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for path in inside if depth < _DEPTH else ():
        below = f"{prefix}{path.name}"
        more, others = _below(path, below, f"{below}/", split, depth + 1)
        sets += more
        strange += others
    if not sets and not strange and any(path.is_file() for path in folder.iterdir()):
        strange = [name]
    return sets, strange


def _named(one: Found, name: str) -> Found:
    """The set under its full name, which begins the message of whatever is wrong with it."""

    def read() -> EvaluationSet:
        try:
            return one.read()
        except InputError as error:
            raise type(error)(f"{name}: {error}") from None

    return Found(name, one.kind, read)


def choose(sets: Sequence[Found], wanted: Sequence[str]) -> list[Found]:
    """The sets that are asked for, by kind or by name; ``*`` and ``?`` stand for anything in a name.

    Raises:
        InputError: what is asked for is no kind or name, or there is no set of the kind.
    """

    def fits(one: Found, pattern: str) -> bool:
        return pattern == one.kind or fnmatchcase(one.name, pattern)

    for pattern in wanted:
        # Long documents are made where there are none.
        if pattern != "long-documents" and not any(fits(one, pattern) for one in sets):
            names = ", ".join(one.name for one in sets[:_NAMES]) + (", …" if len(sets) > _NAMES else "")
            there = f"--data has {names}" if sets else "there is no --data"
            problem = (
                "finds no set" if pattern in KINDS else f"is no kind of set ({', '.join(KINDS)}), nor the name of one"
            )
            raise InputError(f"--tasks {pattern} {problem}; {there}")
    return [one for one in sets if any(fits(one, pattern) for pattern in wanted)]
