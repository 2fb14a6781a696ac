"""The OpenAPI document, made of the fields that requests are parsed by."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jv5kit.server.corpus_map import PLACE_FIELDS
from jv5kit.server.requests import EMBEDDING_FIELDS, SEARCH_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jv5kit.server.fields import Field

    Schema = dict[str, Any]

_REFUSALS = {
    "400": "The request cannot be answered; the message says why, and what to do.",
    "401": "The API key is missing or wrong.",
    "408": "The body did not come in time.",
    "413": "The body is too long.",
    "429": "There is no room for the request; come again after the seconds of Retry-After.",
    "503": "The index or the model cannot be used.",
    "504": "The request was not done by its deadline.",
}

_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_STRING: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}


def description(model: str, needs_key: bool) -> Schema:
    """The OpenAPI document of a server.

    Args:
        model: the name of its model.
        needs_key: whether it has an API key.
    """
    refused = ("400", "401", "408", "413", "429", "503", "504")
    paths = {
        "/v1/embeddings": {
            "post": _operation(
                "Embed texts",
                "EmbeddingResponse",
                (*refused, "404", "422"),
                body=_fields(EMBEDDING_FIELDS, required=["input", "model"]),
            )
        },
        "/v1/search": {
            "post": _operation("Search the index", "SearchResponse", (*refused, "404"), body=_fields(SEARCH_FIELDS))
        },
        "/v1/models": {"get": _operation("The models, of which there is one", "Models", ("401",))},
        "/v1/models/{name}": {
            "get": _operation("The model", "Model", ("401", "404"))
            | {"parameters": [{"name": "name", "in": "path", "required": True, "schema": _STRING, "example": model}]}
        },
        "/v1/index": {"get": _operation("What the index holds", "Index", ("401", "404"))},
        "/v1/map": {
            "get": _operation(
                "A sample of the index in the plane of its principal components", "Map", ("401", "404", "503")
            ),
            "post": _operation(
                "Documents in that plane",
                "Placed",
                (*refused, "404"),
                body=_fields(PLACE_FIELDS, required=["ids"]),
            ),
        },
        "/health": {"get": _operation("Whether the process lives", "Status")},
        "/ready": {"get": _operation("Whether it takes requests", "Status", ("503",))},
        "/metrics": {
            "get": {
                "summary": "Metrics, for Prometheus",
                "responses": {"200": {"description": "OK", "content": {"text/plain": {"schema": _STRING}}}}
                | _refusals(("401",)),
            }
        },
    }
    components: Schema = {"schemas": _SCHEMAS}
    document: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "jv5kit", "version": version("jv5kit"), "summary": "Text embeddings, and search by them."},
        "paths": paths,
        "components": components,
    }
    if needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        for path in ("/health", "/ready"):
            paths[path]["get"]["security"] = []
    return document


def _operation(summary: str, answer: str, refused: Sequence[str] = (), body: Schema | None = None) -> Schema:
    found: Schema = {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": _content(_ref(answer))}} | _refusals(refused),
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": _content(body)}
    return found


def _refusals(codes: Sequence[str]) -> Schema:
    more = {"404": "There is no such model, or no index.", "422": "The model does not have these dimensions."}
    texts: Mapping[str, str] = _REFUSALS | more
    return {code: {"description": texts[code], "content": _content(_ref("Error"))} for code in sorted(codes)}


def _content(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _fields(fields: Sequence[Field], required: Sequence[str] = ()) -> Schema:
    schema = _of({field.name: field.schema() for field in fields})
    for field in fields:
        schema["properties"] |= {alias: {"description": f"See {field.name}."} for alias in field.aliases}
    # A required field may come under an alias.
    named = [[field.name, *field.aliases] for field in fields if field.name in required]
    schema["allOf"] = [{"anyOf": [{"required": [name]} for name in names]} for names in named]
    if not named:
        schema["oneOf"] = [{"required": ["query"]}, {"required": ["queries"]}]
        del schema["allOf"]
    return schema | {"additionalProperties": False}


def _of(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_HIT = _of(
    {
        "id": _STRING,
        "score": _NUMBER | {"description": "An estimate of the cosine."},
        "title": {"type": ["string", "null"]},
        "text": _STRING,
        "metadata": _OBJECT,
        "passage": {"type": ["object", "null"]},
    }
)

_POINT = {"id": _STRING, "x": _NUMBER, "y": _NUMBER}

_SCHEMAS: Schema = {
    "Error": _of({"error": _of({"message": _STRING, "type": _STRING, "param": _STRING, "code": _STRING})}),
    "Status": _of({"status": _STRING}),
    "EmbeddingResponse": _of(
        {
            "object": _STRING,
            "model": _STRING,
            "data": _list(
                _of(
                    {
                        "object": _STRING,
                        "index": _INTEGER,
                        "embedding": {"anyOf": [_list(_NUMBER), _STRING | {"contentEncoding": "base64"}]},
                    }
                )
            ),
            "usage": _of({"prompt_tokens": _INTEGER, "total_tokens": _INTEGER}),
        }
    ),
    "SearchResponse": _of(
        {
            "query": _STRING,
            "hits": _list(_HIT),
            "results": _list(_of({"query": _STRING, "hits": _list(_HIT)}))
            | {"description": "Of queries, instead of query and hits."},
            "milliseconds": _OBJECT | {"description": "Of each stage, for all queries together."},
            "mode": _STRING,
            "bytes_a_document": _NUMBER,
        }
    ),
    "Model": _of(
        {
            "id": _STRING,
            "object": _STRING,
            "created": _INTEGER,
            "owned_by": _STRING,
            "dimensions": _INTEGER,
            "max_tokens": _INTEGER,
            "adapters": _list(_STRING),
        }
    ),
    "Models": _of({"object": _STRING, "data": _list(_ref("Model"))}),
    "Index": _of(
        {
            "documents": _INTEGER,
            "rows": _INTEGER,
            "dim": _INTEGER,
            "precision": _STRING,
            "rescore": {"type": ["string", "null"]},
            "model": _STRING,
            "lexical": {"type": "boolean"},
            "approximate": {"type": "boolean"},
            "map": {"type": "boolean"},
            "modes": _OBJECT | {"description": "Each with the bytes a document that it works on."},
            "fields": _OBJECT | {"description": "To filter by, each with the types of its values and examples."},
        }
    ),
    "Map": _of(
        {
            "state": _STRING | {"description": "Of the index; another one has another map."},
            "documents": _INTEGER,
            "points": _list(_of(_POINT | {"title": _STRING})),
            "explained": _list(_NUMBER) | {"description": "The share of the variance that x has, and y."},
        }
    ),
    "Placed": _of(
        {
            "state": _STRING,
            "points": _list(_of(_POINT) | {"type": ["object", "null"]})
            | {"description": "In the order of the ids; null for a document that is not there."},
        }
    ),
}
