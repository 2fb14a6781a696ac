"""``jv5kit search``: filters, words, and queries that are embeddings."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Inside, fails, random_rows, run, write_jsonl

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(autouse=True)
def here(folder: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``docs.jv5``: five documents with years, languages, and lists of tags."""
    monkeypatch.chdir(folder)
    records = [
        {
            "id": f"d{i}",
            "text": f"a penguin {i}",
            "year": 2020 + i,
            "lang": ["en", "de"][i % 2],
            "tags": ["x"] * (i > 2),
        }
        for i in range(5)
    ]
    write_jsonl(folder / "docs.jsonl", [*records[:4], records[4] | {"odd name": True}])
    inside("index", "docs.jsonl", "--embeddings", "x.npy")
    return folder


def answers(inside: Inside, *arguments: str) -> list[dict[str, Any]]:
    outcome = inside("search", "--embeddings", "x.npy", "--json", *arguments)
    return [json.loads(line) for line in outcome.stdout.splitlines()]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("year >= 2022", "234"),
        ('year>=2021 and lang in ("en", "de") and not year = 2023', "124"),
        ("lang = 'en' or year = 2021", "0124"),
        ("tags = 'x'", "34"),
        ("`odd name` exists", "4"),
        ("`odd name` not exists and year < 2022", "01"),
        ("(year = 2020)", "0"),
    ],
)
def test_filters(inside: Inside, where: str, found: str) -> None:
    for answer in answers(inside, "--where", where):
        assert sorted(hit["id"] for hit in answer["hits"]) == [f"d{i}" for i in found]


@pytest.mark.parametrize("where", ["year > 3000", "nothing = 1", "tags in ()"])
def test_a_filter_that_matches_nothing_is_no_failure(inside: Inside, where: str) -> None:
    assert [answer["hits"] for answer in answers(inside, "--where", where)] == [[]] * 5


def test_a_field_that_no_document_has_is_said(inside: Inside) -> None:
    outcome = inside("search", "--embeddings", "x.npy", "--where", "yeer = 2020")
    assert outcome.stdout.split() == [word for i in range(5) for word in ("#", str(i))]
    assert "no document has the field 'yeer'; fields to filter by: lang, odd name, tags, year" in outcome.stderr


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "expected a field, 'not' or '(', but the filter ends"),
        ("year", "expected one of = == != < <= > >= in exists, or 'not', but the filter ends"),
        ("(year = 1", "expected 'and', 'or' or ')', but the filter ends"),
        ("(year = 1", "(at character 10 of the filter '(year = 1')"),
        ("year = 1)", "but there is )"),
        ("lang = en", "strings need quotes"),
        ("lang = 'en", "' is not closed"),
        ("year < true", "orders 'year' by true or false"),
        ("; drop table documents", "';' means nothing here"),
    ],
)
def test_a_filter_that_is_none(where: str, message: str) -> None:
    said = fails("search", "--embeddings", "x.npy", "--where", where)
    assert said.startswith("--where: ")
    assert message in said


def test_a_filter_of_the_wrong_type(inside: Inside) -> None:
    outcome = inside("search", "--embeddings", "x.npy", "--where", "year = 'x'", code=2)
    assert "compares the field 'year' with \"x\", a string, but its values are numbers" in outcome.stderr
    assert outcome.stdout == ""


def test_embeddings_as_queries(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.cli.search._READ_ROWS", 2)
    found = answers(inside, "-k", "2")
    assert [answer["query"] for answer in found] == [0, 1, 2, 3, 4]
    assert [answer["hits"][0]["id"] for answer in found] == [f"d{i}" for i in range(5)]
    plain = inside("search", "--embeddings", "x.npy", "-k", "1").stdout.splitlines()
    assert plain[:4] == ["# 0", " 1  0.999  d0", "           a penguin 0", ""]
    np.save("c.npy", np.packbits(np.load("x.npy") > 0, axis=1))
    lines = inside("search", "--embeddings", "c.npy", "--json").stdout.splitlines()
    assert [json.loads(line)["hits"][0]["score"] for line in lines] == [1.0] * 5


def test_milliseconds(inside: Inside, built: Path) -> None:
    for answer in answers(inside):
        assert set(answer["milliseconds"]) == {"encode", "filter", "scan", "rescore", "documents"}
        assert all(0 <= time < 1000 for time in answer["milliseconds"].values())
    first, second = answers(inside)[:2]
    assert first["milliseconds"] == second["milliseconds"], "each has its share of what they took together"
    (line,) = inside("search", "sea", "-i", built / "docs.jv5", "--json").stdout.splitlines()
    assert json.loads(line)["milliseconds"]["encode"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["penguin", "--embeddings", "x.npy"], "a QUERY cannot go with --embeddings"),
        (["--embeddings", "x.npy", "--hybrid"], "--hybrid cannot go with --embeddings"),
        (["--embeddings", "x.npy", "-m", "x"], "--model cannot go with --embeddings"),
        (["--embeddings", "docs.jsonl"], "docs.jsonl is no .npy file"),
        (["--embeddings", "none.npy"], "cannot read none.npy: No such file or directory"),
        (["--embeddings", "narrow.npy"], "the queries have 7 dimensions; this index takes 16"),
        (["--embeddings", "x.npy", "-i", "nowhere.jv5"], "nowhere.jv5 is no jv5kit index"),
        (["penguin"], "docs.jv5 was built from given embeddings, not texts: search it by embeddings"),
    ],
)
def test_wrong_arguments(here: Path, inside: Inside, arguments: list[str], message: str) -> None:
    np.save("narrow.npy", random_rows(2, 7))
    outcome = inside("search", *arguments, code=2)
    assert outcome.stdout == ""
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_a_query_without_direction_is_named_by_its_row(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.cli.search._READ_ROWS", 2)
    rows = np.load("x.npy")
    rows[3, 2] = np.nan
    np.save("q.npy", rows)
    outcome = inside("search", "--embeddings", "q.npy", "--json", code=2)
    assert outcome.stderr == "jv5kit: row 3 of the queries holds a NaN; it has no direction to search by\n"
    assert outcome.stdout.count("\n") == 2, "those before it are answered"


def test_no_queries(inside: Inside) -> None:
    np.save("q.npy", np.empty((0, 16), np.float32))
    assert inside("search", "--embeddings", "q.npy").stdout == ""


def test_words(inside: Inside, tiny_model: Path) -> None:
    inside("index", "docs.jsonl", "-m", tiny_model, "--lexical", "-o", "words.jv5")
    (line,) = inside("search", "penguin 3", "--hybrid", "-i", "words.jv5", "--json").stdout.splitlines()
    answer = json.loads(line)
    assert len(answer["hits"]) == 5
    assert "lexical" in answer["milliseconds"]
    (line,) = inside(
        "search", "penguin 3", "--hybrid", "-i", "words.jv5", "--json", "--where", "year < 2023"
    ).stdout.splitlines()
    assert {hit["id"] for hit in json.loads(line)["hits"]} == {"d0", "d1", "d2"}
    inside("index", "docs.jsonl", "-m", tiny_model, "-o", "plain.jv5")
    outcome = inside("search", "penguin", "--hybrid", "-i", "plain.jv5", code=2)
    assert outcome.stderr == (
        "jv5kit: the index has no lexical index to search with; build it with --lexical (lexical=True)\n"
    )


def test_an_index_of_format_1_has_no_columns(here: Path) -> None:
    shutil.copytree(GOLDEN / "ubinary-1", "old.jv5")
    run("search", "--embeddings", "x.npy", "-i", "old.jv5")
    message = fails("search", "--embeddings", "x.npy", "-i", "old.jv5", "--where", "n = 1")
    assert "has format 1, without columns to filter by" in message
    assert message.endswith("jv5kit compact brings it to the present format")
    run("compact", "old.jv5")
    assert '"id": "d1"' in run("search", "--embeddings", "x.npy", "-i", "old.jv5", "--json", "--where", "n = 1").stdout
