"""What the server says of itself: the OpenAPI document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from serving import running

from jv5kit.server.app import create_app
from jv5kit.server.corpus_map import PLACE_FIELDS
from jv5kit.server.openapi import description
from jv5kit.server.requests import EMBEDDING_FIELDS, SEARCH_FIELDS
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jv5kit import Encoder


@pytest.fixture(scope="module")
def url(encoder: Encoder) -> Iterator[str]:
    with running(Service(encoder)) as address:
        yield address


def test_openapi_has_every_route_and_field(url: str, encoder: Encoder) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    service = Service(encoder)
    app = create_app(service)
    service.close()
    assert set(document["paths"]) == {path.replace(":path", "") for path in app.paths} - {"/", "/openapi.json"}
    for path, fields in (
        ("/v1/embeddings", EMBEDDING_FIELDS),
        ("/v1/search", SEARCH_FIELDS),
        ("/v1/map", PLACE_FIELDS),
    ):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(body["properties"]) == {name for field in fields for name in (field.name, *field.aliases)}
        assert body["additionalProperties"] is False
    for path in document["paths"].values():
        for operation in path.values():
            assert "200" in operation["responses"]


def test_every_reference_of_it_leads_somewhere() -> None:
    document = description("m", needs_key=True)
    references = set(re.findall(r"#/components/schemas/(\w+)", repr(document)))
    assert references == set(document["components"]["schemas"])
    assert document["security"] == [{"key": []}]


def test_answers_have_what_it_says(url: str) -> None:
    schemas = description("tiny", needs_key=False)["components"]["schemas"]
    answer = httpx.post(f"{url}/v1/embeddings", json={"model": "tiny", "input": "a"}).json()
    assert set(answer) == set(schemas["EmbeddingResponse"]["properties"])
    (model,) = httpx.get(f"{url}/v1/models").json()["data"]
    assert set(model) == set(schemas["Model"]["properties"])
