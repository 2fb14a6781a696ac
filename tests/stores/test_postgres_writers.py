"""Another writer comes between what a batch was chosen by and its commit: the batch is chosen anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from jv5kit.building import Added
from jv5kit.errors import DuplicateError, IndexExistsError
from jv5kit.stores.postgres import PostgresIndex
from jv5kit.stores.postgres.writer import PostgresWriter

ROWS = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
RECORDS = [{"id": f"d{i}", "text": f"text {i}"} for i in range(8)]

Arrange = Callable[[Callable[[], Any]], list[int]]


@pytest.fixture
def index(postgres_url: str) -> Iterator[PostgresIndex]:
    with PostgresIndex.build(postgres_url, RECORDS[:4], embeddings=ROWS[:4]) as built:
        yield built


@pytest.fixture
def other(index: PostgresIndex, postgres_url: str) -> Iterator[PostgresIndex]:
    with PostgresIndex.open(postgres_url) as opened:
        yield opened


@pytest.fixture
def before_commit(monkeypatch: pytest.MonkeyPatch) -> Arrange:
    """Has something happen before the next commit; gives the documents of each commit that is tried after it."""
    commit = PostgresWriter.commit

    def arrange(happens: Callable[[], Any]) -> list[int]:
        tried: list[int] = []

        def late(writer: PostgresWriter, documents: Any, tensors: Any, delete: Any = ()) -> None:
            if not tried:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(PostgresWriter, "commit", commit)
                    happens()
            tried.append(len(documents))
            commit(writer, documents, tensors, delete)

        monkeypatch.setattr(PostgresWriter, "commit", late)
        return tried

    return arrange


def test_the_same_documents_are_then_identical(
    index: PostgresIndex, other: PostgresIndex, before_commit: Arrange
) -> None:
    tried = before_commit(lambda: other.add(RECORDS[4:6], embeddings=ROWS[4:6]))
    assert index.add(RECORDS, embeddings=ROWS) == Added(2, 6)
    assert tried == [4, 2]
    assert len(index.search(ROWS[0], 100)) == len(index) == 8


def test_another_document_of_an_id_is_refused_and_the_rest_is_there(
    index: PostgresIndex, other: PostgresIndex, before_commit: Arrange
) -> None:
    tried = before_commit(lambda: other.add([RECORDS[5] | {"text": "other"}], embeddings=ROWS[5:6]))
    skipped: list[Exception] = []
    assert index.add(RECORDS, embeddings=ROWS, skip=skipped.append) == Added(3, 4)
    assert tried == [4, 3]
    assert [str(error) for error in skipped] == ["document 6: the id 'd5' is taken by other content in the index"]
    assert [document and document.text for document in index.get(["d5", "d6"])] == ["other", "text 6"]
    tried = before_commit(lambda: other.add([{"id": "x", "text": "other"}], embeddings=ROWS[5:6]))
    with pytest.raises(DuplicateError, match="the id 'x' is taken by other content in the index"):
        index.add([{"id": "x", "text": "x"}, {"id": "y", "text": "y"}], embeddings=ROWS[:2])
    assert index.get(["y"]) == [None]


def test_what_another_writer_has_replaced_is_replaced_again(
    index: PostgresIndex, other: PostgresIndex, before_commit: Arrange
) -> None:
    tried = before_commit(lambda: other.upsert([{"id": "d1", "text": "of the other"}], embeddings=ROWS[5:6]))
    assert index.upsert([{"id": "d1", "text": "last"}], embeddings=ROWS[1:2]) == Added(1, 0, 1)
    assert tried == [1, 1]
    assert [document and document.text for document in index.get(["d1"])] == ["last"]
    assert len(index) == 4


def test_what_another_writer_has_deleted_is_not_replaced(
    index: PostgresIndex, other: PostgresIndex, before_commit: Arrange
) -> None:
    tried = before_commit(lambda: other.delete(["d1"]))
    assert index.upsert([{"id": "d1", "text": "new"}, {"id": "d2", "text": "new"}], embeddings=ROWS[:2]) == Added(
        2, 0, 1
    )
    assert tried == [2, 2]
    assert len(index) == 4


def test_a_stricter_default_of_the_server_is_no_obstacle(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * 16)
    url = f"{postgres_url}&options={quote('-c default_transaction_isolation=serializable')}"
    PostgresIndex.build(url, RECORDS[:4], embeddings=ROWS[:4]).close()
    started = threading.Barrier(3)

    def write(writer: int) -> Added:
        with PostgresIndex.open(url) as index:
            started.wait()
            records = [{"id": f"{writer}-{i}", "text": "own"} for i in range(8)]
            return index.add([*records, *RECORDS], embeddings=np.concatenate([ROWS, ROWS]))

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(write, range(3)))
    assert sum(added.documents for added in found) == 3 * 8 + 4
    assert sum(added.identical for added in found) == 3 * 8 - 4


def test_one_of_two_who_build_the_same_index_is_told_so(
    index: PostgresIndex, postgres_url: str, before_commit: Arrange
) -> None:
    url = f"{postgres_url}-other"
    before_commit(lambda: PostgresIndex.build(url, RECORDS[:2], embeddings=ROWS[:2]).close())
    with pytest.raises(IndexExistsError, match=r"is an index already \(2 documents\)"):
        PostgresIndex.build(url, RECORDS, embeddings=ROWS)
    with PostgresIndex.open(url) as built:
        assert len(built) == 2
