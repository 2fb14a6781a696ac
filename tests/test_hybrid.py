"""Hybrid search, against the formula written out."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest

from jv5kit import Encoder, Index
from jv5kit.errors import IndexDamagedError, InputError
from jv5kit.hybrid import DEPTH, RANK_OFFSET, fuse
from jv5kit.storage.catalog import Catalog
from jv5kit.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jv5kit.types import Precision, Rescore

ANIMALS = ["penguin", "bird", "sea", "ice", "cold", "warm"]


def documents(count: int) -> list[Mapping[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        {"id": str(i), "text": " ".join(generator.choice(ANIMALS, 5)), "title": ANIMALS[i % 6], "n": i}
        for i in range(count)
    ]


def words_alone(path: Path, query: str) -> list[int]:
    """The ranking by words."""
    catalog = Catalog(path)
    with catalog.lexical_rows(query, catalog.state()) as found:
        return list(found)


def fused(rankings: list[list[str]], numbers: dict[str, int]) -> list[str]:
    """Reciprocal rank fusion, as the paper has it."""
    sums: dict[str, float] = {}
    for ranking in rankings:
        for rank, identifier in enumerate(ranking, 1):
            sums[identifier] = sums.get(identifier, 0) + 1 / (RANK_OFFSET + rank)
    return sorted(sums, key=lambda identifier: (-round(sums[identifier], 12), numbers[identifier]))


KINDS: list[tuple[Precision, Rescore | None]] = [
    ("float32", None),
    ("int8", None),
    ("ubinary", None),
    ("ubinary", "codes"),
    ("ubinary", "none"),
]


@pytest.mark.parametrize(("precision", "rescore"), KINDS)
def test_the_order_is_that_of_the_fusion(
    tmp_path: Path, encoder: Encoder, precision: Precision, rescore: Rescore | None
) -> None:
    path = tmp_path / "x.jv5"
    index = Index.build(path, documents(300), encoder, precision=precision, rescore=rescore, lexical=True)
    index.delete(filter="n < 20")
    numbers = {str(i): i for i in range(300)}
    query = 'cold penguin (or NOT "ice"* AND sea:^bird)'
    for condition, kept in ((None, range(20, 300)), ("n >= 150", range(150, 300))):
        plain = index.search(query, 300, filter=condition, oversample=10)
        scores = {hit.id: hit.score for hit in plain}
        assert len(plain) == len(kept)
        words = [str(row) for row in words_alone(path, query) if row in kept]
        for top_k in (1, 10, 120):
            depth = max(top_k, DEPTH)
            nearest = [hit.id for hit in index.search(query, depth, filter=condition, oversample=10)]
            stages: dict[str, float] = {}
            hits = index.search(query, top_k, filter=condition, hybrid=True, oversample=10, stages=stages)
            assert [hit.id for hit in hits] == fused([nearest, words[:depth]], numbers)[:top_k]
            assert np.allclose([hit.score for hit in hits], [scores[hit.id] for hit in hits], atol=1e-6)
            assert {"encode", "filter", "scan", "lexical", "documents"} <= stages.keys()
    both = index.search([query, "sea"], 5, hybrid=True)
    alone = [index.search(query, 5, hybrid=True), index.search("sea", 5, hybrid=True)]
    assert [[hit.id for hit in hits] for hits in both] == [[hit.id for hit in hits] for hits in alone]


def test_words_are_found_that_no_embedding_tells(tmp_path: Path, encoder: Encoder) -> None:
    many: list[Mapping[str, Any]] = [*documents(500), {"id": "x", "text": "ice ice ice zanzibar"}]
    index = Index.build(tmp_path / "x.jv5", many, encoder, lexical=True)
    assert "x" in [hit.id for hit in index.search("Zanzibar!", 3, hybrid=True)]
    index.delete(["x"])
    assert "x" not in [hit.id for hit in index.search("zanzibar", 3, hybrid=True)]
    index.upsert([{"id": "4", "text": "the warm sea of zanzibar"}])
    assert "4" in [hit.id for hit in index.search("zanzibar", 3, hybrid=True)]
    index.compact()
    assert "4" in [hit.id for hit in index.search("zanzibar", 3, hybrid=True)]


def test_any_text_is_a_query(tmp_path: Path, encoder: Encoder) -> None:
    index = Index.build(tmp_path / "x.jv5", documents(50), encoder, lexical=True)
    for query in ("", "?!", "_", '"', "NEAR(ice)", "漢字 ice", "a'b", "ice " * 20, "x\0ice", "٣ ice", "\ud800 ice"[1:]):
        assert len(index.search(query, 5, hybrid=True)) == 5, query
    words = " ".join(f"w{i}" for i in range(5000))
    assert len(index.search(f"{words} ice", 5, hybrid=True)) == 5


def test_what_hybrid_search_needs(tmp_path: Path, encoder: Encoder) -> None:
    index = Index.build(tmp_path / "x.jv5", documents(5), encoder)
    with pytest.raises(InputError, match=re.escape("build it with --lexical (lexical=True)")):
        index.search("ice", hybrid=True)
    index = Index.build(tmp_path / "y.jv5", documents(5), encoder, lexical=True)
    with pytest.raises(InputError, match="needs the words of the queries"):
        index.search(np.ones(64), hybrid=True)
    assert index.search([], hybrid=True) == []


def test_fusion_counts_ranks_alone() -> None:
    first, second = np.array([5, 3, 9]), np.array([9, 5, 1])
    assert fuse([first, second], 10).tolist() == [5, 9, 3, 1]
    assert fuse([first, second], 2).tolist() == [5, 9]
    assert fuse([np.array([2, 1]), np.array([1, 2])], 5).tolist() == [1, 2], "equal sums by row"
    assert fuse([np.array([], np.int64)] * 2, 5).tolist() == []


@pytest.mark.parametrize(
    ("query", "rows"),
    [("To be", [0]), ("?!", []), ('" OR bee*', [1]), ("NEAR NOT bees", [1]), ("is BEE'S", [1])],
)
def test_words_that_are_none_or_operators(tmp_path: Path, query: str, rows: list[int]) -> None:
    two = [{"text": "to be or not to be"}, {"text": "a bee"}]
    Index.build(tmp_path / "x.jv5", two, embeddings=np.eye(2, 8), lexical=True).close()
    assert words_alone(tmp_path / "x.jv5", query) == rows


def test_words_beside_embeddings(tmp_path: Path) -> None:
    embeddings = np.eye(8)
    index = Index.build(tmp_path / "x.jv5", documents(8), embeddings=embeddings, lexical=True)
    first, second = index.search(embeddings[:2], 8, hybrid=True, words=["penguin", "the ice"])
    assert index.search(embeddings[0], 8, hybrid=True, words="penguin") == first
    assert {hit.id for hit in first} == {hit.id for hit in second} == {str(i) for i in range(8)}
    with pytest.raises(InputError, match="words for 1 queries, but 2 embeddings"):
        index.search(embeddings[:2], hybrid=True, words="penguin")
    with pytest.raises(InputError, match="give texts, or words= beside embeddings"):
        index.search(embeddings[0], hybrid=True)
    for words in (3, [3], [None]):
        with pytest.raises(InputError, match=r"words is .*; it must be a string, or a list of one for each query"):
            index.search(embeddings[:1], hybrid=True, words=words)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"hybrid search takes texts, .* but no codes"):
        index.search(np.zeros((1, 1), np.uint8), hybrid=True, words="penguin")


def test_an_index_without_words_in_the_place_of_one_with(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "x.jv5", documents(8), embeddings=np.eye(8), lexical=True)
    Index.build(tmp_path / "x.jv5", documents(8), embeddings=np.eye(8), force=True)
    with pytest.raises(InputError, match="the index has no lexical index"):
        index.search(np.eye(8)[0], hybrid=True, words="penguin")


def test_an_error_in_one_thread_keeps_no_other_from_searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.build(tmp_path / "x.jv5", documents(8), embeddings=np.eye(8), lexical=True)

    def damaged(*_: object) -> NoReturn:
        raise IndexDamagedError.of(index.path, "a test")

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        with monkeypatch.context() as patch:
            patch.setattr(Snapshot, "positions", damaged)
            failed = first.submit(index.search, np.eye(8)[0], hybrid=True, words="penguin")
            error = failed.exception()
        assert isinstance(error, IndexDamagedError)
        assert len(second.submit(index.search, np.eye(8)[0]).result(20)) == 8
