from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jv5kit.errors import IndexDamagedError, IndexFormatError, IndexNotFoundError
from jv5kit.storage.catalog import FILE, Catalog, Change, record
from jv5kit.storage.connection import FORMAT
from jv5kit.storage.head import write_head
from jv5kit.storage.state import SegmentEntry, Settings, State
from jv5kit.types import Document

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Settings(16, "ubinary", 64, "model", "abcd", query_prompt="Query: ", document_prompt="Document: ")
ENTRY = SegmentEntry(3, 0, 3, 12345, "{}")
STATE = State(SETTINGS, (ENTRY,), 3, commit=1)
DOCUMENTS = [
    Document("a", "first"),
    Document("b", "second ✓ 漢字", "a title", {"year": 2024, "tags": ["x", {"y": None}]}),
    Document("ü", "third"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Catalog.create(tmp_path, SETTINGS)
    write_head(tmp_path, 1)
    catalog = Catalog(tmp_path, write=True)
    texts = ["{}", '{"year":2024,"tags":["x",{"y":null}]}', "{}"]
    records = [record(row, *pair) for row, pair in enumerate(zip(DOCUMENTS, texts, strict=True))]
    catalog.commit(Change(STATE, records))
    catalog.close()
    return tmp_path


def change(folder: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(folder / FILE)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_what_was_committed_is_read(folder: Path) -> None:
    catalog = Catalog(folder)
    assert catalog.state() == STATE
    assert catalog.documents([2, 0, 1], STATE) == dict(enumerate(DOCUMENTS))
    assert list(catalog.stream(1, 2)) == [(1, DOCUMENTS[1]), (2, DOCUMENTS[2])]


@pytest.mark.parametrize(
    ("column", "value"),
    [("id", "c"), ("title", "other"), ("title", b""), ("text", "firsT"), ("metadata", '{"a":1}'), ("checksum", 1)],
)
def test_a_changed_document_is_not_returned(folder: Path, column: str, value: object) -> None:
    change(folder, f"UPDATE documents SET {column} = ? WHERE row = 0", value)
    catalog = Catalog(folder)
    assert catalog.documents([1], STATE) == {1: DOCUMENTS[1]}
    with pytest.raises(IndexDamagedError, match="document of row 0 does not match"):
        catalog.documents([0, 1], STATE)


def test_exchanged_and_missing_documents_are_found(folder: Path) -> None:
    change(folder, "UPDATE documents SET row = 9 WHERE row = 0")
    with pytest.raises(IndexDamagedError, match="document of row 9 does not match"):
        Catalog(folder).documents([9], STATE)
    with pytest.raises(IndexDamagedError, match="document of row 0 is missing"):
        Catalog(folder).documents([0, 1], STATE)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE catalog SET settings = replace(settings, '16', '24')",
        "UPDATE catalog SET digest = digest + 1",
        "UPDATE segments SET rows = 2",
        "UPDATE segments SET checksum = 1",
        "UPDATE segments SET number = 4",
        "UPDATE segments SET deleted = 1",
        "UPDATE segments SET deletions = 1",
        "UPDATE segments SET layout = ''",
        "UPDATE catalog SET next_row = 4",
        "UPDATE catalog SET graph = 'x'",
        "UPDATE catalog SET number = 2",
        "DELETE FROM segments",
        "DELETE FROM catalog",
        "DROP TABLE segments",
    ],
)
def test_changed_settings_and_segments_are_found(folder: Path, statement: str) -> None:
    change(folder, statement)
    with pytest.raises(IndexDamagedError, match=r"index\.sqlite is damaged"):
        Catalog(folder).state()


def test_a_newer_format_is_refused_by_name(folder: Path) -> None:
    change(folder, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(IndexFormatError, match=f"format {FORMAT + 1}; this jv5kit reads up to {FORMAT}"):
        Catalog(folder)


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="is no jv5kit index"):
        Catalog(tmp_path)
    sqlite3.connect(tmp_path / FILE).execute("CREATE TABLE t (x)")
    with pytest.raises(IndexNotFoundError, match="not one of jv5kit's"):
        Catalog(tmp_path)
    (tmp_path / FILE).write_bytes(b"nothing like it" * 1000)
    with pytest.raises(IndexDamagedError, match="not a database"):
        Catalog(tmp_path)


def test_random_damage_gives_an_error_or_the_same(folder: Path) -> None:
    sound = (folder / FILE).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(sound)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (folder / FILE).write_bytes(data)
        try:
            catalog = Catalog(folder)
            assert catalog.state() == STATE
            assert catalog.documents([0, 1, 2], STATE) == dict(enumerate(DOCUMENTS))
        except (IndexDamagedError, IndexFormatError, IndexNotFoundError):
            refused += 1
    assert refused > 5


def test_a_commit_is_whole_or_not_at_all(folder: Path) -> None:
    catalog = Catalog(folder, write=True)
    state = State(SETTINGS, (ENTRY, SegmentEntry(4, 3, 2, 1)), 5)
    records = [record(row, Document("new", "x"), "{}") for row in (3, 2)]
    # Only a row that should not be there can be in the way.
    with pytest.raises(IndexDamagedError, match=r"index\.sqlite is damaged: UNIQUE constraint failed: documents\.row"):
        catalog.commit(Change(state, records))
    assert Catalog(folder).state() == STATE
    assert list(Catalog(folder).select([3])) == []
