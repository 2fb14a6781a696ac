"""``jv5kit search``: a query, or many, against an index."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli.options import InIndex, Json, Model, Quiet, Verbose, Where, condition_of, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from jv5kit.storage.state import Settings
    from jv5kit.types import Hit

_READ_BYTES = 64 << 10

_READ_ROWS = 256
"""Queries of a file that are answered together."""


def search(
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY", help="A text; - reads queries from standard input, one a line.", show_default=False
        ),
    ] = None,
    index: InIndex = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", metavar="N", help="Hits for each query.")] = 10,
    where: Where = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Fuse with the ranking by words; the index needs --lexical.")
    ] = False,
    oversample: Annotated[
        int, typer.Option("--oversample", metavar="N", help="Candidates for each hit, where hits are rescored.")
    ] = 4,
    embeddings: Annotated[
        Path | None,
        typer.Option("--embeddings", metavar="Q.npy", help="Queries as embeddings, or uint8 codes, one a row."),
    ] = None,
    model: Model = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find the documents nearest to a text.

    The query is encoded as the documents were: with the model, the prompt and the dimensions of the index. --model says
    where that model is now. --json prints an object for each query, with the milliseconds of each stage: of queries
    that are answered together each has its share, and the first ones wait for the model to be loaded.
    """
    from jv5kit.errors import InputError
    from jv5kit.logs import log_to_stderr
    from jv5kit.retrieval import open_index

    log_to_stderr(quiet=quiet, verbose=verbose)
    for name, value in (("-k", top_k), ("--oversample", oversample)):
        if value < 1:
            raise InputError(f"{name} {value}: it must be at least 1")
    if (query is None) == (embeddings is None):
        raise InputError(
            "there is nothing to search for: give a QUERY, or --embeddings Q.npy"
            if query is None
            else "a QUERY cannot go with --embeddings, which are the queries"
        )
    if embeddings is not None and hybrid:
        raise InputError("--hybrid cannot go with --embeddings: it needs the words of a query")
    if embeddings is not None and model is not None:
        raise InputError("--model cannot go with --embeddings: nothing is left to encode")
    condition = condition_of(where)
    opened = open_index(index)
    if model is not None:
        opened.use_encoder(model)
    batches: Iterator[tuple[Sequence[str | int], Any]]
    if embeddings is not None:
        batches = _embeddings(embeddings, opened.settings)
    elif query == "-":
        batches = ((texts, texts) for texts in _stdin_queries())
    else:
        text = _checked(str(query))
        batches = iter([([text], [text])])
    several = query is None or query == "-"
    for names, queries in batches:
        stages: dict[str, float] = {}
        found = opened.search(queries, top_k, filter=condition, oversample=oversample, hybrid=hybrid, stages=stages)
        share = {stage: round(time / len(names), 4) for stage, time in stages.items()}
        for one, hits in zip(names, found, strict=True):
            _print(one, hits, share, json=json, heading=several)
        sys.stdout.flush()


def _checked(query: str) -> str:
    from jv5kit.errors import InputError

    if not query.strip():
        raise InputError("the query is empty")
    if not query.isprintable() and any("\ud800" <= character <= "\udfff" for character in query):
        raise InputError("the query is not UTF-8")
    return query


def _embeddings(path: Path, settings: Settings) -> Iterator[tuple[Sequence[int], NDArray[Any]]]:
    """The rows of a file, so many at a time, with their numbers."""
    from jv5kit.embeddings import EmbeddingsFile, as_rows, check_rows

    file = EmbeddingsFile(path)
    for start in range(0, len(file), _READ_ROWS):
        rows = file[start : start + _READ_ROWS]
        if rows.dtype != "u1":
            # Here, where the number of a row is that in the file.
            dim = rows.shape[1] if settings.rotation is not None else min(rows.shape[1], settings.dim)
            check_rows(as_rows(rows), dim, start, "queries")
        yield range(start, start + len(rows)), rows


def _stdin_queries() -> Iterator[list[str]]:
    """The lines of standard input, as many at a time as have come: batches of a file, one by one from a program."""
    from jv5kit.errors import InputError

    pending = b""
    number = 0
    while data := os.read(sys.stdin.fileno(), _READ_BYTES):
        *lines, pending = (pending + data).split(b"\n")
        queries = []
        for line in lines:
            number += 1
            try:
                queries.append(_query_of(line, number))
            except InputError:
                # What came before the bad line is answered.
                if queries:
                    yield queries
                raise
        if queries:
            yield queries
    if pending:
        yield [_query_of(pending, number + 1)]


def _query_of(line: bytes, number: int) -> str:
    from jv5kit.errors import InputError

    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f"<stdin>:{number}: the query is not UTF-8") from None
    if not text:
        raise InputError(f"<stdin>:{number}: the query is empty")
    return text


def _print(query: str | int, hits: list[Hit], milliseconds: dict[str, float], *, json: bool, heading: bool) -> None:
    if json:
        answer = {"query": query, "hits": [hit.to_dict() for hit in hits], "milliseconds": milliseconds}
        print_json(answer)
        return
    if heading:
        print(f"# {query}")
    width = shutil.get_terminal_size().columns
    for rank, hit in enumerate(hits, 1):
        # A label that names the document already need not be said twice.
        label = hit.id if hit.passage is None else f"{hit.id} [{hit.passage.number}]"
        label += f"  {hit.title}" if hit.title and hit.title != hit.id else ""
        print(f"{rank:>2}  {hit.score:.3f}  {label}")
        text = " ".join(hit.text.split())
        room = max(20, width - 11)
        if text:
            print(f"{'':11}{text if len(text) <= room else text[: room - 1] + '…'}")
    if heading:
        print()
