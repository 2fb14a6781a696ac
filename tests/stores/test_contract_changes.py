"""What every store does when it is changed, by one writer after another or by several at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contract_rows import DIM, records, rows

from jv5kit import Index
from jv5kit.building import Added
from jv5kit.errors import (
    DuplicateError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InputError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from store_fixtures import Named


def test_writers_at_the_same_time(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several may write, each document is there once; elsewhere all but one writer are told so."""
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * DIM * 5)
    named.cls.build(named.name, records(10), embeddings=rows(10)).close()
    started = threading.Barrier(4)

    def write(writer: int) -> Any:
        own = [{"id": f"w{writer}-{i}", "text": "own"} for i in range(30)]
        shared = [{"id": f"s{i}", "text": "shared"} for i in range(30)]
        documents = [document for pair in zip(own, shared, strict=True) for document in pair]
        with named.open() as store:
            started.wait()
            try:
                added = store.add(documents, embeddings=np.repeat(rows(30), 2, axis=0))
                replaced = store.upsert(
                    [{"id": "one", "text": f"of {writer}-{i}"} for i in range(20)], embeddings=rows(20)
                )
                return added, replaced
            except IndexLockedError as error:
                return error

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(write, range(4)))
    done = [outcome for outcome in outcomes if not isinstance(outcome, IndexLockedError)]
    assert done
    if named.kind.writers:
        assert len(done) == 4
    with named.open() as store:
        assert len(store) == 10 + 30 * len(done) + 30 + 1
        assert sum(added.documents for added, _ in done) == 30 * len(done) + 30
        assert sum(added.identical for added, _ in done) == 30 * (len(done) - 1)
        assert sum(upserted.replaced for _, upserted in done) == sum(one.documents for _, one in done) - 1
        assert [len(store.search(rows(30)[i], 100, filter={"n": i})) for i in range(2)] == [1, 1]
        assert all(store.get([f"s{i}" for i in range(30)]))


def test_many_threads_may_search(named: Named) -> None:
    queries = rows(40, seed=1)
    with named.cls.build(named.name, records(200), embeddings=rows(200)) as store:
        expected = [store.search(query, filter="n < 150") for query in queries]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                assert list(pool.map(lambda query: store.search(query, filter="n < 150"), queries)) == expected


def test_each_batch_is_acknowledged_when_it_is_there(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    if not named.kind.batches:
        pytest.skip(f"{named.kind.name}: all of it together")
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * DIM * 8)
    committed: list[int] = []

    def documents() -> Iterator[dict[str, Any]]:
        for record in records(40):
            if record["n"] == 30:
                raise KeyboardInterrupt
            yield record

    with pytest.raises(KeyboardInterrupt):
        named.cls.build(named.name, documents(), embeddings=rows(40), on_commit=committed.append)
    assert committed == [8, 16, 24]
    with named.open() as store:
        assert len(store) == 24
        assert store.add(records(40), embeddings=rows(40)) == Added(16, 24)
        skipped: list[InputError] = []
        assert store.add([{"id": "d1", "text": "other"}], embeddings=rows(1), skip=skipped.append) == Added()
        assert [type(error) for error in skipped] == [DuplicateError]


def test_an_index_is_there_whole_or_not_at_all(named: Named) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from records(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        named.cls.build(named.name, broken(), embeddings=rows(9))
    with pytest.raises(IndexNotFoundError):
        named.open()
    named.cls.build(named.name, records(5), embeddings=rows(5)).close()
    with pytest.raises(IndexExistsError, match=r"5 documents.*force"):
        named.cls.build(named.name, records(3), embeddings=rows(3))
    with pytest.raises(KeyboardInterrupt):
        named.cls.build(named.name, broken(), embeddings=rows(9), force=True)
    reader = named.open()
    assert len(reader) == 5
    named.cls.build(named.name, records(3, first=50), embeddings=rows(3, dim=16), force=True).close()
    reader.refresh()
    assert {hit.id for hit in reader.search(rows(1, dim=16)[0])} == {"d50", "d51", "d52"}
    reader.close()


def test_a_reader_that_is_not_told_finds_what_took_the_place(named: Named) -> None:
    reader = named.cls.build(named.name, records(5), embeddings=rows(5))
    named.cls.build(named.name, records(3, first=50), embeddings=rows(3), force=True).close()
    assert {hit.id for hit in reader.search(rows(1)[0])} == {"d50", "d51", "d52"}
    reader.close()


def test_identical_documents_are_passed_over_and_others_refused(named: Named) -> None:
    with named.cls.build(named.name, records(10), embeddings=rows(10)) as store:
        assert store.add(records(12), embeddings=np.concatenate([rows(10), rows(2, seed=5)])) == Added(2, 10)
        with pytest.raises(DuplicateError, match="the id 'd3' is taken by other content"):
            store.add([records(10)[3] | {"text": "other"}], embeddings=rows(10)[3:4])
        with pytest.raises(DuplicateError, match="the id 'd3' is taken by other content"):
            store.add([records(10)[3]], embeddings=rows(1, seed=9))
        with pytest.raises(DuplicateError, match="the id 'new' is taken by an earlier document"):
            store.add([{"id": "new", "text": "a"}, {"id": "new", "text": "b"}], embeddings=rows(2))
        assert store.upsert([records(10)[3] | {"text": "other"}], embeddings=rows(1)) == Added(1, 0, 1)
        assert store.upsert(records(3), embeddings=rows(10)[:3]) == Added(0, 3)
        found = store.get(["d3"])[0]
        assert found is not None
        assert found.text == "other"
        assert len(store) == 12


def test_a_random_sequence_of_changes(named: Named, tmp_path: Path) -> None:
    """Beside an index in a folder, step by step."""
    generator = np.random.default_rng(0)
    table = rows(6, seed=7)
    folder = Index.build(tmp_path / "beside.jv5", records(3), embeddings=table[:3])
    store = named.cls.build(named.name, records(3), embeddings=table[:3])
    for _ in range(40):
        picked = generator.integers(0, 6, generator.integers(1, 6))
        documents: list[dict[str, Any]] = [
            {"id": f"d{i}", "text": f"text {i % 4}", "n": int(i % 3)} for i in generator.integers(0, 12, len(picked))
        ]
        action = generator.choice(["add", "upsert", "delete", "where", "reopen"])
        done: list[Any] = []
        for one in (store, folder):
            if action in ("add", "upsert"):
                skipped: list[InputError] = []
                act = one.add if action == "add" else one.upsert
                added = act(documents, embeddings=table[picked], skip=skipped.append)
                done.append((added, list(map(str, skipped))))
            elif action == "delete":
                done.append(one.delete([document["id"] for document in documents]))
            elif action == "where":
                done.append(one.delete(filter={"n": documents[0]["n"], "of": "m1"}) if "of" in one.fields else 0)
        if action == "reopen":
            store.close()
            store = named.open()
        assert not done or done[0] == done[1], action
        ids = [f"d{i}" for i in range(12)]
        assert store.get(ids) == folder.get(ids)
        assert store.search(table, 20) == folder.search(table, 20)
        assert store.search(table, 3, filter="n not in (1, 2)") == folder.search(table, 3, filter="n not in (1, 2)")
        assert (len(store), store.count("n = 1")) == (len(folder), folder.count("n = 1"))
    store.close()


def test_what_is_deleted_is_gone(named: Named) -> None:
    missing: list[str] = []
    with named.cls.build(named.name, records(40), embeddings=rows(40)) as store:
        assert store.delete(["d1", "d2", "no", "d1"], on_missing=missing.append) == 2
        assert missing == ["no"]
        assert store.delete(filter="n >= 30") == 10
        assert store.delete([]) == store.delete(filter="n >= 30") == 0
        left = {f"d{i}" for i in range(30)} - {"d1", "d2"}
        assert (len(store), store.row_count, store.count()) == (28, 28, 28)
        assert {hit.id for hit in store.search(rows(1)[0], 100)} == left
        assert store.get(["d1", "d35"]) == [None, None]
        # An id that is free again may be taken.
        assert store.add([{"id": "d1", "text": "again"}], embeddings=rows(1)) == Added(1)
        for ids, where in ((None, None), (["d1"], "n = 1")):
            with pytest.raises(InputError, match="either ids or a filter"):
                store.delete(ids, filter=where)
    with named.open() as store:
        assert {hit.id for hit in store.search(rows(1)[0], 100)} == left | {"d1"}
        assert store.delete([*left, "d1"]) == 29
        assert (len(store), store.fields, store.search(rows(2))) == (0, {}, [[], []])
