"""What clients ask for: the bodies of requests, checked, in OpenAI's words and Jina's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

from jv5kit.search_modes import SEARCH_MODES
from jv5kit.server.errors import ApiError, bad_request, shown
from jv5kit.server.fields import Field, check_text, read_fields, read_json
from jv5kit.server.packing import OUTPUT_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jv5kit.server.packing import OutputType
    from jv5kit.types import SearchMode

MAX_INPUTS = 2048
"""Texts of a request for embeddings; OpenAI has the same."""

MAX_QUERIES = 256
"""Queries of a search."""

MAX_TOP_K = 1000
"""Hits for each query of a search."""

MAX_HITS = 10_000
"""Hits of a search, over all its queries."""

TASKS = ("retrieval.query", "retrieval.passage", "text-matching", "clustering", "classification")
"""The tasks of jina-embeddings-v5."""

DEFAULT_TASK = "text-matching"

INPUT_TYPES = {"query": "retrieval.query", "document": "retrieval.passage"}
"""The input types of Voyage, each with its task."""

EMBEDDING_TYPES = ("float", "base64", "binary", "ubinary")

_TEXT = {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"text": {"type": "string"}}}]}

EMBEDDING_FIELDS = (
    Field(
        "input",
        ("string", "array", "object"),
        f"A text, an object with a text, or a list of at most {MAX_INPUTS} of them.",
        ("content", "texts"),
        items=_TEXT,
    ),
    Field("model", ("string",), "The model of this server, as GET /v1/models names it."),
    Field("task", ("string",), f"What the embeddings are for; by default {DEFAULT_TASK}.", ("task_type",), TASKS),
    Field("input_type", ("string",), "Another way to say that the task is retrieval.", values=(*INPUT_TYPES,)),
    Field(
        "dimensions",
        ("integer",),
        "Keep the first dimensions (Matryoshka); by default all.",
        ("output_dimension", "output_dimensionality"),
    ),
    Field("normalized", ("boolean",), "Whether embeddings have unit length; true by default."),
    Field(
        "truncate",
        ("boolean",),
        "Whether a text beyond the model's context is cut, or refused, which is the default.",
        ("truncation",),
    ),
    Field(
        "embedding_type",
        ("string", "array"),
        "How an embedding is written; a list has one of these.",
        ("encoding_format", "encoding_type", "embedding_types"),
        EMBEDDING_TYPES,
        {"type": "string", "enum": list(EMBEDDING_TYPES)},
    ),
    Field(
        "output_dtype",
        ("string",),
        "The type of the values; with embedding_type base64 their bytes are encoded.",
        values=OUTPUT_TYPES,
    ),
    Field("late_chunking", ("boolean",), "Only false: no model here has it."),
    Field("return_multivector", ("boolean",), "Only false: no model here has it."),
    Field("user", ("string",), "Taken, since OpenAI's clients may send it; of no effect."),
)

SEARCH_FIELDS = (
    Field("query", ("string",), "A text to search for."),
    Field("queries", ("array",), f"At most {MAX_QUERIES} of them.", items={"type": "string"}),
    Field("top_k", ("integer",), f"Hits for each query, 1..{MAX_TOP_K}; 10 by default."),
    Field(
        "filter",
        ("string", "object"),
        "Conditions on the metadata, in the language of --where, or as fields with the value, or the list of values, "
        "that each must have.",
    ),
    Field("hybrid", ("boolean",), "Fuse with the ranking by words, if the index has one."),
    Field("mode", ("string",), "What to compare the query with, of what the index stores.", values=SEARCH_MODES),
)


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A request for embeddings.

    Attributes:
        texts: to encode.
        task: of the encoder.
        is_query: whether the texts are queries.
        dim: to keep, or None for all.
        normalize: to unit length.
        truncate: cut texts that are too long, rather than refuse them.
        output: the type of the values.
        as_base64: whether they are in base64.
    """

    texts: list[str]
    task: str
    is_query: bool
    dim: int | None
    normalize: bool
    truncate: bool
    output: OutputType
    as_base64: bool

    @classmethod
    def of(cls, body: bytes, model: str, dim: int) -> Self:
        """Read a body.

        Args:
            body: JSON.
            model: the name of the model that is served.
            dim: its dimensions.

        Raises:
            ApiError: it cannot be answered; says why.
        """
        values = read_fields(read_json(body), EMBEDDING_FIELDS)
        _check_model(values.get("model"), model)
        for name in ("late_chunking", "return_multivector"):
            if values.get(name):
                raise bad_request(f"{name} is true, but the model {model!r} does not have that; leave it out", name)
        output, as_base64 = _output(values.get("embedding_type"), values.get("output_dtype"))
        dimensions = values.get("dimensions")
        if dimensions is not None and not 1 <= dimensions <= dim:
            raise bad_request(
                f"dimensions is {shown(dimensions)}, outside 1..{dim}, the model's own", "dimensions", status=422
            )
        if output in ("binary", "ubinary") and (dimensions or dim) % 8:
            raise bad_request(
                f"dimensions is {dimensions or dim}; {output} packs eight into a byte, so it must be a multiple of 8",
                "dimensions",
            )
        task = _task(values.get("task"), values.get("input_type"))
        return cls(
            texts=_texts(values.get("input")),
            task=task.partition(".")[0],
            is_query=task == "retrieval.query",
            dim=dimensions,
            normalize=values.get("normalized", True),
            truncate=values.get("truncate", False),
            output=output,
            as_base64=as_base64,
        )


def _check_model(given: str | None, model: str) -> None:
    if given is None:
        raise bad_request(f"model is missing; this server has {model!r}", "model")
    if given != model:
        raise ApiError(
            404,
            f"the model {shown(given)} is not here; this server has {model!r}",
            param="model",
            code="model_not_found",
        )


def _task(task: str | None, input_type: str | None) -> str:
    implied = None if input_type is None else INPUT_TYPES[input_type]
    if task is not None and implied not in (None, task):
        raise bad_request(f"input_type {input_type!r} means the task {implied!r}, but task is {task!r}", "input_type")
    return task or implied or DEFAULT_TASK


def _output(embedding_type: str | list[Any] | None, dtype: str | None) -> tuple[OutputType, bool]:
    """The type of the values, and whether they are in base64."""
    if isinstance(embedding_type, list):
        if len(embedding_type) != 1:
            raise bad_request(
                f"embedding_type is {shown(embedding_type)}; it must be one, of {', '.join(EMBEDDING_TYPES)}",
                "embedding_type",
            )
        (embedding_type,) = embedding_type
        if embedding_type not in EMBEDDING_TYPES:
            raise bad_request(
                f"embedding_type is {shown(embedding_type)}; choose one of {', '.join(EMBEDDING_TYPES)}",
                "embedding_type",
            )
    as_base64 = embedding_type == "base64"
    implied = None if as_base64 else embedding_type
    if dtype is not None and implied not in (None, "float", dtype):
        raise bad_request(f"embedding_type is {implied!r}, but output_dtype is {dtype!r}; send one", "output_dtype")
    return cast("OutputType", dtype or implied or "float"), as_base64


def _texts(given: Any) -> list[str]:
    """The texts of an input."""
    if given is None:
        raise bad_request("input is missing; send a text, or a list of texts", "input")
    if not isinstance(given, list):
        return [_text("input", given)]
    if not given:
        raise bad_request("input is an empty list; send at least one text", "input")
    if len(given) > MAX_INPUTS:
        raise bad_request(f"input has {len(given):,} texts; send at most {MAX_INPUTS:,} at a time", "input")
    return [_text(f"input[{i}]", one) for i, one in enumerate(given)]


def _text(name: str, given: Any) -> str:
    if isinstance(given, dict):
        if [*given] != ["text"]:
            raise bad_request(f"{name} is an object with {shown([*given])}; it must have a text and nothing else", name)
        return check_text(f"{name}.text", given["text"])
    numbers = given if isinstance(given, list) else [given]
    if numbers and all(type(number) is int for number in numbers):
        raise bad_request(f"{name} is {shown(given)}: token ids are not taken, send the text", name)
    return check_text(name, given)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search.

    Attributes:
        queries: to search for.
        single: whether it was one query, not a list.
        top_k: hits for each.
        where: the filter, or None.
        hybrid: fuse with the ranking by words.
        mode: what to compare with; None is the index's own.
    """

    queries: list[str]
    single: bool
    top_k: int
    where: str | Mapping[str, Any] | None
    hybrid: bool
    mode: SearchMode | None

    @classmethod
    def of(cls, body: bytes) -> Self:
        """Read a body.

        Raises:
            ApiError: it cannot be answered; says why.
        """
        values = read_fields(read_json(body), SEARCH_FIELDS)
        query, queries = values.get("query"), values.get("queries")
        if (query is None) == (queries is None):
            problem = "there is nothing to search for" if query is None else "query and queries are both there"
            raise bad_request(f"{problem}; send a query, or a list of queries", "query")
        if queries is not None and not 1 <= len(queries) <= MAX_QUERIES:
            raise bad_request(f"queries has {len(queries):,} texts; send 1 to {MAX_QUERIES}", "queries")
        top_k = values.get("top_k", 10)
        if not 1 <= top_k <= MAX_TOP_K:
            raise bad_request(f"top_k is {shown(top_k)}; it must be 1..{MAX_TOP_K}", "top_k")
        if queries is not None and len(queries) * top_k > MAX_HITS:
            raise bad_request(f"{len(queries)} queries with top_k {top_k} are more than {MAX_HITS:,} hits", "top_k")
        return cls(
            queries=[check_text("query", query)]
            if queries is None
            else [check_text(f"queries[{i}]", one) for i, one in enumerate(queries)],
            single=queries is None,
            top_k=top_k,
            where=values.get("filter"),
            hybrid=values.get("hybrid", False),
            mode=values.get("mode"),
        )
