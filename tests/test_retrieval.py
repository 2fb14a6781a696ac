"""search() as an application uses it, over a stand-in for the model."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

import jv5kit
from jv5kit import Index, retrieval, search
from jv5kit.errors import IndexNotFoundError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jv5kit import Encoder
    from jv5kit.stores import Store


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    retrieval._open.clear()
    yield
    retrieval._open.clear()


def test_the_public_name_is_the_function() -> None:
    assert search is retrieval.search
    assert set(jv5kit.__all__) <= set(dir(jv5kit))
    assert all(getattr(jv5kit, name) is not None for name in jv5kit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = jv5kit.serach  # type: ignore[attr-defined]


def test_an_index_is_opened_once_and_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.build(tmp_path / "x.jv5", embeddings=np.eye(3, 8))
    opened = retrieval.open_index(tmp_path / "x.jv5")
    assert len(opened) == 3
    index.add(embeddings=np.eye(8)[3:5])
    assert retrieval.open_index(tmp_path / "x.jv5") is opened
    assert len(opened) == 5
    monkeypatch.chdir(tmp_path)
    assert retrieval.open_index("x.jv5") is opened
    assert retrieval.open_index(None) is opened


def test_an_index_that_was_replaced_is_taken_up(tmp_path: Path) -> None:
    Index.build(tmp_path / "x.jv5", embeddings=np.eye(3, 8))
    opened = retrieval.open_index(tmp_path / "x.jv5")
    Index.build(tmp_path / "x.jv5", embeddings=np.eye(16), force=True)
    assert retrieval.open_index(tmp_path / "x.jv5") is opened
    assert opened.search(np.eye(16)[9], 1)[0].id == "9"


def test_readers_follow_a_writer(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "x.jv5", embeddings=np.eye(8)[:1])
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        seen = 0
        try:
            while not done.is_set():
                opened = retrieval.open_index(tmp_path / "x.jv5")
                count = len(opened.search(np.ones(8), 1000))
                if count < seen or (count - 1) % 5:
                    wrong.append((seen, count))
                seen = count
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(40):
        index.add(embeddings=np.random.default_rng(0).standard_normal((5, 8)))
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert len(retrieval.open_index(tmp_path / "x.jv5")) == 201


def test_an_index_that_opens_slowly_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("slow.jv5", "quick.jv5"):
        Index.build(tmp_path / name, embeddings=np.eye(3, 8)).close()
    begun, may_end, opens = threading.Event(), threading.Event(), []
    plain = Index.open

    def slowly(path: Path) -> Index:
        opens.append(path.name)
        if path.name == "slow.jv5":
            begun.set()
            assert may_end.wait(30)
        return plain(path)

    monkeypatch.setattr(Index, "open", slowly)
    found: list[Store] = []
    threads = [
        threading.Thread(target=lambda: found.append(retrieval.open_index(tmp_path / "slow.jv5"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    assert len(retrieval.open_index(tmp_path / "quick.jv5")) == 3
    assert not found
    may_end.set()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]
    assert opens.count("slow.jv5") == 1


def test_filters_and_words_are_passed_on(tmp_path: Path, encoder: Encoder) -> None:
    documents = [{"id": f"d{i}", "text": f"the cold sea {i}", "n": i} for i in range(5)]
    index = Index.build(tmp_path / "x.jv5", documents, encoder, lexical=True)
    retrieval.open_index(tmp_path / "x.jv5").use_encoder(encoder)
    for options in (
        {"filter": "n >= 3"},
        {"filter": {"n": [1, 2]}},
        {"hybrid": True},
        {"hybrid": True, "filter": "n < 2"},
    ):
        assert search("sea 4", tmp_path / "x.jv5", **options) == index.search("sea 4", **options)
        assert search(["sea", "4"], tmp_path / "x.jv5", **options) == index.search(["sea", "4"], **options)
    assert [hit.id for hit in search("sea", tmp_path / "x.jv5", filter="n = 3")] == ["d3"]


def test_no_index_here_or_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IndexNotFoundError, match="no index"):
        search("x")
    for name in ("a.jv5", "b.jv5"):
        Index.build(name, embeddings=np.eye(8))
    with pytest.raises(IndexNotFoundError, match=r"several indexes in this folder \(a.jv5, b.jv5\)"):
        search("x")
    with pytest.raises(InputError, match="given embeddings, not texts"):
        search("x", index="a.jv5")
