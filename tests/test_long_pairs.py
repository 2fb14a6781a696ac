"""The script that makes long documents to train on."""

import json
import sys
from pathlib import Path

import pytest
from command import write_jsonl
from typer import BadParameter

sys.path.insert(0, str(Path(__file__).parent.parent / "train/data"))
import long_documents

PAIRS = [(f"question {i}", f"The answer {i}. " + "word " * (i % 17)) for i in range(300)]


def test_answers_are_in_the_documents_and_lengths_are_kept() -> None:
    rows = list(long_documents.make(PAIRS, 100, 50, 800, seed=1))
    assert len(rows) == 100
    answers = dict(PAIRS)
    for row in rows:
        assert answers[row["anchor"]] in row["positive"]
        assert 50 * 4 <= len(row["positive"]) <= 800 * 4 + 200
    dense = [row for row in rows if row["kind"] == "dense"]
    # Dense: several anchors ask for one document.
    assert len(dense) > 2 * len({row["positive"] for row in dense})
    assert 10 < sum(row["kind"] == "sparse" for row in rows) < 90
    assert rows == list(long_documents.make(PAIRS, 100, 50, 800, seed=1))
    assert rows != list(long_documents.make(PAIRS, 100, 50, 800, seed=2))


def test_the_command(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{"anchor": anchor, "positive": positive} for anchor, positive in PAIRS])
    long_documents.main(tmp_path / "pairs.jsonl", tmp_path / "long.jsonl", count=7, least=10, most=20)
    rows = [json.loads(line) for line in (tmp_path / "long.jsonl").read_text().splitlines()]
    assert [sorted(row) for row in rows] == [["anchor", "kind", "positive"]] * 7


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}\n", r"pairs.jsonl:1: no row"), ("\n[1]\n", r"pairs.jsonl:2: no row"), ("", r"has 0 pairs")],
)
def test_what_is_no_pair(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(text)
    with pytest.raises(BadParameter, match=message):
        long_documents.main(tmp_path / "pairs.jsonl", tmp_path / "long.jsonl")
