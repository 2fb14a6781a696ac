"""Evaluation sets that people write by hand: files of rows, named by their split, whose fields say what they are.

A folder holds ``test.jsonl`` (or ``.jsonl.gz``, ``.csv``, ``.tsv``; with a word before it, as in ``en-test.csv``, it is
a set of its own). What the rows have decides:

=====================  ==========================================================================================
sts                    ``sentence1``, ``sentence2``, ``score``: any numbers, of which only the order counts
pair-classification    ``sentence1``, ``sentence2``, ``label``: 1 if they mean the same, else 0
bitext                 ``sentence1``, ``sentence2``, which are translations
reranking              ``query``, ``positive``, ``negative``: a text or a list of texts each
summarization          ``text``, ``summaries``, ``scores``: lists of the same length; maybe ``references``: summaries
                       that people wrote, with which the others are then compared instead of with the text
classification         ``text``, ``label``, or ``labels``: a list, for multilabel sets; there must be a ``train`` file
clustering             ``text``, ``label``; the file is named ``clustering`` or ``data`` instead of ``test``
=====================  ==========================================================================================

Retrieval sets are folders in the layout of BEIR (:mod:`jv5kit.evaluation.beir`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from jv5kit.errors import InputError
from jv5kit.evaluation.beir import read_beir
from jv5kit.evaluation.classification import draw
from jv5kit.evaluation.rows import SUFFIXES, first_row, read_rows
from jv5kit.evaluation.tasks import Bitext, Classification, Clustering, Pairs, Reranking, Retrieval, Summaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from jv5kit.evaluation.rows import Row
    from jv5kit.evaluation.tasks import EvaluationSet, Kind

SPLITS = {"train": ("train",), "dev": ("dev", "valid", "validation", "val"), "test": ("test",)}
"""Names of splits, and the words for them in the names of files."""

_UNSPLIT = ("clustering", "data")

_NAME = re.compile(
    rf"(?:(?P<prefix>.+)[-_.])?(?P<word>{'|'.join([w for words in SPLITS.values() for w in words] + [*_UNSPLIT])})"
)


@dataclass(frozen=True, slots=True)
class Found:
    """An evaluation set that is there to be read.

    Attributes:
        name: what distinguishes it from other sets of its folder; empty for the only one.
        kind: what it will turn out to be.
        read: reads it; an InputError says what is wrong with it.
    """

    name: str
    kind: Kind
    read: Callable[[], EvaluationSet]


def beir_set(folder: Path, split: str) -> list[Found]:
    """The set of a folder in the layout of BEIR, if it is one and has the split."""
    words = [word for word in SPLITS.get(split, (split,)) if (folder / "qrels" / f"{word}.tsv").is_file()]
    return [Found("", "retrieval", lambda: Retrieval(read_beir(folder, words[0])))] if words else []


def row_sets(folder: Path, split: str) -> list[Found]:
    """The sets that the files of rows in a folder are.

    Raises:
        InputError: the first row of a file cannot be read, or its fields are those of no kind or need another file.
    """
    groups: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
        name = _NAME.fullmatch(path.name.removesuffix(suffix)) if suffix else None
        if name is not None and path.is_file():
            words = [split for split, words in SPLITS.items() if name["word"] in words] or ["unsplit"]
            groups.setdefault(name["prefix"] or "", {})[words[0]] = path
    found = []
    for prefix, files in groups.items():
        chosen = files.get(split) or (files.get("unsplit") if split == "test" else None)
        one = _row_set(prefix, chosen, files) if chosen is not None else None
        if one is not None:
            found.append(one)
    return found


def file_set(path: Path) -> Found | None:
    """The set that one file of rows is; None if its fields are those of no kind."""
    name = _NAME.fullmatch(path.name.partition(".")[0])
    unsplit = name is not None and name["word"] in _UNSPLIT
    return _row_set("", path, {"unsplit" if unsplit else "test": path})


def _row_set(name: str, path: Path, files: dict[str, Path]) -> Found | None:
    """The set of a file, by the first fields of these that its first row has; ``files`` are those of all splits."""
    row = first_row(path)
    kinds: list[tuple[tuple[str, ...], Kind, Callable[[Path], EvaluationSet]]] = [
        (("sentence1", "sentence2", "score"), "sts", scored_pairs),
        (("sentence1", "sentence2", "label"), "pair-classification", labeled_pairs),
        (("sentence1", "sentence2"), "bitext", _bitext),
        (("query", "positive", "negative"), "reranking", _reranking),
        (("text", "summaries", "scores"), "summarization", _summaries),
    ]
    for fields, kind, read in kinds:
        if all(field in row for field in fields):
            return Found(name, kind, partial(read, path))
    return _labeled_set(name, path, files) if "text" in row and ("label" in row or "labels" in row) else None


def _labeled_set(name: str, path: Path, files: dict[str, Path]) -> Found:
    """Texts with labels: to be clustered, or predicted from those of another file."""
    if path == files.get("unsplit"):
        return Found(name, "clustering", lambda: clustering_of(read_rows(path)))
    if "train" not in files:
        raise InputError(
            f"{path} has texts with labels, but there is no train file beside it: classification needs one to learn "
            f"from; if its labels are clusters, name it clustering{''.join(path.suffixes)}"
        )
    return Found(name, "classification", lambda: classification_of(read_rows(files["train"]), read_rows(path)))


def scored_pairs(path: Path, rows: Iterable[Row] | None = None) -> Pairs:
    """An STS set of a file, or of its rows where they were read already."""
    rows = read_rows(path) if rows is None else rows
    items = [(row.text("sentence1"), row.text("sentence2"), row.number("score")) for row in rows]
    left, right, scores = zip(*items, strict=True)
    if len(set(scores)) == 1:
        raise InputError(f"{path.name}: every score is {scores[0]}: there is no order to find")
    return Pairs("sts", left, right, scores)


def labeled_pairs(path: Path) -> Pairs:
    """A set for pair classification; see above."""
    items = []
    for row in read_rows(path):
        label = row.number("label")
        if label not in (0, 1):
            raise row.error(f"'label' is {row.label('label')!r}; it must be 1 for a pair that means the same, else 0")
        items.append((row.text("sentence1"), row.text("sentence2"), label))
    left, right, labels = zip(*items, strict=True)
    if len(set(labels)) == 1:
        raise InputError(f"{path.name}: every label is {labels[0]:.0f}; there must be pairs of both")
    return Pairs("pair-classification", left, right, labels)


def _bitext(path: Path) -> Bitext:
    left, right = zip(*((row.text("sentence1"), row.text("sentence2")) for row in read_rows(path)), strict=True)
    return Bitext(left, right)


def _reranking(path: Path) -> Reranking:
    queries, candidates, relevant = [], [], []
    for row in read_rows(path):
        positive, negative = row.texts("positive"), row.texts("negative")
        queries.append(row.text("query"))
        candidates.append([*positive, *negative])
        relevant.append([True] * len(positive) + [False] * len(negative))
    return Reranking(queries, candidates, relevant)


def _summaries(path: Path) -> Summaries:
    references, summaries, scores = [], [], []
    for row in read_rows(path):
        texts, numbers = row.texts("summaries"), row.numbers("scores")
        if len(texts) != len(numbers):
            raise row.error(f"there are {len(texts)} summaries and {len(numbers)} scores; each summary must have one")
        original = row.text("text")
        # A text whose summaries were all scored alike has no order to find.
        if len(set(numbers)) > 1:
            references.append(row.texts("references") if "references" in row else [original])
            summaries.append(texts)
            scores.append(numbers)
    if not scores:
        raise InputError(f"{path.name}: no row has summaries of different scores: there is no order to find")
    return Summaries(references, summaries, scores)


def classification_of(train: Iterable[Row], test: Iterable[Row]) -> Classification:
    """A set for classification of the rows to learn from and those to predict.

    Raises:
        InputError: there is only one label, or none of the labels to predict can be learned.
    """
    splits: list[tuple[list[str], list[tuple[str, ...]]]] = []
    kinds: set[bool] = set()
    for rows in (train, test):
        texts: list[str] = []
        labels: list[tuple[str, ...]] = []
        for row in rows:
            several = "labels" in row
            texts.append(row.text("text"))
            labels.append(row.labels("labels") if several else (row.label("label"),))
            kinds.add(several)
            if len(kinds) > 1:
                raise row.error("some rows have 'label' and some 'labels'; all must have the same field")
        splits.append((texts, labels))
    (train_texts, train_labels), (test_texts, test_labels) = splits
    known = {label for labels in train_labels for label in labels}
    if len(known) < 2:
        raise InputError(f"the train rows have {len(known)} label; a classifier needs at least two to tell apart")
    if not any(known.intersection(labels) for labels in test_labels):
        raise InputError("no label of the test rows is in the train rows")
    draws = draw(train_labels)
    kept = {row: number for number, row in enumerate(sorted({row for rows in draws for row in rows}))}
    return Classification(
        [train_texts[row] for row in kept],
        [train_labels[row] for row in kept],
        [[kept[row] for row in rows] for rows in draws],
        test_texts,
        test_labels,
        multilabel=kinds == {True},
    )


def clustering_of(rows: Iterable[Row]) -> Clustering:
    """A set for clustering.

    Raises:
        InputError: there is only one label.
    """
    texts, labels = zip(*((row.text("text"), row.label("label")) for row in rows), strict=True)
    if len(set(labels)) < 2:
        raise InputError(f"every label is {labels[0]!r}; clusters need at least two")
    return Clustering(texts, labels)
