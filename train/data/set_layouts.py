"""How the sets lie on disk: what their files hold, row by row. Nothing here knows what is trained on."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

csv.field_size_limit(1 << 30)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def table(path: Path, *, quoted: bool, names: list[str] | None = None) -> Iterator[dict[str, str]]:
    """The rows of a table, by the names of its columns.

    Args:
        path: CSV if its name says so, else with tabs.
        quoted: whether a field may be in quotes; else a quote is a character as any other.
        names: of the columns, where the file has no header.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(
            file,
            delimiter="," if path.suffix == ".csv" else "\t",
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )
        header = names or next(rows)
        for row in rows:
            yield dict(zip(header, row, strict=True))


class Beir:
    """A retrieval set in the layout of BEIR."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.queries = {query["_id"]: query for query in json_lines(folder / "queries.jsonl")}
        self.corpus = {document["_id"]: document for document in json_lines(folder / "corpus.jsonl")}

    def judged(self, split: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The queries of a split, each with every document that was judged relevant."""
        for row in table(self._folder / "qrels" / f"{split}.tsv", quoted=False):
            if int(row["score"]) > 0:
                yield self.queries[row["query-id"]], self.corpus[row["corpus-id"]]

    def splits(self) -> list[str]:
        """The names of its splits."""
        return sorted(path.stem for path in (self._folder / "qrels").glob("*.tsv"))


def content(document: dict[str, Any]) -> str:
    """What an encoder reads of a document: its title, if it has one, and its text."""
    return f"{document['title']}\n{document['text']}" if document.get("title") else str(document["text"])


def unquoted_twice(text: str) -> str:
    """A text that is in quotes still, after one pair was taken."""
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return text[1:-1].replace('""', '"').strip()
    return text
