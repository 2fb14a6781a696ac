"""``jv5kit mine``: pairs in, pairs with negatives out."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import models
import pytest
from command import COMMAND, Inside, environment, run, write_jsonl

WORDS = models.WORDS[:12]
PAIRS = [
    {"query": f"the {word} {i}", "document": f"a {word} in {WORDS[i - 1]}", "n": i} for i, word in enumerate(WORDS)
]

LOOSE = ["--relative-margin", "0", "--similarity", "2", "-n", "3"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``pairs.jsonl``; the tiny model is the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JV5KIT_MODEL", str(tiny_model))
    write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    return tmp_path


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_to_a_file(here: Path, inside: Inside) -> None:
    outcome = inside("mine", "pairs.jsonl", "-o", "mined.jsonl", *LOOSE)
    assert outcome.stdout == ""
    mined = rows(Path("mined.jsonl").read_text(encoding="utf-8"))
    assert [(row["anchor"], row["positive"]) for row in mined] == [(row["query"], row["document"]) for row in PAIRS]
    documents = {row["document"] for row in PAIRS}
    counts = []
    for row in mined:
        negatives = [row[name] for name in row if name.startswith("negative_")]
        assert list(row) == ["anchor", "positive", *(f"negative_{i + 1}" for i in range(len(negatives)))]
        assert len({row["positive"], *negatives}) == 1 + len(negatives)
        assert set(negatives) < documents
        counts.append(len(negatives))
    assert max(counts) == 3
    first, second = outcome.stderr.splitlines()
    incomplete, without = sum(count < 3 for count in counts), counts.count(0)
    assert first == (
        f"mined.jsonl: 12 rows with {sum(counts)} negatives from 12 documents; "
        f"{incomplete} rows have fewer than wanted, {without} of them none"
    )
    assert second.startswith("left out: ")
    # Nothing else is left, the index neither.
    assert sorted(path.name for path in here.iterdir()) == ["mined.jsonl", "pairs.jsonl"]


def test_a_summary_for_programs(inside: Inside) -> None:
    outcome = inside("mine", "pairs.jsonl", "-o", "mined.jsonl", "--json", *LOOSE)
    facts = json.loads(outcome.stdout)
    assert outcome.stderr == ""
    assert list(facts) == [
        *("output", "rows", "negatives", "incomplete", "without", "documents", "within_margin", "like_positive")
    ]
    mined = rows(Path("mined.jsonl").read_text(encoding="utf-8"))
    assert (facts["output"], facts["rows"], facts["documents"]) == ("mined.jsonl", 12, 12)
    assert facts["negatives"] == sum(len(row) - 2 for row in mined)


def test_to_standard_output_as_a_process(here: Path, tiny_model: Path, inside: Inside) -> None:
    """Without what training needs: neither torch nor datasets is loaded."""
    absent = "sys.modules.update(dict.fromkeys(['torch', 'datasets', 'pyarrow']))"
    program = f"import sys; {absent}; from jv5kit.cli import main; main()"
    command = [sys.executable, "-c", program, "mine", "pairs.jsonl", *LOOSE]
    variables = environment(JV5KIT_MODEL=str(tiny_model))
    outcome = subprocess.run(command, cwd=here, env=variables, capture_output=True, text=True, check=True)
    inside("mine", "pairs.jsonl", "-o", "mined.jsonl", *LOOSE)
    assert outcome.stdout == Path("mined.jsonl").read_text(encoding="utf-8")
    assert outcome.stderr.startswith("12 rows with ")


def test_what_it_writes_is_what_training_reads(inside: Inside, rows_cache: Path) -> None:
    pytest.importorskip("datasets")
    from jv5kit.training.rows import Pair, open_source

    inside("mine", "pairs.jsonl", "-o", "mined.jsonl", *LOOSE)
    source = open_source("mined.jsonl")
    read = source.rows(range(12))
    assert all(isinstance(row, Pair) for row in read)
    assert max(len(row.negatives) for row in read if isinstance(row, Pair)) == 3
    again = inside("mine", "mined.jsonl", *LOOSE).stdout
    assert again == Path("mined.jsonl").read_text(encoding="utf-8")


def test_options(inside: Inside) -> None:
    write_jsonl(Path("docs.jsonl"), [{"text": f"the warm bird flies {i}"} for i in range(20)])
    options = ["--corpus", "docs.jsonl", "--dim", "32", "--index", "kept.jv5", "--ranks", "2-9", "--margin", "0.01"]
    outcome = inside("mine", "pairs.jsonl", "-o", "mined.jsonl", "--json", *LOOSE, *options)
    assert json.loads(outcome.stdout)["documents"] == 32
    facts = json.loads(inside("info", "kept.jv5", "--json").stdout)
    assert (facts["documents"], facts["dim"], facts["precision"]) == (32, 32, "ubinary")
    before = Path("mined.jsonl").read_text(encoding="utf-8")
    inside("mine", "pairs.jsonl", "-o", "mined.jsonl", "--force", *LOOSE, *options)
    assert Path("mined.jsonl").read_text(encoding="utf-8") == before
    inside("mine", "pairs.jsonl", "-o", "mined.jsonl", "--force", *LOOSE, *options[:-4])
    assert Path("mined.jsonl").read_text(encoding="utf-8") != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "there is no none.jsonl: name a file, a folder, or a data set of the hub as OWNER/NAME"),
        (["pairs.jsonl", "--json"], "--json prints a summary on standard output, where the rows go: name a file"),
        (["pairs.jsonl", "-o", "pairs.jsonl"], "pairs.jsonl exists; replace it with --force"),
        (["pairs.jsonl", "-o", "."], ". is a folder; name a file"),
        (["pairs.jsonl", "-o", "no/x.jsonl"], "cannot write no/x.jsonl: there is no folder no"),
        (["pairs.jsonl", "--ranks", "7"], "--ranks 7; give the first and the last, such as 1-100"),
        (["pairs.jsonl", "--ranks", "1-5"], "ranks=1-5 have no room for 7 negatives"),
        (["pairs.jsonl", "--similarity", "3"], "similarity=3; it must be in 0..2"),
        (["pairs.jsonl", "--corpus", "none.jsonl"], "cannot read none.jsonl: No such file or directory"),
        (["pairs.jsonl", "--dim", "30"], "dim=30 is not a multiple of 8"),
        (["texts.jsonl"], "texts.jsonl:1: no pair; negatives are mined for rows with an anchor and a positive"),
        (["late.jsonl"], "late.jsonl:14: 'document' is empty"),
        (["empty.jsonl"], "empty.jsonl has no row"),
    ],
)
def test_bad_input(here: Path, arguments: list[str], message: str, inside: Inside) -> None:
    write_jsonl(here / "texts.jsonl", [{"text": "a"}])
    text = (here / "pairs.jsonl").read_text(encoding="utf-8")
    (here / "late.jsonl").write_text(text + '\n{"query": "a", "document": ""}\n', encoding="utf-8")
    (here / "empty.jsonl").write_text("", encoding="utf-8")
    before = sorted(here.iterdir())
    outcome = inside("mine", *arguments, code=2)
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines()[-1].startswith(f"jv5kit: {message}")
    assert sorted(here.iterdir()) == before


def test_interrupted(here: Path, tiny_model: Path) -> None:
    """Nothing half written is left, and a kept index serves the next run."""
    write_jsonl(here / "many.jsonl", [{"anchor": f"the bird {i}", "positive": f"a warm bird {i}"} for i in range(9000)])
    command = [*COMMAND, "mine", "many.jsonl", "-o", "mined.jsonl", "--index", "kept.jv5", "--json"]
    with subprocess.Popen(
        command, cwd=here, env=environment(JV5KIT_MODEL=str(tiny_model)), stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        # When the second is begun, the first is committed.
        while len(list(here.glob("kept.jv5/segments/*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        error = process.stderr.read()
    message = "interrupted; nothing was written; what was encoded is in kept.jv5: the same command goes on"
    assert (process.returncode, error.decode()) == (130, f"jv5kit: {message}\n")
    assert not list(here.glob("*mined*"))
    assert json.loads(run("info", "kept.jv5", "--json", cwd=here).stdout)["documents"] > 0
