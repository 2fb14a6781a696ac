"""Approximate search by a graph, beside exact search over the same rows."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jv5kit import Document, Index, graph, truncate_embeddings
from jv5kit.errors import IndexDamagedError, MissingExtraError
from jv5kit.storage.graphs import GraphRecord
from jv5kit.storage.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.types import Hit

DIM = 32


def clustered(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows around fifty centers."""
    generator = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((50, DIM))
    return truncate_embeddings(
        centers[generator.integers(50, size=count)] + 0.6 * generator.standard_normal((count, DIM)), DIM
    )


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LEAST_ROWS", 500)


def record(index: Index) -> GraphRecord | None:
    return GraphRecord.of(index._snapshot.state.graph)


def recall(index: Index, stored: NDArray[np.float32], kept: NDArray[np.int64], filter: str | None = None) -> float:
    """Of the ten best rows among ``kept``, the part that is found; the scores must be the cosines."""
    queries = clustered(50, seed=5)
    cosines = queries @ stored.T
    found = 0
    results: list[list[Hit]] = index.search(queries, 10, filter=filter)
    for hits, row in zip(results, cosines, strict=True):
        assert len(hits) == 10
        numbers = [int(hit.id) for hit in hits]
        assert np.isin(numbers, kept).all()
        assert np.allclose([hit.score for hit in hits], row[numbers], atol=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        best = kept[np.argsort(-row[kept], kind="stable")[:10]]
        found += len(set(numbers) & set(best.tolist()))
    return found / 500


def build(path: Path, stored: NDArray[np.float32]) -> Index:
    documents = ({"id": str(i), "text": "x", "n": i, "part": i % 10} for i in range(len(stored)))
    return Index.build(path, documents, embeddings=stored, precision="float32", hnsw=True)


def stages_of(index: Index, **options: object) -> set[str]:
    stages: dict[str, float] = {}
    index.search(clustered(1)[0], stages=stages, **options)  # type: ignore[call-overload]
    return set(stages)


def test_it_finds_what_exact_search_finds(tmp_path: Path) -> None:
    stored = clustered(5000)
    index = build(tmp_path / "x.jv5", stored)
    assert record(index) is not None
    assert recall(index, stored, np.arange(5000)) >= 0.95
    assert {"graph"} <= stages_of(index)
    assert "scan" not in stages_of(index)
    assert index.search(stored[:3], 1) == Index.open(tmp_path / "x.jv5").search(stored[:3], 1)


def test_few_rows_are_compared_exactly(tmp_path: Path) -> None:
    stored = clustered(499)
    index = build(tmp_path / "x.jv5", stored)
    assert record(index) is None
    assert recall(index, stored, np.arange(499)) == 1


def test_an_index_without_documents(tmp_path: Path) -> None:
    path = tmp_path / "x.jv5"
    for rows in (0, 20, 0):
        embeddings = clustered(20)[:rows]
        assert len(Index.build(path, embeddings=embeddings, precision="float32", hnsw=True, force=True)) == rows
        assert len(Index.open(path)) == rows


def test_deleted_rows_are_passed_over(tmp_path: Path) -> None:
    stored = clustered(3000)
    index = build(tmp_path / "x.jv5", stored)
    index.delete(filter="part in (1, 2, 3)")
    kept = np.flatnonzero(~np.isin(np.arange(3000) % 10, (1, 2, 3)))
    assert "graph" in stages_of(index)
    assert recall(index, stored, kept) >= 0.95
    before = record(index)
    index.compact()
    after = record(index)
    assert before is not None
    assert after is not None
    assert (before.rows, after.rows) == (3000, 2100)
    assert len(list((tmp_path / "x.jv5" / "graphs").iterdir())) == 1
    assert recall(index, stored, kept) >= 0.95
    index.delete(filter="n >= 5")
    assert sorted(int(hit.id) for hit in index.search(stored[0], 10)) == [0, 4]
    index.delete(["0", "4"])
    assert index.search(stored[0]) == []
    index.compact()
    assert index.search(stored[0]) == []


def test_filters(tmp_path: Path) -> None:
    stored = clustered(3000)
    index = build(tmp_path / "x.jv5", stored)
    rows = np.arange(3000)
    assert "graph" in stages_of(index, filter="part < 5")
    assert recall(index, stored, rows[rows % 10 < 5], "part < 5") >= 0.95
    assert "graph" not in stages_of(index, filter="n < 200"), "so few are compared exactly"
    assert recall(index, stored, rows[:200], "n < 200") == 1
    assert [hit.id for hit in index.search(stored[0], filter="n = 7")] == ["7"]
    assert index.search(stored[0], filter="n = -1") == []


def test_a_filter_far_from_the_query(tmp_path: Path) -> None:
    """Its rows are many, but none is near: the graph gives up, and the search is exact."""
    stored = clustered(3000)
    order = np.argsort(-(stored @ stored[0]), kind="stable")
    index = build(tmp_path / "x.jv5", stored[order])
    hits = index.search(stored[0], 20, filter="n >= 2400")
    cosines = stored[order][2400:] @ stored[0]
    expected = np.sort(cosines)[::-1][:20]
    assert np.allclose([hit.score for hit in hits], expected, atol=1e-5)


def test_rows_beside_the_graph(tmp_path: Path) -> None:
    stored = clustered(4000)
    index = build(tmp_path / "x.jv5", stored[:2000])
    for start, stop, held in ((2000, 2300, 2000), (2300, 2600, 2600), (2600, 4000, 4000)):
        ids = [str(i) for i in range(start, stop)]
        index.add(embeddings=stored[start:stop], ids=ids)
        found = record(index)
        assert found is not None
        assert found.rows == held, "it takes them in when there are enough"
        assert recall(index, stored[:stop], np.arange(stop)) >= 0.95
        newest = index.search(stored[stop - 1], 1)
        assert [hit.id for hit in newest] == [str(stop - 1)]
    index.upsert(embeddings=stored[:1], ids=["3999"])
    assert {hit.id for hit in index.search(stored[0], 2)} == {"0", "3999"}


def test_more_hits_than_the_graph_holds(tmp_path: Path) -> None:
    stored = clustered(700)
    index = build(tmp_path / "x.jv5", stored)
    assert len(index.search(stored[0], 700)) == 700
    assert len(index.search(stored[0], 10**30)) == 700


def test_an_old_reader_whose_graph_is_gone(tmp_path: Path) -> None:
    stored = clustered(2000)
    index = build(tmp_path / "x.jv5", stored[:1000])
    reader = Index.open(tmp_path / "x.jv5")
    index.add(embeddings=stored[1000:], ids=[str(i) for i in range(1000, 2000)])
    assert len(list((tmp_path / "x.jv5" / "graphs").iterdir())) == 1
    assert len(reader) == 1000
    assert recall(reader, stored[:1000], np.arange(1000)) == 1, "it answers exactly, from the rows that it has"
    reader.refresh()
    assert recall(reader, stored, np.arange(2000)) >= 0.95


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "longer", "link"])
def test_a_damaged_graph_is_refused(tmp_path: Path, damage: str) -> None:
    index = build(tmp_path / "x.jv5", clustered(1000))
    index.close()
    (path,) = (tmp_path / "x.jv5" / "graphs").iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage != "missing":
        path.write_bytes(data[:-1] if damage == "cut" else data + b"x" if damage == "longer" else data)
    opened = Index.open(tmp_path / "x.jv5")
    with pytest.raises(IndexDamagedError, match=f"{path.name} is damaged"):
        opened.search(clustered(1)[0])
    (problem,) = verify(tmp_path / "x.jv5")
    assert path.name in problem


def test_without_hnswlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = build(tmp_path / "x.jv5", clustered(600))
    load = importlib.import_module

    def missing(name: str) -> object:
        if name == "hnswlib":
            raise ModuleNotFoundError(name)
        return load(name)

    monkeypatch.setattr(importlib, "import_module", missing)

    def read() -> Iterator[Document]:
        yield pytest.fail("a document was read")

    for work in (
        lambda: Index.build(tmp_path / "y.jv5", read(), precision="float32", hnsw=True),
        lambda: index.add(read(), embeddings=clustered(1)),
        index.compact,
        lambda: Index.open(tmp_path / "x.jv5").search(clustered(1)[0]),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'jv5kit\[hnsw\]'"):
            work()
    assert not (tmp_path / "y.jv5").exists()
    assert index.delete(["3"]) == 1
    assert verify(tmp_path / "x.jv5") == [], "its checksum needs no library"
