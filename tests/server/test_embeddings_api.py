"""POST /v1/embeddings: OpenAI's client, Jina's fields, and the vectors of the encoder to the last bit."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import openai
import pytest
from models import TEXTS
from serving import error_of, running

from jv5kit import Encoder
from jv5kit.server.limits import Limits
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SENT = [text for text in TEXTS if text.strip() and len(text) < 1000]


@pytest.fixture(scope="module")
def pico() -> Encoder:
    return Encoder.from_pretrained("pico", device="cpu")


@pytest.fixture(scope="module")
def url(pico: Encoder) -> Iterator[str]:
    # Small batches: what a request asks for goes through in several, beside the texts of others.
    with running(Service(pico, limits=Limits(batch_tokens=64))) as address:
        yield address


def ask(url: str, **fields: Any) -> dict[str, Any]:
    response = httpx.post(f"{url}/v1/embeddings", json={"model": "pico", "input": SENT} | fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def vectors(answer: dict[str, Any]) -> list[Any]:
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    return [one["embedding"] for one in answer["data"]]


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.dtype == b.dtype == np.float32 and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("encoding", ["float", "base64", None])
@pytest.mark.parametrize("dimensions", [None, 64])
def test_the_client_of_openai(url: str, pico: Encoder, encoding: Any, dimensions: int | None) -> None:
    """By itself it asks for base64, and decodes that."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none is needed")
    more = {} if encoding is None else {"encoding_format": encoding}
    more |= {} if dimensions is None else {"dimensions": dimensions}
    answer = client.embeddings.create(model="pico", input=SENT, user="somebody", **more)
    expected = pico.encode_document(SENT, task="text-matching", truncate_dim=dimensions)
    if encoding == "base64":
        rows = [np.frombuffer(base64.b64decode(str(one.embedding)), "<f4") for one in answer.data]
    else:
        rows = [np.array(one.embedding, np.float32) for one in answer.data]
    assert same_bits(np.stack(rows), expected)
    assert answer.model == "pico"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens > len(SENT)


def test_the_client_of_openai_finds_the_model(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none is needed")
    assert [model.id for model in client.models.list()] == ["pico"]
    assert client.models.retrieve("pico").owned_by == "jv5kit"
    with pytest.raises(openai.NotFoundError, match="the model 'ada' is not here; this server has 'pico'"):
        client.models.retrieve("ada")
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="ada", input="a")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("fields", "task", "query"),
    [
        ({}, "text-matching", False),
        ({"task": None, "dimensions": None}, "text-matching", False),
        ({"task": "retrieval.query"}, "retrieval", True),
        ({"task": "retrieval.passage"}, "retrieval", False),
        ({"task_type": "clustering"}, "clustering", False),
        ({"task": "classification"}, "classification", False),
        ({"input_type": "query"}, "retrieval", True),
        ({"input_type": "document", "task": "retrieval.passage"}, "retrieval", False),
    ],
)
def test_a_task_has_its_adapter(url: str, pico: Encoder, fields: dict[str, Any], task: str, query: bool) -> None:
    encode = pico.encode_query if query else pico.encode_document
    assert same_bits(np.array(vectors(ask(url, **fields)), np.float32), encode(SENT, task=task))


def test_a_task_has_its_prompt_on_a_model_without_adapters(encoder: Encoder) -> None:
    with running(Service(encoder)) as url:
        for task, encode in (("retrieval.query", encoder.encode_query), ("clustering", encoder.encode_document)):
            rows = np.array(vectors(ask(url, model="tiny", task=task)), np.float32)
            assert same_bits(rows, encode(SENT, task=task.partition(".")[0]))


def test_many_clients_with_all_tasks_have_the_vectors_of_one(url: str, pico: Encoder) -> None:
    """Whatever is encoded beside a text, and in however many batches."""
    tasks = ["text-matching", "clustering", "retrieval.query", "retrieval.passage"]
    expected = {
        task: pico.encode(SENT, task=task.partition(".")[0], truncate_dim=dim, normalize_embeddings=normalized)
        for task, dim, normalized in (
            (tasks[0], 384, True),
            (tasks[1], 128, True),
            (tasks[2], 64, False),
            (tasks[3], 384, True),
        )
    }

    def client(number: int) -> bool:
        task = tasks[number % 4]
        rows = expected[task]
        order = np.random.default_rng(number).permutation(len(SENT))
        texts = [SENT[i] for i in order]
        fields = {"task": task, "dimensions": rows.shape[1], "normalized": task != "retrieval.query"}
        return same_bits(np.array(vectors(ask(url, input=texts, **fields)), np.float32), rows[order])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(client, range(48)))


@pytest.mark.parametrize(
    "inputs",
    [SENT, [{"text": text} for text in SENT], [SENT[0], *({"text": text} for text in SENT[1:])]],
    ids=["texts", "objects", "both"],
)
@pytest.mark.parametrize("name", ["input", "content", "texts"])
def test_what_an_input_may_be(url: str, name: str, inputs: Any) -> None:
    response = httpx.post(f"{url}/v1/embeddings", json={"model": "pico", name: inputs})
    assert vectors(response.json()) == vectors(ask(url))


def test_one_text(url: str, pico: Encoder) -> None:
    for one in (SENT[0], {"text": SENT[0]}):
        (row,) = vectors(ask(url, input=one))
        assert same_bits(np.array(row, np.float32), pico.encode(SENT[0], task="text-matching"))


def test_what_is_not_normalized(encoder: Encoder, tmp_path: Path) -> None:
    with running(Service(encoder)) as url:
        rows = np.array(vectors(ask(url, model="tiny", normalized=False, dimensions=16)), np.float32)
    expected = encoder.encode_document(SENT, normalize_embeddings=False, truncate_dim=16)
    assert same_bits(rows, expected)
    assert not np.allclose(np.linalg.norm(rows, axis=1), 1)


@pytest.mark.parametrize("alias", ["embedding_type", "encoding_format", "encoding_type", "embedding_types"])
@pytest.mark.parametrize("as_list", [False, True])
def test_bits(url: str, pico: Encoder, alias: str, as_list: bool) -> None:
    codes = pico.encode(SENT, task="text-matching", precision="ubinary")
    for name, expected in (("ubinary", codes.astype(int)), ("binary", codes.astype(int) - 128)):
        rows = vectors(ask(url, **{alias: [name] if as_list else name}))
        assert rows == expected.tolist()
        assert all(isinstance(value, float) for value in rows[0])


@pytest.mark.parametrize("dtype", ["float", "int8", "uint8", "binary", "ubinary"])
def test_types_of_values(url: str, pico: Encoder, dtype: str) -> None:
    embeddings = pico.encode(SENT, task="text-matching")
    codes = np.packbits(embeddings > 0, axis=1)
    expected = {
        "float": embeddings,
        "int8": np.rint(127 * embeddings).astype("i1"),
        "uint8": np.rint(127.5 * (embeddings + 1)).astype("u1"),
        "binary": (codes.astype(int) - 128).astype("i1"),
        "ubinary": codes,
    }[dtype]
    assert vectors(ask(url, output_dtype=dtype)) == expected.tolist()
    packed = vectors(ask(url, output_dtype=dtype, embedding_type="base64"))
    rows = [np.frombuffer(base64.b64decode(one), expected.dtype) for one in packed]
    assert np.array_equal(np.stack(rows), expected)


def test_a_text_that_is_too_long(url: str, pico: Encoder) -> None:
    long = "word " * 600
    response = httpx.post(f"{url}/v1/embeddings", json={"model": "pico", "input": ["short", long, long]})
    assert response.status_code == 400
    error = error_of(response)
    assert error["code"] == "INPUT_TOKEN_LIMIT_EXCEEDED"
    assert error["message"] == (
        "input[1] is longer than the model's 512 tokens, and so are 1 others; shorten it, or send truncate true"
    )
    for name in ("truncate", "truncation"):
        answer = ask(url, input=long, **{name: True})
        assert same_bits(np.array(vectors(answer), np.float32)[0], pico.encode(long, task="text-matching"))
        assert answer["usage"]["total_tokens"] == 512
