"""The index over given embeddings, against plain NumPy."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jv5kit import Document, Index, truncate_embeddings
from jv5kit.building import Added
from jv5kit.errors import DuplicateError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.types import Hit


def random_embeddings(rows: int, dim: int = 64, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def ids_of(hits: list[list[Hit]]) -> list[list[str]]:
    return [[hit.id for hit in one] for one in hits]


def rescored(
    embeddings: NDArray[np.float32], queries: NDArray[np.float32], dim: int, top_k: int, oversample: int
) -> list[list[tuple[str, float]]]:
    """Hamming for the candidates, then float query · int8 row: each step written out."""
    stored = truncate_embeddings(embeddings, dim)
    asked = truncate_embeddings(queries, dim)
    scales = np.abs(stored).max(axis=1) / 127
    rows = np.rint(stored / scales[:, None])
    answers = []
    for query in asked:
        distances = ((stored > 0) != (query > 0)).sum(axis=1)
        candidates = np.argsort(distances, kind="stable")[: top_k * oversample]
        scores = (rows[candidates] @ query) * scales[candidates]
        best = np.lexsort((candidates, -scores))[:top_k]
        answers.append([(str(candidates[i]), float(scores[i])) for i in best])
    return answers


@pytest.mark.parametrize("dim", [64, 40, 8])
def test_binary_search_is_hamming_then_int8(tmp_path: Path, dim: int) -> None:
    embeddings, queries = random_embeddings(3000), random_embeddings(20, seed=1)
    index = Index.build(tmp_path / "x.jv5", embeddings=embeddings, dim=dim)
    for top_k, oversample in ((1, 1), (10, 4), (7, 20)):
        results = index.search(queries, top_k, oversample=oversample)
        for hits, expected in zip(results, rescored(embeddings, queries, dim, top_k, oversample), strict=True):
            assert [hit.id for hit in hits] == [identifier for identifier, _ in expected]
            np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-5)


@pytest.mark.parametrize("dim", [64, 33])
def test_float_search_is_the_exact_cosine(tmp_path: Path, dim: int) -> None:
    embeddings, queries = random_embeddings(40_000), random_embeddings(8, seed=1)
    index = Index.build(tmp_path / "x.jv5", embeddings=embeddings, dim=dim, precision="float32")
    cosines = truncate_embeddings(queries, dim) @ truncate_embeddings(embeddings, dim).T
    for hits, scores in zip(index.search(queries, 10), cosines, strict=True):
        assert [hit.id for hit in hits] == list(map(str, np.argsort(-scores, kind="stable")[:10]))
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:10], atol=1e-6)


@pytest.mark.parametrize("precision", ["ubinary", "float32"])
def test_equal_scores_come_in_the_order_of_the_rows(tmp_path: Path, precision: str) -> None:
    embeddings = np.tile(random_embeddings(5), (1000, 1))
    index = Index.build(tmp_path / "x.jv5", embeddings=embeddings, precision=precision)  # type: ignore[arg-type]
    hits = index.search(embeddings[2], 30)
    assert [hit.id for hit in hits] == [str(2 + 5 * i) for i in range(30)]
    assert {hit.score for hit in hits} == {1.0} or precision == "ubinary"


@pytest.mark.parametrize("precision", ["ubinary", "float32"])
def test_one_query_or_many_one_segment_or_many(tmp_path: Path, precision: str) -> None:
    embeddings, queries = random_embeddings(999), random_embeddings(30, seed=2)
    whole = Index.build(tmp_path / "a.jv5", embeddings=embeddings, precision=precision)  # type: ignore[arg-type]
    pieces = Index.build(tmp_path / "b.jv5", embeddings=embeddings[:600], precision=precision)  # type: ignore[arg-type]
    for start, stop in ((600, 900), (900, 990), (990, 999)):
        pieces.add(embeddings=embeddings[start:stop])
    assert pieces.segment_count > whole.segment_count
    together = whole.search(queries, 10)
    assert ids_of(pieces.search(queries, 10)) == ids_of(together)
    assert ids_of([whole.search(query, 10) for query in queries]) == ids_of(together)


def test_more_hits_than_documents_gives_all(tmp_path: Path) -> None:
    embeddings = random_embeddings(5)
    for precision in ("ubinary", "float32"):
        index = Index.build(tmp_path / precision, embeddings=embeddings, precision=precision)
        assert sorted(hit.id for hit in index.search(embeddings[0], 10**9)) == list("01234")


def test_documents_come_back_whole(tmp_path: Path) -> None:
    documents: list[Document | dict[str, object]] = [
        Document("a", "first text"),
        {"id": "b", "text": "second", "title": "T", "year": 2024, "tags": ["x", {"y": None}], "π": "漢字"},
        {"_id": 7, "text": "third"},
        {"text": "fourth"},
    ]
    index = Index.build(tmp_path / "x.jv5", documents, embeddings=np.eye(4, 8))
    assert [index.search(row, 1)[0].to_dict() for row in np.eye(4, 8)] == [
        {"id": "a", "score": pytest.approx(1), "title": None, "text": "first text", "metadata": {}, "passage": None},
        {
            "id": "b",
            "score": pytest.approx(1),
            "title": "T",
            "text": "second",
            "metadata": {"year": 2024, "tags": ["x", {"y": None}], "π": "漢字"},
            "passage": None,
        },
        {"id": "7", "score": pytest.approx(1), "title": None, "text": "third", "metadata": {}, "passage": None},
        {"id": "4", "score": pytest.approx(1), "title": None, "text": "fourth", "metadata": {}, "passage": None},
    ]


class TestAdd:
    def test_identical_documents_are_passed_over_and_others_refused(self, tmp_path: Path) -> None:
        documents = [{"id": f"d{i}", "text": f"text {i}", "n": (i,)} for i in range(10)]
        index = Index.build(tmp_path / "x.jv5", documents[:6], embeddings=random_embeddings(6))
        assert index.add(documents, embeddings=random_embeddings(10)) == Added(4, 6)
        assert len(index) == 10
        for change in ({"text": "other"}, {"title": "new"}, {"n": (99,)}):
            with pytest.raises(DuplicateError, match="document 1: the id 'd3' is taken by other content"):
                index.add([documents[3] | change], embeddings=random_embeddings(1))
        assert len(index) == 10

    def test_the_same_id_twice_in_a_run(self, tmp_path: Path) -> None:
        documents = [{"id": "a", "text": "x"}, {"id": "a", "text": "x"}]
        with pytest.raises(DuplicateError, match="document 2: the id 'a' is taken by an earlier document"):
            Index.build(tmp_path / "x.jv5", documents, embeddings=random_embeddings(2))
        skipped: list[InputError] = []
        index = Index.build(tmp_path / "x.jv5", documents, embeddings=random_embeddings(2), skip=skipped.append)
        assert len(index) == 1
        assert len(skipped) == 1

    def test_the_same_id_in_a_later_batch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * 64 * 3)
        documents = [{"id": str(i % 5), "text": "x"} for i in range(7)]
        with pytest.raises(DuplicateError, match="document 6: the id '0' is taken by an earlier document"):
            Index.build(tmp_path / "x.jv5", documents, embeddings=random_embeddings(7))
        assert len(Index.open(tmp_path / "x.jv5")) == 3, "the batches before the bad one stay"

    def test_another_embedding_is_other_content(self, tmp_path: Path) -> None:
        for precision in ("ubinary", "float32"):
            embeddings, ids = random_embeddings(300), list(range(300))
            index = Index.build(tmp_path / precision, embeddings=embeddings[:200], ids=ids[:200], precision=precision)
            index.add(embeddings=embeddings[200:290], ids=ids[200:290])
            assert index.add(embeddings=embeddings, ids=ids) == Added(10, 290)
            embeddings[255, 3] += 0.5
            with pytest.raises(DuplicateError, match="the id '255' is taken by other content"):
                index.add(embeddings=embeddings, ids=ids)

    def test_ids_are_checked_as_those_of_documents_are(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", embeddings=np.eye(8)[:2], ids=np.arange(2))  # type: ignore[arg-type]
        assert index.search(np.eye(8)[1], 1)[0].id == "1"
        for wrong in ("", "a\0b", "\ud800", 1.5, None):
            with pytest.raises(InputError, match="id"):
                index.add(embeddings=np.eye(8)[2:3], ids=[wrong])  # type: ignore[list-item]

    def test_a_reader_keeps_its_state_until_it_refreshes(self, tmp_path: Path) -> None:
        embeddings = random_embeddings(100)
        writer = Index.build(tmp_path / "x.jv5", embeddings=embeddings[:50])
        reader = Index.open(tmp_path / "x.jv5")
        before = reader.search(embeddings[:5], 10)
        writer.add(embeddings=embeddings[50:])
        assert len(writer) == 100
        assert len(reader) == 50
        assert reader.search(embeddings[:5], 10) == before, "its segment was merged away, but is still mapped"
        assert reader.refresh()
        assert len(reader) == 100
        assert not reader.refresh()

    def test_embeddings_must_fit_the_index(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", embeddings=random_embeddings(5), dim=16)
        with pytest.raises(InputError, match="have 16 dimensions; those of this index had 64"):
            index.add(embeddings=random_embeddings(5, 16))


def test_an_empty_index_has_no_hits(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "x.jv5", embeddings=np.empty((0, 8)))
    assert index.search(np.ones(8)) == []
    assert index.search(np.ones((2, 8))) == [[], []]
    index.add(embeddings=np.ones((1, 8)))
    assert len(index.search(np.ones(8))) == 1


def test_several_threads_search_one_index(tmp_path: Path) -> None:
    embeddings = random_embeddings(2000)
    index = Index.build(tmp_path / "x.jv5", embeddings=embeddings)
    expected = index.search(embeddings[:50], 5)
    index = Index.open(tmp_path / "x.jv5")
    wrong: list[object] = []

    def work(first: int) -> None:
        try:
            wrong.extend(i for i in range(first, 50, 4) if index.search(embeddings[i], 5) != expected[i])
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_refresh_keeps_what_is_verified(tmp_path: Path) -> None:
    embeddings = random_embeddings(110)
    index = Index.build(tmp_path / "x.jv5", embeddings=embeddings[:100])
    index.search(embeddings[0])
    (before,) = index._snapshot.segments
    index.add(embeddings=embeddings[100:])
    assert index._snapshot.segments[0] is before
    assert index.segment_count == 2


def test_numbers_and_arrays_of_any_kind_are_taken(tmp_path: Path) -> None:
    embeddings = random_embeddings(50)
    expected = Index.build(tmp_path / "a.jv5", embeddings=embeddings, dim=32).search(embeddings[:4], 3)
    unaligned = np.frombuffer(b"x" + embeddings.tobytes(), np.float32, offset=1).reshape(embeddings.shape)
    for i, given in enumerate(
        (unaligned, np.asfortranarray(embeddings), embeddings.astype(">f4"), embeddings[::-1][::-1])
    ):
        index = Index.build(tmp_path / f"{i}.jv5", embeddings=given, dim=np.int64(32))  # type: ignore[arg-type]
        assert index.search(given[:4], np.int32(3)) == expected  # type: ignore[call-overload]
