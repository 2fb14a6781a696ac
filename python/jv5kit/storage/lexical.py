"""The lexical index: SQLite's FTS5 over the titles and texts of the documents, in the same transactions.

It keeps no texts of its own and has no checksums of its postings: a damaged one may rank otherwise, but the rows that
it names are read from the documents, which are verified.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

TOKENIZER = "porter unicode61"
"""Words without accents and case, English endings cut off."""

TITLE_WEIGHT = 2
"""What a word in the title counts, beside one in the text."""

# A list of them would be a page long.
STOP_WORDS = frozenset(
    """
    a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to
    was will with
    """.split()  # noqa: SIM905
)
"""English words that are in most texts: without them queries cost a fraction, and find the same."""

_WORD = re.compile(r"\w+")


def create(connection: sqlite3.Connection) -> None:
    """Make the table."""
    connection.execute(
        "CREATE VIRTUAL TABLE lexical USING fts5("
        f"title, text, content = 'documents', content_rowid = 'row', tokenize = '{TOKENIZER}')"
    )


def drop(connection: sqlite3.Connection) -> None:
    """Remove the table."""
    connection.execute("DROP TABLE lexical")


def add(connection: sqlite3.Connection, records: Sequence[tuple[int, str, str | None, str, str, int]]) -> None:
    """Add documents."""
    connection.executemany(
        "INSERT INTO lexical (rowid, title, text) VALUES (?, ?, ?)",
        [(row, title, text) for row, _, title, text, _, _ in records],
    )


def remove(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """Remove documents, which must still be there: the table forgets the words that it finds in them."""
    connection.executemany(
        "INSERT INTO lexical (lexical, rowid, title, text) "
        "SELECT 'delete', row, title, text FROM documents WHERE row = ?",
        [(row,) for row in rows],
    )


def wipe(connection: sqlite3.Connection) -> None:
    """Forget the words of removed documents for good: FTS5 only marks them until it merges its parts."""
    connection.execute("INSERT INTO lexical (lexical) VALUES ('optimize')")


def words_of(query: str) -> list[str]:
    """The words of a query to look for, each once: without stop words, unless it has nothing else."""
    words = dict.fromkeys(_WORD.findall(query.lower()))
    return [word for word in words if word not in STOP_WORDS or words.keys() <= STOP_WORDS]


def rows(connection: sqlite3.Connection, query: str) -> Generator[int, None, None]:
    """Rows whose texts have any word of a query, the best by BM25 first."""
    match = " OR ".join(f'"{word}"' for word in words_of(query))
    if match:
        statement = f"SELECT rowid FROM lexical WHERE lexical MATCH ? ORDER BY bm25(lexical, {TITLE_WEIGHT}, 1), rowid"
        for (row,) in connection.execute(statement, (match,)):
            yield row


def problems(connection: sqlite3.Connection) -> list[str]:
    """What FTS5's own check finds wrong."""
    try:
        connection.execute("INSERT INTO lexical (lexical, rank) VALUES ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        return [f"the lexical index: {error}"]
    return []
