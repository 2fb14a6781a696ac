"""``jv5kit search``: a query, or many, against an index."""

from __future__ import annotations

import json as json_lines
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jv5kit.cli.options import Json, Model, Quiet, Verbose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jv5kit.types import Hit

_READ_BYTES = 64 << 10


def search(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="A text; - reads queries from standard input, one a line.")
    ],
    index: Annotated[
        Path | None,
        typer.Option("--index", "-i", metavar="DIR", help="An index (default: the only *.jv5 in this folder)."),
    ] = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", metavar="N", help="Hits for each query.")] = 10,
    oversample: Annotated[
        int, typer.Option("--oversample", metavar="N", help="Candidates for each hit, where codes are searched first.")
    ] = 4,
    model: Model = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find the documents nearest to a text.

    The query is encoded as the documents were: with the model, the prompt and the dimensions of the index. --model says
    where that model is now.
    """
    from jv5kit.errors import InputError
    from jv5kit.logs import log_to_stderr
    from jv5kit.retrieval import open_index

    log_to_stderr(quiet=quiet, verbose=verbose)
    for name, value in (("-k", top_k), ("--oversample", oversample)):
        if value < 1:
            raise InputError(f"{name} {value}: it must be at least 1")
    opened = open_index(index)
    if model is not None:
        opened.use_encoder(model)
    if query == "-":
        batches = _stdin_queries()
    elif not query.strip():
        raise InputError("the query is empty")
    elif not query.isprintable() and any("\ud800" <= character <= "\udfff" for character in query):
        raise InputError("the query is not UTF-8")
    else:
        batches = iter([[query]])
    several = query == "-"
    for queries in batches:
        for text, hits in zip(queries, opened.search(queries, top_k, oversample=oversample), strict=True):
            _print(text, hits, json=json, heading=several)
        sys.stdout.flush()


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


def _print(query: str, hits: list[Hit], *, json: bool, heading: bool) -> None:
    if json:
        ascii_only = sys.stdout.encoding.lower() != "utf-8"
        print(json_lines.dumps({"query": query, "hits": [hit.to_dict() for hit in hits]}, ensure_ascii=ascii_only))
        return
    if heading:
        print(f"# {query}")
    width = shutil.get_terminal_size().columns
    for rank, hit in enumerate(hits, 1):
        # A label that names the document already need not be said twice.
        label = hit.id if not hit.title or hit.title == hit.id else f"{hit.id}  {hit.title}"
        print(f"{rank:>2}  {hit.score:.3f}  {label}")
        text = " ".join(hit.text.split())
        room = max(20, width - 11)
        if text:
            print(f"{'':11}{text if len(text) <= room else text[: room - 1] + '…'}")
    if heading:
        print()
