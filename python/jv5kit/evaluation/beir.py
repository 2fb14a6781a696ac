"""Test collections as BEIR lays them out: a folder of documents, queries and relevance judgements.

::

    corpus.jsonl        {"_id": …, "title": …, "text": …} a line; gzipped as corpus.jsonl.gz
    queries.jsonl       {"_id": …, "text": …} a line; gzipped as queries.jsonl.gz
    qrels/test.tsv      query-id, corpus-id, score: a header, then a judgement a line
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jv5kit.documents import document_from_record, read_records
from jv5kit.errors import DocumentError, InputError
from jv5kit.logs import logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jv5kit.types import Document

HEADER = ["query-id", "corpus-id", "score"]

LAYOUT = "a folder in the layout of BEIR has corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv"


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, the queries judged in one split, and their judgements.

    ``queries`` maps ids to texts, ``qrels`` maps the same ids, in the same order, to the relevance of documents. A
    document without a text is in ``qrels`` if it was judged, though not in ``documents``: nothing can find it.
    """

    documents: list[Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def read_beir(folder: Path, split: str = "test") -> Collection:
    """Read a test collection.

    Args:
        folder: holds ``corpus.jsonl``, ``queries.jsonl`` and ``qrels``.
        split: name of the judgements.

    Raises:
        InputError: a file is missing or cannot be read, or there is no judgement.
        DocumentError: the first bad line, as ``file:line: what is wrong``: it is not a JSON object, it lacks a field or
            has one of a wrong type, an id is there twice, or a judgement is of what is not there.
    """
    # First the file that a wrong split has not: a corpus may take minutes.
    judgements = _split(folder, split)
    documents: dict[str, Document | None] = {}
    for identifier, document, origin in read_records(_jsonl(folder, "corpus"), _document):
        if identifier in documents:
            raise DocumentError(f"{origin}: document {identifier!r} is there twice")
        documents[identifier] = document
    queries: dict[str, str] = {}
    for identifier, text, origin in read_records(_jsonl(folder, "queries"), _query):
        if identifier in queries:
            raise DocumentError(f"{origin}: query {identifier!r} is there twice")
        queries[identifier] = text
    qrels: dict[str, dict[str, int]] = {}
    for query, document_id, relevance, origin in _judgements(judgements):
        for noun, identifier, known in (("query", query, queries), ("document", document_id, documents)):
            if identifier not in known:
                raise DocumentError(f"{origin}: there is no {noun} {identifier!r}")
        judged = qrels.setdefault(query, {})
        if document_id in judged:
            raise DocumentError(f"{origin}: document {document_id!r} is judged twice for query {query!r}")
        judged[document_id] = relevance
    if not qrels:
        raise InputError(f"{judgements} has no judgement")
    kept = [document for document in documents.values() if document is not None]
    if len(kept) < len(documents):
        logger.warning(
            "%s: left out %d of %d documents, which have no text", folder, len(documents) - len(kept), len(documents)
        )
    return Collection(kept, {query: queries[query] for query in qrels}, qrels)


def _split(folder: Path, name: str) -> Path:
    path = folder / "qrels" / f"{name}.tsv"
    if not path.is_file():
        splits = sorted(other.stem for other in path.parent.glob("*.tsv"))
        raise InputError(f"there is no {path}; " + (f"the splits are {', '.join(splits)}" if splits else LAYOUT))
    return path


def _jsonl(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.exists():
            return path
    raise InputError(f"{folder} has no {name}.jsonl or {name}.jsonl.gz; {LAYOUT}")


def _identifier(record: dict[str, Any]) -> str:
    key = "id" if "id" in record else "_id"
    if key not in record:
        raise ValueError("'_id' is missing")
    return str(record[key])


def _document(record: dict[str, Any], _: int, origin: str) -> tuple[str, Document | None, str]:
    """A document, or None for one that has neither text nor title, with its id and where it was read."""
    identifier = _identifier(record)
    text, title = record.get("text"), record.get("title") or ""
    if not (isinstance(text, str) and isinstance(title, str)) or text.strip():
        document = document_from_record(record, identifier, origin)
        return document.id, document, origin
    # A title alone is the text to find it by; where there is none, the rest of the document is checked all the same.
    document = document_from_record({**record, "title": None, "text": title.strip() or "-"}, identifier, origin)
    return document.id, document if title.strip() else None, origin


def _query(record: dict[str, Any], _: int, origin: str) -> tuple[str, str, str]:
    document = document_from_record(record, _identifier(record), origin)
    return document.id, document.text, origin


def _judgements(path: Path) -> Iterator[tuple[str, str, int, str]]:
    """Query, document, relevance and ``file:line`` of each line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    lines = data.removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, start=1):
        origin = f"{path.name}:{number}"
        try:
            fields = line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise DocumentError(f"{origin}: not UTF-8: {error.reason} at byte {error.start + 1} of the line") from None
        if number == 1:
            if fields != HEADER:
                raise DocumentError(f"{origin}: the header must be {', '.join(HEADER)}, with tabs between them")
            continue
        if len(fields) != len(HEADER):
            raise DocumentError(f"{origin}: {len(fields)} fields; there must be {len(HEADER)}, with tabs between them")
        query, document, score = fields
        if not re.fullmatch(r"-?[0-9]{1,9}", score):
            raise DocumentError(f"{origin}: the score is {score!r}; it must be a whole number")
        yield query, document, int(score), origin
