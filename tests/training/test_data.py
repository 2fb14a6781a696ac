"""The rows of ``data``: enough of them, and nothing that is held out among those to train on."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from jv5kit.evaluation.beir import read_beir

DATA = Path(__file__).parent / "data"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def texts(*names: str) -> set[str]:
    """Every text of some files, without case and punctuation."""
    values = (
        value for name in names for row in rows(name) for key, value in row.items() if key not in ("_id", "label")
    )
    return {" ".join(re.findall(r"\w+", value.lower())) for value in values if isinstance(value, str)}


def test_nothing_that_is_held_out_is_trained_on() -> None:
    held_out = texts("graded.jsonl", "retrieval/corpus.jsonl", "retrieval/queries.jsonl")
    trained_on = texts("pairs.jsonl", "scored.jsonl", "labeled.jsonl")
    assert len(held_out) > 1300
    assert len(trained_on) > 8000
    assert not held_out & trained_on


def test_there_are_rows_enough() -> None:
    assert Counter(row["score"] for row in rows("graded.jsonl")) == dict.fromkeys(range(4), 110)
    collection = read_beir(DATA / "retrieval")
    assert (len(collection.documents), len(collection.queries)) == (400, 120)
    assert len(rows("pairs.jsonl")) == 4000
    assert Counter(Counter(row["label"] for row in rows("labeled.jsonl")).values()) == {20: 25}


def test_no_definition_is_asked_about_twice() -> None:
    """A term is in one pair only, so that no pair can be told from another one."""
    sentences = [row[key] for row in rows("graded.jsonl") for key in ("sentence1", "sentence2")]
    assert len(set(sentences)) == len(sentences)
