"""``jv5kit index --passages``, and what the other commands make of such an index."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Inside, random_rows, write_jsonl

from jv5kit import Document, Encoder, Index
from jv5kit.passages import Splitter
from jv5kit.storage.catalog import record
from jv5kit.storage.connection import connect

SENTENCES = "".join(f"the penguin {i} swims in the cold sea. " for i in range(20))
BIRD = "a warm bird flies and flies! "
QUERY = BIRD * 4
"""Nearer to one passage than to any other by far, which is little for a model of random weights and texts so alike."""

RECORDS: list[dict[str, Any]] = [
    {"id": "long", "title": "Of penguins", "text": f"  {SENTENCES}{BIRD * 8}{SENTENCES}\n", "year": 2020},
    {"id": "short", "title": None, "text": "the sea", "year": 2021},
    {"id": "other", "text": f"{SENTENCES}漢字 🐧", "year": 2022, "lang": "en"},
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    write_jsonl(tmp_path / "docs.jsonl", RECORDS)


@pytest.fixture
def built(inside: Inside, tiny_model: Path) -> Path:
    """``docs.jv5``, of passages and of words."""
    inside("index", "docs.jsonl", "-m", tiny_model, "--passages", "40", "--lexical")
    return Path("docs.jv5")


def search(inside: Inside, *arguments: str) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = json.loads(inside("search", *arguments, "--json").stdout)["hits"]
    return hits


def test_what_it_says(inside: Inside, tiny_model: Path) -> None:
    outcome = inside("index", "docs.jsonl", "-m", tiny_model, "--passages", "40")
    with Index.open("docs.jv5") as index:
        assert index.row_count > 10
        said = f"docs.jv5: 3 documents in {index.row_count} passages, 64 dimensions, ubinary, "
    assert outcome.stderr.startswith(said), "nothing was cut, so nothing is said of it"
    outcome = inside("index", "docs.jsonl", "-m", tiny_model, "--passages", "40", "--force", "--json")
    assert outcome.stdout.splitlines() == [
        '{"committed": 3}',
        f'{{"index": "docs.jv5", "documents": 3, "skipped": 0, "passages": {index.row_count}}}',
    ]
    outcome = inside("index", "docs.jsonl", "-m", tiny_model, "--force")
    assert outcome.stderr.splitlines()[0] == ("jv5kit: 2 of 3 texts are longer than the model's 96 tokens and were cut")
    assert "3 documents, 64 dimensions" in outcome.stderr


def nearest(encoder: Encoder) -> str:
    """The passage of the documents that is nearest to the query, by itself and by a margin that no rounding closes."""
    documents = [Document(record["id"], record["text"], record.get("title")) for record in RECORDS]
    rows = Splitter(encoder, encoder.document_prompt(), 40).split(documents)
    similarities = encoder.similarity(encoder.encode_query(QUERY), encoder.encode_document(rows.contents))[0]
    second, best = np.argsort(similarities)[-2:]
    assert similarities[best] - similarities[second] > 0.04
    text: str = rows.documents[best].text
    return text


@pytest.mark.parametrize("options", [[], ["--hybrid"]])
def test_a_hit_names_its_passage(inside: Inside, built: Path, encoder: Encoder, options: list[str]) -> None:
    found = search(inside, QUERY, "-k", "5", *options)
    assert list(found[0]) == ["id", "score", "title", "text", "metadata", "passage"]
    best, passage = found[0], found[0]["passage"]
    assert (best["id"], best["title"], best["metadata"]) == ("long", "Of penguins", {"year": 2020})
    assert list(passage) == ["number", "start", "end"]
    assert best["text"] == RECORDS[0]["text"][passage["start"] : passage["end"]]
    assert best["text"] == nearest(encoder)
    assert best["text"].count("flies!") > 3
    assert len({(hit["id"], str(hit["passage"])) for hit in found}) == 5
    lines = inside("search", QUERY, "-k", "1", *options).stdout.splitlines()
    assert lines[0] == f" 1  {best['score']:.3f}  long [{passage['number']}]  Of penguins"
    (short,) = search(inside, "the sea", "--where", "year = 2021", *options)
    assert (short["id"], short["passage"]) == ("short", None)
    assert {hit["id"] for hit in search(inside, "ice", "-k", "100", "--where", "year > 2021", *options)} == {"other"}


def test_a_whole_document_comes_back(inside: Inside, built: Path) -> None:
    lines = inside("get", "other", "long", "short").stdout.splitlines()
    given = [{key: value for key, value in RECORDS[i].items() if value is not None} for i in (2, 0, 1)]
    assert [json.loads(line) for line in lines] == given
    assert lines[0] == json.dumps(given[0], ensure_ascii=False)


def test_changes(inside: Inside, built: Path) -> None:
    assert inside("index", "docs.jsonl", "--append").stderr.startswith("3 documents were there already, identical\n")
    write_jsonl(Path("new.jsonl"), [{"id": "long", "text": "now short"}, {"id": "new", "text": SENTENCES}])
    assert (
        "the id 'long' is taken by other content"
        in inside("index", "new.jsonl", "-o", "docs.jv5", "--append", code=2).stderr
    )
    said = inside("index", "new.jsonl", "-o", "docs.jv5", "--upsert", "--passages", "40").stderr
    assert said.startswith("1 documents were replaced\ndocs.jv5: 4 documents in ")
    assert [hit["id"] for hit in search(inside, "now short", "-k", "100")].count("long") == 1
    assert inside("delete", "other", "nothing").stderr == (
        "jv5kit: docs.jv5 has no document 'nothing'\ndocs.jv5: 1 documents deleted, 3 left\n"
    )
    assert inside("delete", "--where", "year = 2021").stderr == "docs.jv5: 1 documents deleted, 2 left\n"
    assert {hit["id"] for hit in search(inside, "sea", "-k", "100", "--hybrid")} == {"long", "new"}
    assert inside("compact").stderr.startswith("docs.jv5: 2 documents, ")
    facts = json.loads(inside("info", "docs.jv5", "--verify", "--json").stdout)
    assert (facts["documents"], facts["passages"], facts["deleted"]) == (2, "40 tokens", 0)
    assert json.loads(inside("get", "new").stdout)["text"] == SENTENCES


def test_info(inside: Inside, built: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in inside("info", "docs.jv5").stdout.splitlines())
    with Index.open(built) as index:
        assert (lines["documents"], lines["passages"], lines["rows"]) == ("3", "40 tokens", str(index.row_count))
    Index.build("plain.jv5", embeddings=random_rows(2)).close()
    facts = json.loads(inside("info", "plain.jv5", "--json").stdout)
    assert (facts["documents"], facts["passages"], facts["rows"]) == (2, "none", 2)


def test_an_export_has_a_row_for_each_passage(inside: Inside, built: Path) -> None:
    inside("delete", "short")
    outcome = inside("export", "-o", "out")
    names = "codes.npy, rows.npy, scales.npy, passages.npy, ids.jsonl"
    assert outcome.stderr == f"out: 2 documents, in {names}\n"
    ids = [json.loads(line) for line in Path("out/ids.jsonl").read_text().splitlines()]
    passages = np.load("out/passages.npy")
    assert passages.dtype == np.uint32
    assert len(passages) == len(ids) == len(np.load("out/codes.npy"))
    numbers = [row[0] for row in passages.tolist()]
    long = ids.count("long")
    assert list(zip(ids, numbers, strict=True)) == [
        *(("long", number) for number in range(1, long + 1)),
        *(("other", number) for number in range(1, len(ids) - long + 1)),
    ]
    assert passages[long - 1].tolist()[2] == len(RECORDS[0]["text"])


def test_approximate_search(inside: Inside, tiny_model: Path) -> None:
    options = ["--passages", "20", "--precision", "float32", "--hnsw"]
    inside("index", "docs.jsonl", "-m", tiny_model, *options)
    inside("delete", "short")
    exact = search(inside, BIRD, "-k", "3")
    # Compacting away what was deleted makes the graph of what is too little for one otherwise.
    inside("compact")
    with Index.open("docs.jv5") as index:
        assert index._snapshot.graph is not None
    assert [(hit["id"], hit["passage"]) for hit in search(inside, BIRD, "-k", "3")] == [
        (hit["id"], hit["passage"]) for hit in exact
    ]


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--passages", "7"], "passages=7: a passage has at least 8 tokens"),
            (["--passages", "-1"], "passages=-1: a passage has at least 8 tokens"),
            (["--passages", "97"], "passages=97 is more than the 96 tokens that "),
            (["--passages", "9"], "passages=9 leaves no room for a text: special tokens and the prompt are 4 tokens"),
            (["--passages", "16", "--embeddings", "x.npy"], "--passages cannot go with --embeddings: it takes a model"),
        ],
    )
    def test_values(self, inside: Inside, tiny_model: Path, arguments: list[str], message: str) -> None:
        np.save("x.npy", random_rows(3))
        model = [] if "--embeddings" in arguments else ["-m", str(tiny_model)]
        outcome = inside("index", "docs.jsonl", *model, *arguments, code=2)
        assert outcome.stderr.startswith(f"jv5kit: {message}")
        assert outcome.stdout == ""
        assert not Path("docs.jv5").exists()

    def test_another_value_than_the_index_has(self, inside: Inside, built: Path, tiny_model: Path) -> None:
        said = inside("index", "docs.jsonl", "--append", "--passages", "48", code=2).stderr
        assert said == "jv5kit: --passages 48: docs.jv5 has 40, which --append cannot change\n"
        inside("index", "docs.jsonl", "-m", tiny_model, "-o", "plain.jv5")
        said = inside("index", "docs.jsonl", "-o", "plain.jv5", "--upsert", "--passages", "48", code=2).stderr
        assert said == "jv5kit: --passages 48: plain.jv5 has none, which --upsert cannot change\n"

    def test_embeddings_of_documents_that_it_splits(self, inside: Inside, built: Path) -> None:
        np.save("x.npy", random_rows(3, 64))
        said = inside("index", "docs.jsonl", "--append", "--embeddings", "x.npy", code=2).stderr
        assert said.startswith(
            "jv5kit: this index splits documents into passages of 40 tokens, which needs their texts"
        )

    def test_an_index_that_is_there(self, inside: Inside, built: Path, tiny_model: Path) -> None:
        said = inside("index", "docs.jsonl", "-m", tiny_model, code=2).stderr
        with Index.open(built) as index:
            assert f"docs.jv5 is an index already ({index.row_count} passages); add to it" in said

    @pytest.mark.parametrize(
        ("row", "text", "message"),
        [
            (1, None, "the document of row 1 is missing"),
            (1, "another text", "passage 2 of the document 'long' does not follow those before it"),
        ],
    )
    def test_damaged_passages(self, inside: Inside, built: Path, row: int, text: str | None, message: str) -> None:
        if text is None:
            plain = sqlite3.connect(built / "index.sqlite", isolation_level=None)
            plain.execute("DELETE FROM documents WHERE row = ?", (row,))
            plain.close()
        else:
            connection, _ = connect(built / "index.sqlite", write=True)
            values = record(row, Document("long", text, "Of penguins"), '{"year":2020}')
            connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)", values)
            connection.close()
        assert message in inside("get", "long", code=1).stderr
        assert message in inside("info", "docs.jv5", "--verify", code=1).stderr
        assert json.loads(inside("get", "other").stdout)["text"] == RECORDS[2]["text"]
