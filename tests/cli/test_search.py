import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import COMMAND, Inside, checked, environment, fails, run

from jv5kit import Index


@pytest.fixture
def here(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(built)
    return built


def test_hits_as_a_user_sees_them(here: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    with Index.open(here / "docs.jv5") as index:
        hits = index.search("the warm sea", 3)
    lines = inside("search", "the warm sea", "-k", "3").stdout.splitlines()
    assert len(lines) == 6
    for rank, hit in enumerate(hits, 1):
        label = f"{hit.id}  {hit.title}" if hit.title else hit.id
        assert lines[2 * rank - 2] == f"{rank:>2}  {hit.score:.3f}  {label}"
        assert lines[2 * rank - 1] == " " * 11 + hit.text.replace("\n", " ")[:19]


def test_json_has_the_documented_shape(here: Path, inside: Inside) -> None:
    outcome = inside("search", "the warm sea", "--json", "-k", "20")
    (line,) = outcome.stdout.splitlines()
    answer = json.loads(line)
    assert list(answer) == ["query", "hits", "milliseconds"]
    assert answer["query"] == "the warm sea"
    assert len(answer["hits"]) == 13
    for hit in answer["hits"]:
        assert list(hit) == ["id", "score", "title", "text", "metadata", "passage"]
        assert -1 <= hit["score"] <= 1
    assert [hit["score"] for hit in answer["hits"]] == sorted((hit["score"] for hit in answer["hits"]), reverse=True)
    found = {hit["id"]: hit for hit in answer["hits"]}
    assert found["d1"] | {"score": 0} == {
        "id": "d1",
        "score": 0,
        "title": "Warm",
        "text": "the bird 1\nof ice",
        "metadata": {"year": 1},
        "passage": None,
    }
    assert found["é"]["text"] == "Ünïcode … 漢字 🐧"
    assert outcome.stderr == ""


def test_a_document_finds_itself(here: Path, inside: Inside, tiny_model: Path) -> None:
    """With the prompt of the documents as the query's, the best hit is the document, its cosine 1."""
    answer = json.loads(inside("search", "the penguin 8 of ice", "--json", "-k", "1").stdout)
    assert answer["hits"][0]["id"] == "d8"


@pytest.mark.parametrize("arguments", [["-k", "9" * 20], ["--oversample", "9" * 30], ["-k", "13"]])
def test_more_hits_than_documents_are_all_of_them(here: Path, inside: Inside, arguments: list[str]) -> None:
    answer = json.loads(inside("search", "sea", "--json", "-k", "13", *arguments).stdout)
    assert len({hit["id"] for hit in answer["hits"]}) == 13


def test_queries_from_standard_input(built: Path) -> None:
    """As many answers as lines, in order, each the same as by itself; the last line needs no end."""
    queries = ["the warm sea", "penguin", "Ünïcode 漢字", "[SEP]"]
    outcome = run("search", "-", "--json", "-k", "3", stdin="\n".join(queries), cwd=built)
    answers = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == queries
    with Index.open(built / "docs.jv5") as index:
        for answer in answers:
            expected = index.search(answer["query"], 3)
            assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
            np.testing.assert_allclose([h["score"] for h in answer["hits"]], [h.score for h in expected], atol=1e-5)


def test_queries_from_standard_input_have_headings(built: Path) -> None:
    outcome = run("search", "-", "-k", "1", stdin="sea\r\npenguin\r\n", cwd=built)
    lines = outcome.stdout.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# sea", "# penguin"]
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"\n", "<stdin>:1: the query is empty"),
        (b"  \t\r\n", "<stdin>:1: the query is empty"),
        (b"\xff\xfe", "<stdin>:1: the query is not UTF-8"),
        (b"caf\xe9\n", "<stdin>:1: the query is not UTF-8"),
    ],
)
def test_bad_queries_from_standard_input(built: Path, stdin: bytes, message: str) -> None:
    outcome = run("search", "-", stdin=stdin, code=2, cwd=built)
    assert (outcome.stdout, outcome.stderr) == ("", f"jv5kit: {message}\n")


def test_no_queries_give_no_answers(built: Path) -> None:
    outcome = run("search", "-", stdin=b"", cwd=built)
    assert (outcome.stdout, outcome.stderr) == ("", "")


def test_answers_come_one_by_one_where_queries_do(built: Path) -> None:
    """A program may wait for the answer before it asks again; a bad query costs none of the answers before it."""
    command = [*COMMAND, "search", "-", "--json", "-k", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=built, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for query in ("sea", "ice"):
            process.stdin.write(f"{query}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["query"] == query
        process.stdin.write(b"half a line ")
        process.stdin.flush()
        process.stdin.write(b"and its end\n \n")
        rest, errors = process.communicate(timeout=60)
    outcome = checked(subprocess.CompletedProcess(command, process.returncode, rest, errors), 2)
    assert outcome.stderr == "jv5kit: <stdin>:4: the query is empty\n"


def test_empty_queries(here: Path, inside: Inside) -> None:
    for query in ("", "  ", "\n"):
        assert inside("search", query, code=2).stderr == "jv5kit: the query is empty\n"


def test_a_query_that_is_not_utf8(here: Path, inside: Inside) -> None:
    assert inside("search", os.fsdecode(b"caf\xe9"), code=2).stderr == "jv5kit: the query is not UTF-8\n"


def test_a_reader_that_has_gone(built: Path) -> None:
    """``jv5kit search - | head -1``."""
    command = [*COMMAND, "search", "-", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=built, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"sea\n" * 300)
        process.stdin.close()
        assert process.stdout.readline().startswith(b'{"query": "sea"')
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        process.wait(timeout=60)
    assert errors == b""
    assert process.returncode in (1, -signal.SIGPIPE)


def test_closed_streams(built: Path) -> None:
    for closing in ("<&-", ">&-", "<&- >&- 2>&-"):
        command = ["bash", "-c", f'"$@" {closing}', "bash", *COMMAND, "info", "docs.jv5"]
        raw = subprocess.run(command, cwd=built, env=environment(), capture_output=True, timeout=60, check=False)
        assert checked(raw, 0).stderr == ""
        assert bool(raw.stdout) == (closing == "<&-")


def test_a_terminal_that_lacks_characters(built: Path) -> None:
    outcome = run("search", "Ünïcode … 漢字 🐧", "--json", "-k", "20", cwd=built, PYTHONIOENCODING="latin-1")
    answer = json.loads(outcome.stdout)
    assert answer["query"] == "Ünïcode … 漢字 🐧"
    assert "é" in {hit["id"] for hit in answer["hits"]}


def test_characters_that_cannot_be_shown_are_escaped(built: Path) -> None:
    outcome = run("search", "Ünïcode … 漢字 🐧", "-k", "20", cwd=built, PYTHONIOENCODING="ascii")
    assert "\\u6f22\\u5b57 \\U0001f427" in outcome.stdout


def test_json_progress_is_silent_without_a_terminal(folder: Path, tiny_model: Path, inside: Inside) -> None:
    outcome = inside("index", folder / "docs.jsonl", "-m", tiny_model, "-o", folder / "x.jv5")
    assert outcome.stdout == ""
    assert outcome.stderr.startswith(f"{folder / 'x.jv5'}: 5 documents, 64 dimensions, ubinary, ")
    assert outcome.stderr.count("\n") == 1


# How a query is encoded


@pytest.mark.parametrize("arguments", [["--binary", "--dim", "32"], ["--precision", "float32", "--dim", "17"], []])
def test_a_query_is_encoded_as_its_index_was(
    folder: Path, tiny_model: Path, encoder: Any, inside: Inside, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """The scores are the cosines of what the encoder gives with the prompts and dimensions of the index."""
    monkeypatch.chdir(folder)
    inside("index", "docs.jsonl", "-m", tiny_model, *arguments)
    dim = int(arguments[-1]) if arguments else 64
    documents = encoder.encode_document([f"a penguin {i}" for i in range(5)], truncate_dim=dim)
    cosines = encoder.encode_query("warm ice", truncate_dim=dim) @ documents.T
    monkeypatch.setenv("JV5KIT_MODEL", "not-asked-for")
    hits = json.loads(inside("search", "warm ice", "--json").stdout)["hits"]
    tolerance = 1e-5 if "float32" in arguments else 0.01
    for hit in hits:
        assert abs(hit["score"] - cosines[int(hit["id"][1:])]) < tolerance
    assert len(hits) == 5


def test_the_model_by_variable(folder: Path, tiny_model: Path, other_model: Path, inside: Inside) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JV5KIT_MODEL", str(tiny_model))
        inside("index", "docs.jsonl")
        assert json.loads(inside("info", "docs.jv5", "--json").stdout)["index_model"] == str(tiny_model)
        inside("index", "docs.jsonl", "-m", other_model, "--force")
        assert json.loads(inside("info", "docs.jv5", "--json").stdout)["index_model"] == str(other_model)


def test_info_says_what_there_is(here: Path, inside: Inside, tiny_model: Path) -> None:
    facts = json.loads(inside("info", "docs.jv5", "-m", tiny_model, "--json").stdout)
    assert facts | {"documents": 13, "precision": "ubinary", "dim": 64, "source_dim": 64, "segments": 1} == facts
    assert facts["model"] == facts["index_model"] == str(tiny_model)
    assert facts["model_fingerprint"] == facts["index_fingerprint"]
    files = [path for path in (here / "docs.jv5").rglob("*") if path.is_file()]
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    assert facts["bytes_a_document"] == round(facts["bytes"] / 13, 1)
    assert facts["simd"] in facts["simd_why"]
    plain = inside("info", "docs.jv5", "-m", tiny_model).stdout
    assert [line.split()[0] for line in plain.splitlines()] == list(facts)


def test_an_index_that_was_replaced_is_searched_anew(
    built: Path, folder: Path, tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    shutil.copytree(built / "docs.jv5", folder / "docs.jv5")
    assert len(json.loads(inside("search", "sea", "--json", "-k", "20").stdout)["hits"]) == 13
    inside("index", "docs.jsonl", "-m", tiny_model, "--force")
    assert len(json.loads(inside("search", "sea", "--json", "-k", "20").stdout)["hits"]) == 5


def test_fails_without_a_query() -> None:
    assert fails("search").startswith("there is nothing to search for: give a QUERY, or --embeddings Q.npy")
    assert fails("search", "sea", "-k", "0").startswith("-k 0")
