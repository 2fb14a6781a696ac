"""``jv5kit index`` that is interrupted, and taken up again."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from command import COMMAND, Inside, checked, environment, random_rows, run, write_jsonl

from jv5kit import Index
from jv5kit.sources import BATCH_DOCUMENTS

COUNT = 2 * BATCH_DOCUMENTS + 100


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder with ``docs.jsonl``: two batches and a little more."""
    write_jsonl(tmp_path / "docs.jsonl", [{"id": f"d{i}", "text": f"ice {i}", "n": i} for i in range(COUNT)])
    return tmp_path


def interrupted(folder: Path, model: Path, feed: int) -> str:
    """Index so many lines from standard input, and interrupt it while it waits for more; returns what it says."""
    lines = (folder / "docs.jsonl").read_bytes().splitlines(keepends=True)
    command = [*COMMAND, "index", "-", "-o", "docs.jv5", "-m", str(model), "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(lines[:feed]))
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"committed": BATCH_DOCUMENTS}
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    outcome = checked(subprocess.CompletedProcess(command, process.returncode, out, errors), 130)
    assert outcome.stdout == ""
    return outcome.stderr


def test_an_interruption_says_what_is_in_and_append_completes(
    many: Path, tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(many)
    said = interrupted(many, tiny_model, feed=BATCH_DOCUMENTS + 7)
    hint = f"{BATCH_DOCUMENTS:,} documents are in docs.jv5; the same command with --append goes on"
    assert said == f"jv5kit: interrupted; {hint}\n"
    with Index.open("docs.jv5") as index:
        assert len(index) == BATCH_DOCUMENTS
        assert {hit.id for hit in index.search("ice", COUNT)} == {f"d{i}" for i in range(BATCH_DOCUMENTS)}
    outcome = inside("index", "docs.jsonl", "--append")
    lines = outcome.stderr.splitlines()
    assert lines[0] == f"{BATCH_DOCUMENTS:,} documents were there already, identical"
    assert lines[1].startswith(f"docs.jv5: {COUNT:,} documents")
    outcome = inside("index", "docs.jsonl", "--append", "--json")
    assert [json.loads(line) for line in outcome.stdout.splitlines()] == [
        {"index": "docs.jv5", "documents": COUNT, "skipped": 0}
    ]
    assert outcome.stderr == f"{COUNT:,} documents were there already, identical\n"
    with Index.open("docs.jv5") as index:
        assert sorted(hit.metadata["n"] for hit in index.search("ice", COUNT)) == list(range(COUNT))


def test_an_interruption_before_the_first_commit_leaves_nothing(many: Path, tiny_model: Path) -> None:
    """Interrupted while it waits for its second document."""
    command = [*COMMAND, "index", "-", "-o", "docs.jv5", "-m", str(tiny_model)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=many, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"text": "ice"}\n')
        process.stdin.flush()
        for _ in range(600):
            if (many / "docs.jv5" / "lock").exists():
                break
            time.sleep(0.05)
        assert (many / "docs.jv5" / "lock").exists()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    outcome = checked(subprocess.CompletedProcess(command, process.returncode, out, errors), 130)
    assert outcome.stderr == "jv5kit: interrupted; nothing was added\n"
    assert [path.name for path in many.iterdir()] == ["docs.jsonl"]


def test_an_error_after_a_commit_says_what_is_in(
    many: Path, tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(many)
    for name in ("BATCH_DOCUMENTS", "MAX_BATCH_DOCUMENTS"):
        monkeypatch.setattr(f"jv5kit.sources.{name}", 10)
    lines = (many / "docs.jsonl").read_text().splitlines(keepends=True)[:25]
    (many / "docs.jsonl").write_text("".join(lines) + "{\n")
    outcome = inside("index", "docs.jsonl", "-m", tiny_model, code=2)
    first, hint = outcome.stderr.splitlines()
    assert first.startswith("jv5kit: docs.jsonl:26: not JSON")
    assert hint == "20 documents are in docs.jv5; the same command with --append goes on"
    (many / "docs.jsonl").write_text("".join(lines))
    outcome = inside("index", "docs.jsonl", "-m", tiny_model, "--append")
    assert outcome.stderr.startswith("20 documents were there already, identical\ndocs.jv5: 25 documents")


def test_appending_more_and_other_documents(folder: Path) -> None:
    run("index", "docs.jsonl", "--embeddings", "x.npy", cwd=folder)

    np.save(folder / "more.npy", np.concatenate([random_rows(5), random_rows(2, seed=1)]))
    records = [json.loads(line) for line in (folder / "docs.jsonl").read_text().splitlines()]
    write_jsonl(folder / "more.jsonl", [*records, {"text": "new", "id": "n"}, {"text": "newer", "id": "o"}])
    arguments = ["index", "more.jsonl", "--embeddings", "more.npy", "-o", "docs.jv5", "--append"]
    outcome = run(*arguments, cwd=folder)
    assert outcome.stderr.startswith("5 documents were there already, identical\ndocs.jv5: 7 documents")
    with Index.open(folder / "docs.jv5") as index:
        for query, expected in ((random_rows(5)[3], "d3"), (random_rows(2, seed=1)[1], "o")):
            assert index.search(query, 1)[0].id == expected


def test_embeddings_alone_are_taken_up_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Inside
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 10 * 4 * 16)
    sound = np.random.default_rng(0).standard_normal((35, 16)).astype(np.float32)
    broken = sound.copy()
    broken[25, 3] = np.nan
    np.save("x.npy", broken)
    outcome = inside("index", "--embeddings", "x.npy", code=2)
    assert outcome.stderr.splitlines() == [
        "jv5kit: row 25 of the embeddings holds a NaN; it has no direction to search by",
        "20 documents are in x.jv5; the same command with --append goes on",
    ]
    np.save("x.npy", sound)
    for there in (20, 35):
        outcome = inside("index", "--embeddings", "x.npy", "--append")
        assert outcome.stderr.startswith(f"{there} documents were there already, identical\nx.jv5: 35 documents")
    sound[3] += 1
    np.save("x.npy", sound)
    outcome = inside("index", "--embeddings", "x.npy", "--append", code=2)
    assert outcome.stderr.splitlines() == [
        "jv5kit: document '3': the id '3' is taken by other content in the index",
    ]


def test_queries_before_a_bad_one_are_answered(folder: Path, tiny_model: Path) -> None:
    run("index", "docs.jsonl", "-m", tiny_model, cwd=folder)
    outcome = run("search", "-", "--json", "-k", "1", cwd=folder, stdin="ice\nsnow\n\nrain\n", code=2)
    assert [json.loads(line)["query"] for line in outcome.stdout.splitlines()] == ["ice", "snow"]
    assert outcome.stderr == "jv5kit: <stdin>:3: the query is empty\n"


def test_the_version() -> None:
    assert run("--version").stdout.startswith("jv5kit 0.")
