"""POST /v1/search and GET /v1/index: the hits of the command line, the modes, and what the index holds."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from command import run, write_jsonl
from serving import error_of, running

from jv5kit import Index
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jv5kit import Encoder
    from jv5kit.types import SearchMode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with ``words.jv5``, whose index has words too."""
    folder = tmp_path_factory.mktemp("search")
    animals = ["penguin", "bird", "sea", "ice"]
    records = [
        {"id": f"d{i}", "text": f"the {animals[i % 4]} {i}", "year": 2000 + i, "tags": ["a", i]} for i in range(40)
    ]
    write_jsonl(folder / "docs.jsonl", records)
    run("index", "docs.jsonl", "-m", tiny_model, "-o", "words.jv5", "--lexical", "-q", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path, encoder: Encoder) -> Iterator[str]:
    index = Index.open(folder / "words.jv5")
    index.use_encoder(encoder)
    with running(Service(encoder, index)) as address:
        yield address


def ask(url: str, **fields: Any) -> dict[str, Any]:
    response = httpx.post(f"{url}/v1/search", json=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, []),
        ({"top_k": 3}, ["-k", "3"]),
        ({"filter": "year >= 2020 and tags = 'a'"}, ["--where", "year >= 2020 and tags = 'a'"]),
        ({"filter": {"year": [2001, 2002]}}, ["--where", "year in (2001, 2002)"]),
        ({"hybrid": True}, ["--hybrid"]),
        ({"filter": "year < 1900"}, ["--where", "year < 1900"]),
    ],
)
def test_the_hits_of_the_command_line(
    url: str, folder: Path, tiny_model: Path, fields: dict[str, Any], options: list[str]
) -> None:
    """To the last bit of the scores."""
    printed = run("search", "bird 7", "-i", "words.jv5", "-m", tiny_model, "--json", *options, cwd=folder).stdout
    answer = ask(url, query="bird 7", **fields)
    assert answer["hits"] == json.loads(printed)["hits"]
    assert answer["query"] == "bird 7"
    assert (len(answer["hits"]) == 0) == ("1900" in str(fields))


def test_several_queries(url: str) -> None:
    queries = ["bird", "the sea", "ice 3"]
    answer = ask(url, queries=queries, top_k=2)
    assert [*answer] == ["results", "milliseconds", "mode", "bytes_a_document"]
    singles = [ask(url, query=query, top_k=2) for query in queries]
    assert answer["results"] == [{"query": one["query"], "hits": one["hits"]} for one in singles]


def test_modes(url: str, folder: Path, encoder: Encoder) -> None:
    index = Index.open(folder / "words.jv5")
    query = encoder.encode_query("bird 7")
    kept: dict[SearchMode, int] = {"ubinary+int8": 76, "int8": 68, "ubinary": 8}
    assert httpx.get(f"{url}/v1/index").json()["modes"] == kept
    modes: list[SearchMode | None] = [None, *kept]
    for mode in modes:
        answer = ask(url, query="bird 7", mode=mode)
        name = mode or "ubinary+int8"
        assert (answer["mode"], answer["bytes_a_document"]) == (name, kept[name])
        hits = index.search(query, mode=mode)
        assert [(hit["id"], pytest.approx(hit["score"], abs=1e-6)) for hit in answer["hits"]] == [
            (hit.id, hit.score) for hit in hits
        ]
        stages = {"tokenize", "queue", "encode", "filter", "scan", "documents"}
        assert set(answer["milliseconds"]) - {"rescore"} == stages
        assert ("rescore" in answer["milliseconds"]) == (name != "ubinary")


def test_what_the_index_holds(url: str) -> None:
    facts = httpx.get(f"{url}/v1/index").json()
    fields = facts.pop("fields")
    assert facts == {
        "documents": 40,
        "rows": 40,
        "dim": 64,
        "precision": "ubinary",
        "rescore": "int8",
        "model": "tiny",
        "lexical": True,
        "approximate": False,
        "map": True,
        "modes": {"ubinary+int8": 76.0, "int8": 68.0, "ubinary": 8.0},
    }
    assert fields["year"]["types"] == ["number"]
    assert len(fields["year"]["examples"]) == 5
    assert set(fields["year"]["examples"]) <= set(range(2000, 2040))
    assert fields["tags"]["types"] == ["number", "string"]
    assert fields["tags"]["examples"][0] == "a"
    assert fields["tags"]["examples"][1:] == sorted(fields["tags"]["examples"][1:])
    assert len(fields["tags"]["examples"]) == 6


def test_a_document_of_several_passages_has_as_many_rows(tmp_path: Path, tiny_model: Path, encoder: Encoder) -> None:
    write_jsonl(tmp_path / "docs.jsonl", [{"id": "long", "text": "the bird flies over the sea " * 20}])
    run("index", "docs.jsonl", "-m", tiny_model, "--passages", "32", "-q", cwd=tmp_path)
    index = Index.open(tmp_path / "docs.jv5")
    assert index.row_count > 3
    index.use_encoder(encoder)
    with running(Service(encoder, index)) as url:
        answer = ask(url, query="bird", mode="ubinary")
        assert answer["bytes_a_document"] == 8 * index.row_count
        assert answer["hits"][0]["passage"]["number"] >= 1


def test_new_documents_are_found_and_another_model_is_not_searched(
    folder: Path, tmp_path: Path, encoder: Encoder, other_model: Path
) -> None:
    place = tmp_path / "words.jv5"
    shutil.copytree(folder / "words.jv5", place)
    index = Index.open(place)
    index.use_encoder(encoder)
    with running(Service(encoder, index)) as url:
        ask(url, query="warm")
        with Index.open(place) as writing:
            writing.use_encoder(encoder)
            writing.add([{"id": "new", "text": "a warm query of the document"}])
        assert ask(url, query="a warm query of the document", top_k=1)["hits"][0]["id"] == "new"
        run("index", folder / "docs.jsonl", "-m", other_model, "-o", place, "--force", "-q")
        response = httpx.post(f"{url}/v1/search", json={"query": "warm"})
        assert response.status_code == 503
        assert error_of(response)["message"] == (
            "the index was replaced by one of another model than 'tiny'; start the server anew"
        )


def test_a_damaged_index_is_said_to_be_one(folder: Path, tmp_path: Path, encoder: Encoder) -> None:
    place = tmp_path / "words.jv5"
    shutil.copytree(folder / "words.jv5", place)
    (segment,) = place.glob("segments/*.safetensors")
    data = bytearray(segment.read_bytes())
    index = Index.open(place)
    index.use_encoder(encoder)
    for i in range(len(data) // 4, len(data)):
        data[i] ^= 1
    with segment.open("r+b") as file:
        file.write(data)
    with running(Service(encoder, index)) as url:
        response = httpx.post(f"{url}/v1/search", json={"query": "warm"})
    assert response.status_code == 503
    assert "is damaged" in error_of(response)["message"]
    assert "restore it from a copy" in error_of(response)["message"]
