"""Texts and rows that are cut for pico: what a span, a caption and a row is, the same for the same seed."""

import json
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "train" / "data"
sys.path.insert(0, str(DATA))

import adapter_rows  # noqa: E402 - the scripts are no package: their folder is on the path only now.
import captions  # noqa: E402 - as above.
import spans  # noqa: E402 - as above.

TEXT = (
    "Penguins are flightless seabirds. They live almost wholly in the southern hemisphere! Do they feel the cold? "
    "Emperor penguins huddle, 5,000 at a time, to stay warm in the Antarctic winter. Swifts sleep on the wing."
)


def test_sentences_end_where_another_begins() -> None:
    assert [one.split()[0] for one in spans.sentences(TEXT)] == ["Penguins", "They", "Do", "Emperor", "Swifts"]
    assert spans.sentences("version 1.5 of a. b. c") == ["version 1.5 of a. b. c"], "no capital follows"
    assert spans.sentences("  ") == []


@pytest.mark.parametrize("most", [1, 5, 12, 1000])
def test_windows_have_whole_sentences_up_to_a_length(most: int) -> None:
    found = list(spans.windows(TEXT, most))
    assert all(0 < len(window.split()) <= most for window in found)
    if most >= 15:
        assert " ".join(found) == TEXT
    if most == 12:
        assert found[0] == "Penguins are flightless seabirds. They live almost wholly in the southern hemisphere!"


def test_keywords_are_of_the_text_and_tell_something() -> None:
    draw = random.Random(1)
    for _ in range(200):
        words = spans.keywords(draw, TEXT).split()
        assert 1 < len(words) <= 7
        assert not spans.STOP_WORDS & set(words)
        assert all(word in TEXT.lower() for word in words)
    assert spans.keywords(draw, "It is of the and") == "", "there is nothing that tells anything"


def test_terse_texts_are_as_old_collections_have_them() -> None:
    assert spans.terse("The F-16's 2 wings, (swept-back).") == "the f s wings swept-back"


def test_captions_vary_and_are_sentences() -> None:
    made = list(captions.captions(random.Random(2), 2000))
    assert made == list(captions.captions(random.Random(2), 2000)), "the same seed makes the same"
    assert len(made) == 2000
    assert len(set(made)) > 1800
    for text in made:
        assert text[0].isupper(), text
        assert "+" not in text
        assert "  " not in text
        assert " a a" not in text.lower().replace(" a an", "")
    assert any(" not " in text for text in made)
    assert any(" being " in text for text in made)


def rows_folder(folder: Path) -> Path:
    """As prepare.py writes them, a few of each."""
    folder.mkdir()
    texts = [TEXT.replace("Penguins", f"Penguins of kind {i}") for i in range(30)]

    def write(name: str, rows: list[dict[str, str]]) -> None:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    for name in (*spans.PASSAGES, "qmsum"):
        # A text of one set is of no other.
        pairs = [{"anchor": f"birds of {name} {i}", "positive": f"In {name}, {i}. {t}"} for i, t in enumerate(texts)]
        write(name, pairs)
    for name in spans.SHORT:
        labeled = [{"text": f"the {i} short text of {name}", "label": f"label {i % 3}"} for i in range(30)]
        definitions = [{"anchor": f"bird {i}, fowl", "positive": f"the {i} definition of {name}"} for i in range(30)]
        write(name, definitions if name in ("oewn_definitions", "sgd_dialogues", "pydocs_en_es") else labeled)
    return folder


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_spans_are_short_and_once(tmp_path: Path) -> None:
    rows = rows_folder(tmp_path / "rows")
    command: list[str | Path] = [sys.executable, DATA / "spans.py", rows, tmp_path / "texts", "--texts", "500"]
    outcome = subprocess.run(command, check=True, capture_output=True, text=True)
    texts = [row["text"] for row in read(tmp_path / "texts" / "spans.jsonl")]
    assert len(texts) == len(set(texts)) == 500
    assert max(len(text.split()) for text in texts) <= spans.SPAN_WORDS
    assert "500 texts" in outcome.stderr
    kinds = {kind for kind, _ in spans.texts_of(random.Random(0), rows)}
    assert kinds == {"heading", "passage", "piece", "sentence", "keywords", "meeting", "short", "caption"}
    before = (tmp_path / "texts" / "spans.jsonl").read_bytes()
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "texts" / "spans.jsonl").read_bytes() == before


def test_rows_that_are_not_there_are_named(tmp_path: Path) -> None:
    for script in ("spans.py", "adapter_rows.py"):
        command: list[str | Path] = [sys.executable, DATA / script, tmp_path, tmp_path / "texts"]
        outcome = subprocess.run(command, check=False, capture_output=True, text=True)
        assert outcome.returncode == 2
        assert "acl_abstracts" in outcome.stderr
        assert "prepare.py" in outcome.stderr


def test_a_sentence_that_asks_is_not_in_what_answers(tmp_path: Path) -> None:
    rows = rows_folder(tmp_path / "rows")
    found = list(adapter_rows.pairs(random.Random(0), rows))
    taken_out = [row for row in found if row["anchor"] in TEXT]
    assert taken_out
    assert not any(row["anchor"] in row["positive"] for row in taken_out)
    assert any(row["anchor"].startswith("birds of") for row in found)
    assert all(len(row["positive"].split()) <= adapter_rows.PASSAGE_WORDS for row in found)


def test_scored_sentences_have_the_teacher_s_cosine(tmp_path: Path) -> None:
    from jv5kit import Encoder

    encoder = Encoder.from_pretrained("all-MiniLM-L6-v2")
    pairs = [("a dog runs", "a dog sleeps"), ("a dog runs", "the market fell"), ("a dog runs", "a dog runs")]
    scored = list(adapter_rows.scored(encoder, pairs))
    assert [(row["sentence1"], row["sentence2"]) for row in scored] == pairs[:2], "a sentence and itself say nothing"
    assert scored[0]["score"] > scored[1]["score"]
    first, second = encoder.encode(list(pairs[0]))
    assert abs(scored[0]["score"] - float(first @ second)) < 1e-3
    rows = rows_folder(tmp_path / "rows")
    assert len(list(islice(adapter_rows.alike(random.Random(0), rows, 16), 10))) == 10
