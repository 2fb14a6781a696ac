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
