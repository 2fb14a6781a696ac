"""Every store as it is used: by its protocol, with a model, from the command line and over HTTP."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest
from command import COMMAND, environment

from jv5kit import Index
from jv5kit.errors import (
    InputError,
)
from jv5kit.stores import Store, is_url
from jv5kit.stores.postgres import PostgresIndex
from jv5kit.stores.ray import RayIndex
from jv5kit.stores.sharded import ShardedIndex

if TYPE_CHECKING:
    from pathlib import Path

    from command import Inside
    from store_fixtures import Named

    from jv5kit import Encoder


def test_every_store_has_the_methods_of_the_protocol(named: Named) -> None:
    stores: list[type[Store]] = [Index, PostgresIndex, ShardedIndex, RayIndex]
    assert named.cls in stores
    public = {name for name in vars(Store) if not name.startswith("_")} | {"__len__", "__enter__", "__exit__"}
    assert {"open", "build", "add", "upsert", "delete", "get", "search", "count", "close"} <= public
    for name in public:
        wanted, own = getattr(Store, name), getattr(named.cls, name)
        assert isinstance(own, property) == isinstance(wanted, property), name
        assert own.__doc__, name


def test_documents_are_encoded_and_found_by_their_texts(named: Named, encoder: Encoder, other_model: Path) -> None:
    texts = ["a penguin on the ice", "the sea", "a bird"]
    documents = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    with named.cls.build(named.name, documents, encoder, show_progress_bar=False) as store:
        assert store.search("a penguin on the ice")[0].id == "0"
        store.add([{"id": "new", "text": "something else"}])
        assert [hits[0].id for hits in store.search(["something else", "the sea"])] == ["new", "1"]
    with named.open() as store:
        store.use_encoder(encoder)
        assert store.encoder is encoder
        assert store.search("a bird")[0].id == "2"
        with pytest.raises(InputError, match="was built with another model"):
            store.use_encoder(other_model)


def test_it_is_served(named: Named, encoder: Encoder, tiny_model: Path) -> None:
    documents = [{"id": str(i), "text": text, "n": i} for i, text in enumerate(["a penguin on the ice", "the sea"])]
    store = named.cls.build(named.name, documents, encoder, lexical=named.kind.lexical)
    command = [*COMMAND, "serve", "-m", str(tiny_model), "--index", named.name, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            assert f"index {store.name}: 2 documents" in line
            base = next(word for word in line.replace(",", "").split() if word.startswith("http://"))
            with httpx.Client(base_url=base, timeout=60) as http:
                asked = {"query": "a penguin on the ice", "top_k": 1, "filter": "n < 5", "hybrid": named.kind.lexical}
                assert [hit["id"] for hit in http.post("/v1/search", json=asked).json()["hits"]] == ["0"]
                # What is added meanwhile is found.
                store.use_encoder(encoder)
                store.add([{"id": "new", "text": "a penguin in the snow"}])
                asked = {"query": "a penguin in the snow", "mode": "ubinary"}
                assert http.post("/v1/search", json=asked).json()["hits"][0]["id"] == "new"
                about = http.get("/v1/index").json()
                assert (about["documents"], tuple(about["modes"]), [*about["fields"]]) == (3, named.kind.modes, ["n"])
        finally:
            server.terminate()
    store.close()


def test_the_command_line_takes_the_same_words(named: Named, folder: Path, inside: Inside) -> None:
    to = "--store" if is_url(named.name) else "-o"
    shown = inside("index", folder / "docs.jsonl", "--embeddings", folder / "x.npy", to, named.name, "--json").stdout
    with named.open() as store:
        name = store.name
    assert [json.loads(line) for line in shown.splitlines()] == [
        {"committed": 5},
        {"index": name, "documents": 5, "skipped": 0},
    ]
    again = ("index", folder / "docs.jsonl", "--embeddings", folder / "x.npy", to, named.name)
    assert "--append" in inside(*again, code=2).stderr
    assert "5 documents were there already, identical" in inside(*again, "--append").stderr
    assert "5 documents" in inside(*again, "--force").stderr
    shown = inside("search", "--index", named.name, "--embeddings", folder / "x.npy", "-k", "1", "--json").stdout
    assert [json.loads(line)["hits"][0]["id"] for line in shown.splitlines()] == [f"d{i}" for i in range(5)]
    assert json.loads(inside("get", "d1", "--index", named.name).stdout)["text"] == "a penguin 1"
    assert json.loads(inside("info", named.name, "--json").stdout)["documents"] == 5
    assert inside("delete", "d1", "no", "--index", named.name, "--json").stdout == (
        json.dumps({"index": name, "deleted": 1, "missing": 1, "documents": 4}) + "\n"
    )
    assert "has no document 'd1'" in inside("get", "d1", "--index", named.name, code=1).stderr
