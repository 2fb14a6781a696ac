"""Approximate search in PostgreSQL: good where it is asked for, and never where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest

from jv5kit.building import Added
from jv5kit.stores.postgres import PostgresIndex, answering
from jv5kit.stores.postgres.reading import MOST_WIDTH, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from postgres_server import PostgresServer

DIM, COUNT = 128, 4000

# The planner would rather take the graph than read the table, for whatever the graph can answer.
GREEDY = quote("-c enable_seqscan=off -c enable_sort=off -c hnsw.ef_search=1")


def rows(count: int, seed: int) -> NDArray[np.float32]:
    """Rows around 40 centres, as those of texts are."""
    centres = np.random.default_rng(0).standard_normal((40, DIM))
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((count, DIM))
    return (centres[generator.integers(0, 40, count)] + 0.7 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    url = f"{postgres.url('graph')}&options={GREEDY}"
    documents = [{"id": str(i), "text": "x", "n": i} for i in range(COUNT)]
    PostgresIndex.build(url, documents, embeddings=rows(COUNT, 1), hnsw=True).close()
    return url


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the server was asked for candidates."""
    ways: list[str] = []

    def noted(*arguments: Any) -> Any:
        ways.append("graph" if len(arguments) > 6 else "exact")
        return nearest(*arguments)

    monkeypatch.setattr(answering, "nearest", noted)
    return ways


@pytest.fixture
def index(url: str) -> Iterator[PostgresIndex]:
    with PostgresIndex.open(url) as opened:
        yield opened


def recall(found: list[Any], expected: list[Any]) -> float:
    pairs = zip(found, expected, strict=True)
    return float(np.mean([len({hit.id for hit in a} & {hit.id for hit in b}) / len(b) for a, b in pairs]))


def naive(codes: NDArray[np.uint8], query: NDArray[np.float32], count: int) -> list[str]:
    distances = np.unpackbits(codes ^ np.packbits(query > 0), axis=1).sum(axis=1)
    return [str(row) for row in np.lexsort((np.arange(len(codes)), distances))[:count]]


def test_the_graph_finds_most_of_what_is_nearest(index: PostgresIndex, asked: list[str]) -> None:
    queries = rows(50, 2)
    approximate = index.search(queries)
    assert asked == ["graph"] * 50
    exact = index.search(queries, mode="ubinary+int8")
    assert asked[50:] == ["exact"] * 50
    assert recall(approximate, exact) > 0.95
    # Each is scored as ever.
    scores = {(i, hit.id): hit.score for i, hits in enumerate(exact) for hit in hits}
    assert all(scores.get((i, hit.id), hit.score) == hit.score for i, hits in enumerate(approximate) for hit in hits)


def test_an_exact_search_never_uses_the_graph(index: PostgresIndex) -> None:
    """Though the planner would, and would find little by it."""
    codes = np.packbits(rows(COUNT, 1) > 0, axis=1)
    for query in rows(20, 3):
        assert [hit.id for hit in index.search(query, 50, mode="ubinary")] == naive(codes, query, 50)


def test_a_filter_leaves_enough(index: PostgresIndex, asked: list[str]) -> None:
    queries = rows(20, 4)
    for where, kept in ((f"n >= {COUNT // 2}", COUNT // 2), ("n < 30", 30), ("n = 7", 1)):
        found = index.search(queries, filter=where)
        exact = index.search(queries, filter=where, mode="ubinary+int8")
        assert [len(hits) for hits in found] == [min(10, kept)] * 20
        assert recall(found, exact) > 0.9
    assert "graph" in asked


def test_what_the_graph_cannot_give_is_exact(index: PostgresIndex, asked: list[str]) -> None:
    query = rows(1, 5)[0]
    assert len(index.search(query, MOST_WIDTH)) == MOST_WIDTH
    assert asked == ["exact"]
    assert index.search(query, 2 * COUNT, mode="ubinary+int8") == index.search(query, 2 * COUNT)


def test_a_pgvector_without_iterative_scans(index: PostgresIndex, asked: list[str]) -> None:
    index._server.vector = (0, 7, 4)
    query = rows(1, 6)
    assert index.search(query, filter="n < 30") == index.search(query, filter="n < 30", mode="ubinary+int8")
    assert asked == ["exact", "exact"]


def test_the_graph_takes_in_what_comes_and_forgets_what_goes(postgres: PostgresServer, postgres_url: str) -> None:
    documents = [{"id": str(i), "text": "x"} for i in range(600)]
    table = rows(600, 7)
    with PostgresIndex.build(
        f"{postgres_url}&options={GREEDY}", documents[:300], embeddings=table[:300], hnsw=True
    ) as index:
        assert index.add(documents[300:], embeddings=table[300:]) == Added(300)
        found = index.search(table[300:], 1)
        assert np.mean([hits[0].id == str(300 + i) for i, hits in enumerate(found)]) > 0.95
        index.delete([str(i) for i in range(590)])
        assert {hit.id for hit in index.search(table[0])} == {str(i) for i in range(590, 600)}
        assert index.settings.hnsw


def test_a_run_that_was_interrupted_leaves_the_graph_to_the_next(postgres: PostgresServer, postgres_url: str) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield {"id": "a", "text": "x"}
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jv5kit.sources.BATCH_BYTES", 4 * DIM)
        with pytest.raises(KeyboardInterrupt):
            PostgresIndex.build(postgres_url, broken(), embeddings=rows(2, 8), hnsw=True)
    with postgres.connect() as connection, PostgresIndex.open(postgres_url) as index:
        there = "SELECT count(*) FROM pg_indexes WHERE indexname = %s"
        name = f"jv5kit_{index._stored.number}_graph"
        assert connection.execute(there, (name,)).fetchone() == (0,)
        assert len(index.search(rows(1, 8)[0])) == 1
        index.add([{"id": "b", "text": "x"}], embeddings=rows(1, 8))
        assert connection.execute(there, (name,)).fetchone() == (1,)
