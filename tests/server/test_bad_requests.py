"""Whatever a client sends, it gets a 4xx that says what was wrong, in the shape of OpenAI's errors."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import httpx
import models
import pytest
from serving import error_of, running

from jv5kit import Encoder, Index
from jv5kit.server.limits import Limits
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = {"model": "tiny", "input": "a penguin"}


@pytest.fixture(scope="module")
def url(encoder: Encoder, built: Path) -> Iterator[str]:
    index = Index.open(built / "docs.jv5")
    index.use_encoder(encoder)
    with running(Service(encoder, index, Limits(body_bytes=1_000_000))) as address:
        yield address


def refusal(url: str, content: bytes, status: int, path: str = "/v1/embeddings") -> dict[str, Any]:
    response = httpx.post(url + path, content=content)
    assert response.status_code == status, response.text
    assert error_of(response)["type"] == "invalid_request_error"
    return error_of(response)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is no JSON: Expecting value"),
        (b"{", "the body is no JSON: Expecting property name"),
        (b"[" * 100_000, "the body is not usable: its JSON is nested too deeply"),
        (b'{"input":' * 100_000, "the body is not usable: its JSON is nested too deeply"),
        (b'{"input": "\xff"}', "the body is not UTF-8, from byte 11 on"),
        (b'{"model": "tiny", "input": NaN}', "the body is no JSON: NaN is no JSON number"),
        (b'{"dimensions": -Infinity}', "the body is no JSON: -Infinity is no JSON number"),
        (b'{"dimensions": 1' + b"0" * 5000 + b"}", "the body is no JSON: Exceeds the limit"),
        (b"[]", "the body is []; it must be a JSON object"),
        (b'"hello"', "the body is 'hello'; it must be a JSON object"),
        (b"null", "the body is None; it must be a JSON object"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/search"])
def test_what_is_no_json_object(url: str, path: str, body: bytes, message: str) -> None:
    error = refusal(url, body, 400, path)
    assert error["message"].startswith(message)
    assert error["code"] == "invalid_json"


def test_any_depth_of_nesting(url: str) -> None:
    """Also where the parser still manages, and what comes after it would not."""
    for depth in (*range(700, 1100, 20), 5000):
        nested = b"[" * depth + b"]" * depth
        refusal(url, b'{"model": "tiny", "input": %s}' % nested, 400)
        refusal(url, b'{"query": "a", "filter": {"a": %s}}' % nested, 400, "/v1/search")


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"input": None}, "input", "input is missing; send a text, or a list of texts"),
        ({"input": []}, "input", "input is an empty list; send at least one text"),
        ({"input": ""}, "input", "input is empty; it must have a character that is no space"),
        ({"input": ["a", " \n"]}, "input[1]", "input[1] is empty; it must have a character that is no space"),
        ({"input": 5}, "input", "input is 5; it must be a string or a list or an object"),
        ({"input": True}, "input", "input is True; it must be a string or a list or an object"),
        ({"input": ["a", None]}, "input[1]", "input[1] is None; it must be a string"),
        ({"input": ["a", True]}, "input[1]", "input[1] is True; it must be a string"),
        ({"input": [1, 2, 3]}, "input[0]", "input[0] is 1: token ids are not taken, send the text"),
        ({"input": [[1, 2, 3]]}, "input[0]", "input[0] is [1, 2, 3]: token ids are not taken, send the text"),
        ({"input": [["a"]]}, "input[0]", "input[0] is ['a']; it must be a string"),
        ({"input": {"image": "x"}}, "input", "input is an object with ['image']; it must have a text and nothing else"),
        ({"input": [{"text": 5}]}, "input[0].text", "input[0].text is 5; it must be a string"),
        ({"input": ["a"] * 2049}, "input", "input has 2,049 texts; send at most 2,048 at a time"),
        ({"input": "half \ud800"}, "input", "input has half of a surrogate pair, which is no character"),
        ({"texts": ["a"]}, "texts", "input and texts are two names of one field; send one of them"),
        ({"model": None}, "model", "model is missing; this server has 'tiny'"),
        ({"model": 3}, "model", "model is 3; it must be a string"),
        (
            {"task": "retrieval"},
            "task",
            "task is 'retrieval'; choose one of retrieval.query, retrieval.passage, text-m",
        ),
        ({"task": "separation"}, "task", "task is 'separation'; choose one of retrieval.query"),
        ({"task": ["clustering"]}, "task", "task is ['clustering']; it must be a string"),
        (
            {"task": "clustering", "input_type": "query"},
            "input_type",
            "input_type 'query' means the task 'retrieval.qu",
        ),
        ({"input_type": "search_query"}, "input_type", "input_type is 'search_query'; choose one of query, document"),
        ({"dimensions": "64"}, "dimensions", "dimensions is '64'; it must be a whole number"),
        ({"dimensions": 32.0}, "dimensions", "dimensions is 32.0; it must be a whole number"),
        ({"dimensions": True}, "dimensions", "dimensions is True; it must be a whole number"),
        (
            {"dimensions": 12, "embedding_type": "binary"},
            "dimensions",
            "dimensions is 12; binary packs eight into a by",
        ),
        ({"normalized": 1}, "normalized", "normalized is 1; it must be a boolean"),
        ({"truncate": "END"}, "truncate", "truncate is 'END'; it must be a boolean"),
        (
            {"embedding_type": "float16"},
            "embedding_type",
            "embedding_type is 'float16'; choose one of float, base64, b",
        ),
        ({"encoding_format": 5}, "encoding_format", "encoding_format is 5; it must be a string or a list"),
        (
            {"embedding_types": ["float", "binary"]},
            "embedding_type",
            "embedding_type is ['float', 'binary']; it must be",
        ),
        ({"embedding_types": []}, "embedding_type", "embedding_type is []; it must be one, of float, base64"),
        ({"embedding_types": [3]}, "embedding_type", "embedding_type is 3; choose one of float, base64"),
        ({"embedding_types": [["float"]]}, "embedding_type", "embedding_type is ['float']; choose one of float"),
        (
            {"embedding_type": "binary", "output_dtype": "int8"},
            "output_dtype",
            "embedding_type is 'binary', but output",
        ),
        ({"output_dtype": "float64"}, "output_dtype", "output_dtype is 'float64'; choose one of float, int8, uint8"),
        ({"late_chunking": True}, "late_chunking", "late_chunking is true, but the model 'tiny' does not have that"),
        ({"return_multivector": True}, "return_multivector", "return_multivector is true, but the model 'tiny' does"),
        ({"user": 5}, "user", "user is 5; it must be a string"),
        ({"temperature": 1}, "temperature", "the field 'temperature' is not known; there are input, model, task, inp"),
        ({"x" * 500: 1}, "x" * 80, "the field 'xxx"),
    ],
)
def test_fields_of_embeddings(url: str, fields: dict[str, Any], param: str, message: str) -> None:
    error = refusal(url, json.dumps(GOOD | fields).encode(), 400)
    assert error["message"].startswith(message)
    assert error["param"] == param
    assert len(error["message"]) < 400


@pytest.mark.parametrize("dimensions", [0, -1, 65, 10**30])
def test_dimensions_that_the_model_does_not_have(url: str, dimensions: int) -> None:
    error = refusal(url, json.dumps(GOOD | {"dimensions": dimensions}).encode(), 422)
    assert error["message"] == f"dimensions is {dimensions}, outside 1..64, the model's own"


def test_another_model(url: str) -> None:
    error = refusal(url, json.dumps(GOOD | {"model": "text-embedding-3-small"}).encode(), 404)
    assert error["code"] == "model_not_found"
    assert error["message"] == "the model 'text-embedding-3-small' is not here; this server has 'tiny'"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "there is nothing to search for; send a query, or a list of queries"),
        ({"query": "a", "queries": ["b"]}, "query and queries are both there; send a query, or a list of queries"),
        ({"query": ""}, "query is empty; it must have a character that is no space"),
        ({"query": ["a"]}, "query is ['a']; it must be a string"),
        ({"query": "\udfff"}, "query has half of a surrogate pair"),
        ({"queries": []}, "queries has 0 texts; send 1 to 256"),
        ({"queries": ["a"] * 257}, "queries has 257 texts; send 1 to 256"),
        ({"queries": ["a", 5]}, "queries[1] is 5; it must be a string"),
        ({"query": "a", "top_k": 0}, "top_k is 0; it must be 1..1000"),
        ({"query": "a", "top_k": 10**12}, "top_k is 1000000000000; it must be 1..1000"),
        ({"query": "a", "top_k": 2.5}, "top_k is 2.5; it must be a whole number"),
        ({"queries": ["a"] * 200, "top_k": 100}, "200 queries with top_k 100 are more than 10,000 hits"),
        ({"query": "a", "hybrid": True}, "the index has no lexical index to search with; build it with --lexical"),
        ({"query": "a", "hybrid": "yes"}, "hybrid is 'yes'; it must be a boolean"),
        (
            {"query": "a", "filter": "year >>= 3"},
            "expected a number, a string in quotes, true or false, but there is >= (at character 7",
        ),
        ({"query": "a", "filter": "year = 'x'"}, "the filter"),
        ({"query": "a", "filter": {"year": None}}, "the filter on 'year' has null"),
        ({"query": "a", "filter": 5}, "filter is 5; it must be a string or an object"),
        ({"query": "a", "mode": "exact"}, "mode is 'exact'; choose one of float32, int8, ubinary, ubinary+int8"),
        (
            {"query": "a", "mode": "float32"},
            "mode='float32' needs what this index does not store; it can be searched in ubinary+int8, int8, ubinary",
        ),
        ({"query": "a", "k": 5}, "the field 'k' is not known; there are query, queries, top_k, filter, hybrid, mode"),
    ],
)
def test_fields_of_a_search(url: str, fields: dict[str, Any], message: str) -> None:
    assert refusal(url, json.dumps(fields).encode(), 400, "/v1/search")["message"].startswith(message)


def test_a_task_that_the_model_has_no_adapter_for(model_copy: Path) -> None:
    models.add_adapter(model_copy, "retrieval", {"encoder.layer.0.output.dense": 4})
    with running(Service(Encoder.from_pretrained(model_copy, device="cpu"))) as other:
        response = httpx.post(f"{other}/v1/embeddings", json={"model": "model", "input": "a"})
    assert response.status_code == 400
    assert error_of(response)["message"] == "task='text-matching' is no adapter of this model; it has 'retrieval'"


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_long(url: str, declared: bool) -> None:
    """The sender gets its answer, though it may not have sent all yet."""
    content = json.dumps(GOOD | {"input": "a" * 2_500_000}).encode()
    chunks = (content[i : i + 65536] for i in range(0, len(content), 65536))
    response = httpx.post(f"{url}/v1/embeddings", content=content if declared else chunks)
    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"
    assert "longer than 1,000,000 bytes" in error_of(response)["message"]


def test_a_length_that_is_a_lie(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n{")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_paths_and_methods(url: str) -> None:
    response = httpx.get(f"{url}/v2/embeddings")
    assert response.status_code == 404
    assert error_of(response)["message"] == "there is nothing at /v2/embeddings; GET /openapi.json has what there is"
    response = httpx.get(f"{url}/v1/embeddings")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert error_of(response)["message"] == "GET /v1/embeddings is not possible; use POST"


def test_no_index(encoder: Encoder) -> None:
    with running(Service(encoder)) as other:
        for response in (httpx.post(f"{other}/v1/search", json={"query": "a"}), httpx.get(f"{other}/v1/index")):
            assert response.status_code == 404
            assert error_of(response)["message"] == "this server has no index; start it with --index DIR"


def test_after_all_that_it_still_answers(url: str) -> None:
    assert httpx.post(f"{url}/v1/embeddings", json=GOOD).status_code == 200
    assert 'code="500"' not in httpx.get(f"{url}/metrics").text
