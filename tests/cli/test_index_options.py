"""``jv5kit index``: how an index stores, and how it goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import Inside, fails, random_rows, run, write_jsonl

from jv5kit import Index
from jv5kit.storage.state import Settings


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def settings() -> Settings:
    with Index.open("docs.jv5") as index:
        return index.settings


INDEX = ["index", "docs.jsonl", "--embeddings", "x.npy"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("ubinary", "int8", False, False, False)),
        (["--rescore", "codes"], ("ubinary", "codes", False, False, False)),
        (["--binary", "--rescore", "none"], ("ubinary", "none", False, False, False)),
        (["--precision", "int8", "--lexical"], ("int8", "none", False, True, False)),
        (["--precision", "float32", "--hnsw", "--rotate"], ("float32", "none", True, False, True)),
        (["--rotate", "--dim", "8"], ("ubinary", "int8", True, False, False)),
    ],
)
def test_settings(inside: Inside, arguments: list[str], expected: tuple[object, ...]) -> None:
    inside(*INDEX, *arguments)
    stored = settings()
    rotated = stored.rotation is not None
    assert (stored.precision, stored.rescore, rotated, stored.lexical, stored.hnsw) == expected
    again = inside(*INDEX, *arguments, "--append")
    assert "5 documents were there already, identical" in again.stderr
    facts = json.loads(inside("info", "docs.jv5", "--json").stdout)
    assert tuple(facts[name] for name in ("precision", "rescore", "rotated", "lexical", "hnsw")) == expected
    assert facts["fields"] == {"year": ["number"]}
    hits = json.loads(inside("search", "--embeddings", "x.npy", "--json", "-k", "1").stdout.splitlines()[3])["hits"]
    assert hits[0]["id"] == "d3"


def test_codes(inside: Inside) -> None:
    np.save("c.npy", np.packbits(np.load("x.npy") > 0, axis=1))
    for arguments, rescore in (([], "none"), (["--rescore", "codes"], "codes")):
        inside("index", "docs.jsonl", "--embeddings", "c.npy", "--force", *arguments)
        assert (settings().rescore, settings().dim) == (rescore, 16)
        lines = inside("search", "--embeddings", "c.npy", "-k", "1", "--json").stdout.splitlines()
        assert [json.loads(line)["hits"][0]["id"] for line in lines] == [f"d{i}" for i in range(5)]
    for arguments, message in (
        (["--rescore", "int8"], "codes have no int8 rows to rescore with"),
        (["--rotate"], "codes cannot be rotated"),
        (["--dim", "8"], "codes of 16 bits make a ubinary index of that dimension"),
        (["--precision", "float32"], "codes of 16 bits make a ubinary index"),
    ):
        assert inside("index", "--embeddings", "c.npy", *arguments, code=2).stderr.startswith(f"jv5kit: {message}")
        assert not Path("c.jv5").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rescore", "int4"], "--rescore int4 is not known; choose one of int8, codes, none"),
        (["--rescore", "codes", "--precision", "int8"], "rescore='codes' is for precision 'ubinary'"),
        (["--hnsw"], "hnsw goes with precision 'float32', whose rows its graph holds, not with 'ubinary'"),
        (["--hnsw", "--precision", "int8"], "hnsw goes with precision 'float32'"),
        (["--upsert", "--append"], "--append refuses other documents of an id that is there and --upsert takes them"),
        (["--upsert", "--force"], "--upsert adds to an index and --force replaces it: choose one"),
        (["--upsert"], "docs.jv5 is no jv5kit index"),
    ],
)
def test_contradictions(arguments: list[str], message: str) -> None:
    assert fails(*INDEX, *arguments).startswith(message)
    assert not Path("docs.jv5").exists()


def test_a_model_is_not_loaded_for_settings_that_contradict(inside: Inside) -> None:
    outcome = inside("index", "docs.jsonl", "-m", "no/such/model", "--hnsw", code=2)
    assert outcome.stderr.startswith("jv5kit: hnsw goes with precision 'float32'")


@pytest.mark.parametrize("goes_on", ["--append", "--upsert"])
def test_settings_that_an_index_does_not_have(inside: Inside, goes_on: str) -> None:
    inside(*INDEX)
    for arguments, message in (
        (["--precision", "int8"], f"--precision int8: docs.jv5 has ubinary, which {goes_on} cannot change"),
        (["--rescore", "codes"], f"--rescore codes: docs.jv5 has int8, which {goes_on} cannot change"),
        (["--dim", "8"], f"--dim 8: docs.jv5 has 16, which {goes_on} cannot change"),
        (["--rotate"], f"--rotate: docs.jv5 was built without it, which {goes_on} cannot change"),
        (["--lexical"], f"--lexical: docs.jv5 was built without it, which {goes_on} cannot change"),
        (["--hnsw"], f"--hnsw: docs.jv5 was built without it, which {goes_on} cannot change"),
    ):
        assert inside(*INDEX, goes_on, *arguments, code=2).stderr == f"jv5kit: {message}\n"


def test_upsert(inside: Inside) -> None:
    inside(*INDEX)
    records = [json.loads(line) for line in Path("docs.jsonl").read_text().splitlines()]
    write_jsonl(Path("new.jsonl"), [records[0], {"id": "d1", "text": "a bird"}, {"id": "n", "text": "new"}])
    np.save("new.npy", np.concatenate([random_rows(5)[:1], random_rows(2, seed=1)]))
    arguments = ["index", "new.jsonl", "--embeddings", "new.npy", "-o", "docs.jv5", "--upsert"]
    lines = inside(*arguments).stderr.splitlines()
    assert lines[:2] == ["1 documents were there already, identical", "1 documents were replaced"]
    assert lines[2].startswith("docs.jv5: 6 documents, 16 dimensions, ubinary")
    last = inside(*arguments, "--json").stdout.splitlines()[-1]
    assert json.loads(last) == {"index": "docs.jv5", "documents": 6, "skipped": 0, "replaced": 0}
    assert inside("get", "d1", "n").stdout.splitlines() == [
        '{"id": "d1", "text": "a bird"}',
        '{"id": "n", "text": "new"}',
    ]


def test_an_upsert_that_stops_goes_on_by_itself(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 2 * 4 * 16)
    inside(*INDEX)
    changed = np.load("x.npy")[::-1].copy()
    changed[4, 0] = np.nan
    np.save("x.npy", changed)
    outcome = inside(*INDEX, "--upsert", code=2)
    assert outcome.stderr.splitlines() == [
        "jv5kit: row 4 of the embeddings holds a NaN; it has no direction to search by",
        "5 documents are in docs.jv5; the same command goes on",
    ]
    changed[4, 0] = 1
    np.save("x.npy", changed)
    assert "1 documents were replaced" in inside(*INDEX, "--upsert").stderr


def test_a_missing_library_is_said_with_what_to_do(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("jv5kit.storage.graphs.importlib.import_module", missing)
    outcome = inside("index", "docs.jsonl", "-m", "no/such/model", "--precision", "float32", "--hnsw", code=1)
    assert outcome.stderr == "jv5kit: approximate search needs hnswlib: pip install 'jv5kit[hnsw]'\n"
    assert not Path("docs.jv5").exists()


def test_encode_has_no_int8() -> None:
    assert fails("encode", "docs.jsonl", "--precision", "int8").endswith("choose one of float32, ubinary")


def test_a_small_graph_is_compared_exactly() -> None:
    run(*INDEX, "--precision", "float32", "--hnsw")
    assert run("search", "--embeddings", "x.npy", "-k", "1").stdout.count("a penguin") == 5
