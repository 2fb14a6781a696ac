"""What an index refuses: wrong arguments, damage, and folders that hold none or may not be written."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command import random_rows

from jv5kit import Document, Index
from jv5kit.errors import (
    DocumentError,
    IndexDamagedError,
    IndexExistsError,
    IndexNotFoundError,
    InputError,
    Jv5kitError,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "nothing to index"),
        ((), {"embeddings": np.ones((3, 8)), "dim": 9}, "dim=9 is outside 1..8"),
        ((), {"embeddings": np.ones((3, 8)), "dim": 0}, "dim=0 is outside 1..8"),
        ((), {"embeddings": np.ones((3, 8)), "dim": 7}, "dim=7 is not a multiple of 8"),
        ((), {"embeddings": np.ones((3, 8)), "precision": "int4"}, "precision='int4'"),
        ((), {"embeddings": np.ones((3, 8)), "dim": 8.0}, "dim is 8.0; it must be a whole number"),
        ((), {"embeddings": np.ones((3, 8), np.uint8), "precision": "float32"}, "codes of 64 bits make a ubinary"),
        ((), {"embeddings": np.ones((3, 8), np.uint8), "rescore": "int8"}, "codes have no int8 rows"),
        ((), {"embeddings": np.ones((3, 8), np.uint8), "rotate": True}, "codes cannot be rotated"),
        ((), {"embeddings": np.ones((3, 8)), "rescore": "int4"}, "rescore='int4'"),
        ((), {"embeddings": np.ones((3, 8)), "rescore": "int8", "precision": "int8"}, "is for precision 'ubinary'"),
        ((), {"embeddings": np.ones((3, 8)), "hnsw": True}, "hnsw goes with precision 'float32'"),
        ((), {"embeddings": np.ones(8)}, r"shape \(8,\)"),
        ((), {"embeddings": np.ones((0, 0))}, r"shape \(0, 0\)"),
        ((), {"embeddings": np.ones((3, 8)), "ids": ["a"]}, "1 ids for 3 embeddings"),
        (([{"text": "x"}],), {"embeddings": np.ones((1, 8)), "ids": ["a"]}, "documents have their own"),
        (([{"text": "x"}],), {"embeddings": np.ones((2, 8))}, "2 embeddings, but only 1 documents"),
        (([{"text": "x"}, {"text": "y"}],), {"embeddings": np.ones((1, 8))}, "only 1 embeddings, but more documents"),
        (([{"text": "x"}],), {"embeddings": np.ones((0, 8))}, "there are documents, but no embeddings"),
        (([{"no": "x"}],), {"embeddings": np.ones((1, 8))}, "document 1: 'text' is missing"),
        ((["x"],), {"embeddings": np.ones((1, 8))}, "document 1: it is str"),
        (([Document("", "x")],), {"embeddings": np.ones((1, 8))}, "'id' must be a string that is not empty"),
        (([Document("a", "x", metadata={1: 2})],), {"embeddings": np.ones((1, 8))}, "the key 1; keys must be strings"),  # type: ignore[dict-item]
        (([Document("a", "x", metadata={"a": {1, 2}})],), {"embeddings": np.ones((1, 8))}, "metadata is not JSON"),
        (([Document("a", "x", metadata={"a": float("nan")})],), {"embeddings": np.ones((1, 8))}, "not JSON"),
        (([Document("a", "x", metadata={"a": "\0"})],), {"embeddings": np.ones((1, 8))}, "'metadata' has a NUL"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, arguments: tuple[object, ...], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Index.build(tmp_path / "x.jv5", *arguments, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "x.jv5").exists()


@pytest.mark.parametrize(("value", "problem"), [(np.nan, "a NaN"), (np.inf, "an infinity"), (0, "nothing but zeros")])
def test_an_embedding_without_direction_is_named_by_its_row(tmp_path: Path, value: float, problem: str) -> None:
    embeddings = random_rows(40_000, 8)
    embeddings[33_333] = value
    with pytest.raises(InputError, match=f"row 33333 of the embeddings holds {problem}"):
        Index.build(tmp_path / "x.jv5", embeddings=embeddings)
    embeddings[0] = value
    index = Index.build(tmp_path / "y.jv5", embeddings=embeddings[1:9])
    with pytest.raises(InputError, match=f"row 0 of the queries holds {problem}"):
        index.search(embeddings[0])


def test_backslashes_about_a_nul_are_no_nul(tmp_path: Path) -> None:
    metadata = {"a": "\\u0000 and \\\\u0000"}
    index = Index.build(tmp_path / "x.jv5", [Document("a", "x", metadata=metadata)], embeddings=np.ones((1, 8)))
    assert index.search(np.ones(8))[0].metadata == metadata


def test_wrong_queries_are_named(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "x.jv5", embeddings=random_rows(5, 64), dim=16)
    assert index.search(random_rows(3, 16), 1) != index.search(random_rows(3, 64), 1)
    assert index.search([]) == []
    for query, message in (
        (np.ones(17), "have 17 dimensions; this index takes 16 or 64"),
        (np.ones((2, 2, 2)), "must have two dimensions"),
        (np.zeros((2, 3, 2), np.uint8), "must have two dimensions"),
        (np.uint8(3), "must have two dimensions"),
        ([[1, 2], [3]], "queries cannot be made an array: .*inhomogeneous"),
        ("text", "built from given embeddings, not texts"),
        (["text"], "built from given embeddings, not texts"),
    ):
        with pytest.raises(InputError, match=message):
            index.search(query)
    for options in ({"top_k": 0}, {"oversample": 0}, {"top_k": 2.5}, {"top_k": "3"}):
        with pytest.raises(InputError, match=r"must be (at least 1|a whole number)"):
            index.search(np.ones(16), **options)


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="is no jv5kit index"):
        Index.open(tmp_path)
    Index.build(tmp_path / "x.jv5", embeddings=np.ones((1, 8)))
    with pytest.raises(IndexExistsError):
        Index.build(tmp_path / "x.jv5", embeddings=np.ones((1, 8)))
    assert len(Index.build(tmp_path / "x.jv5", embeddings=np.ones((2, 8)), force=True)) == 2


def test_a_bad_start_of_a_replacement_leaves_the_index(tmp_path: Path) -> None:
    Index.build(tmp_path / "x.jv5", embeddings=np.ones((3, 8)))
    with pytest.raises(DocumentError):
        Index.build(tmp_path / "x.jv5", [{"no": "text"}], embeddings=np.ones((1, 8)), force=True)
    assert len(Index.open(tmp_path / "x.jv5")) == 3


def test_a_flipped_bit_never_changes_an_answer(tmp_path: Path) -> None:
    embeddings = random_rows(300, 64)
    Index.build(tmp_path / "x.jv5", embeddings=embeddings).close()
    files = [path for path in (tmp_path / "x.jv5").rglob("*") if path.suffix in {".safetensors", ".sqlite"}]
    expected = Index.open(tmp_path / "x.jv5").search(embeddings[:20], 5)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        path = files[rng.integers(len(files))]
        sound = path.read_bytes()
        data = bytearray(sound)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            assert Index.open(tmp_path / "x.jv5").search(embeddings[:20], 5) == expected
        except (IndexDamagedError, IndexNotFoundError):
            refused += 1
        path.write_bytes(sound)
    assert refused > 30


def test_a_folder_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Index.build(tmp_path / "x.jv5", embeddings=np.eye(8)).close()
    for path in (tmp_path / "x.jv5").glob("*-*"):
        path.unlink()
    # Root may write anywhere, so the test says what SQLite says to others.
    connect = sqlite3.connect

    def refuse(database: str, **options: object) -> sqlite3.Connection:
        if "immutable" not in database:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(database, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(sqlite3, "connect", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert Index.open(tmp_path / "x.jv5").search(np.eye(8)[3], 1)[0].id == "3"
    assert not list((tmp_path / "x.jv5").glob("*-shm")), "nothing was written beside it"
    with Index.open(tmp_path / "x.jv5") as index:
        assert not index.refresh()
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", connect)
            Index.open(tmp_path / "x.jv5").add(embeddings=np.eye(8)[:2], ids=["8", "9"])
            (tmp_path / "x.jv5" / "index.sqlite-wal").unlink(missing_ok=True)
        assert index.refresh()
        assert len(index) == 10
        assert not index.refresh()
    (tmp_path / "x.jv5" / "index.sqlite-wal").write_bytes(b"what the writer left")
    with pytest.raises(Jv5kitError, match="unable to open database file"):
        Index.open(tmp_path / "x.jv5")


def test_a_damaged_schema_is_an_error_of_ours(tmp_path: Path) -> None:
    Index.build(tmp_path / "x.jv5", embeddings=random_rows(20, 64)).close()
    path = tmp_path / "x.jv5" / "index.sqlite"
    sound = path.read_bytes()
    start = sound.index(b"CREATE TABLE documents")
    refused = 0
    for bit in range(8 * start, 8 * (start + 120), 5):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        try:
            assert len(Index.open(tmp_path / "x.jv5").search(random_rows(1, 64)[0], 3)) == 3
        except Jv5kitError:
            refused += 1
    assert refused > 10


def test_a_closed_index_says_so(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "x.jv5", embeddings=np.eye(8))
    index.close()
    with pytest.raises(Jv5kitError, match="the index was closed"):
        index.search(np.eye(8)[0])
