"""GET and POST /v1/map: the principal components of what an index stores, and the documents in their plane."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from command import random_rows
from serving import error_of, running

import jv5kit
from jv5kit import Index
from jv5kit.server.corpus_map import CorpusMap
from jv5kit.server.errors import ApiError
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit import Encoder
    from jv5kit.types import Precision


def facts_of(corpus: CorpusMap) -> dict[str, Any]:
    return asyncio.run(corpus.facts())


def placed(corpus: CorpusMap, ids: Sequence[Any], passages: Sequence[Any] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"ids": ids} if passages is None else {"ids": ids, "passages": passages}
    return asyncio.run(corpus.place(json.dumps(body).encode()))


@pytest.fixture
def embeddings() -> NDArray[np.float32]:
    """``(60, 64)``, of which two directions are told from the others."""
    rows = random_rows(60, 64)
    rows[:, 3] += np.linspace(-3, 3, 60)
    rows[:, 9] += np.linspace(-1.5, 1.5, 60) ** 2
    return jv5kit.truncate_embeddings(rows, 64)


@pytest.fixture
def index(tmp_path: Path, embeddings: NDArray[np.float32]) -> Iterator[Index]:
    with Index.build(tmp_path / "x.jv5", embeddings=embeddings, precision="float32") as opened:
        yield opened


def by_covariance(vectors: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points ``(n, 2)``, each axis up to its sign, and the shares of the variance: another way to the same."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    return centred @ axes[:, :-3:-1], values[:-3:-1] / values.sum()


@pytest.mark.parametrize(
    ("precision", "rescore"), [("float32", None), ("int8", None), ("ubinary", "int8"), ("ubinary", "none")]
)
def test_the_points_are_the_principal_components_of_what_is_stored(
    tmp_path: Path, embeddings: NDArray[np.float32], precision: Precision, rescore: Any
) -> None:
    if precision == "float32":
        stored: NDArray[Any] = embeddings
    elif "int8" in (precision, rescore):
        rows, scales = jv5kit.quantize_rows(embeddings)
        stored = rows * scales[:, None]
    else:
        stored = np.where(embeddings > 0, 1, -1) / np.sqrt(64)
    expected, shares = by_covariance(stored)
    with Index.build(tmp_path / "p.jv5", embeddings=embeddings, precision=precision, rescore=rescore) as index:
        facts = facts_of(CorpusMap(index))
        assert facts["documents"] == 60
        assert [point["id"] for point in facts["points"]] == [str(i) for i in range(60)]
        points = np.array([[point["x"], point["y"]] for point in facts["points"]])
        signs = np.sign((points * expected).sum(axis=0))
        np.testing.assert_allclose(points, expected * signs, atol=1e-4)
        np.testing.assert_allclose(facts["explained"], shares, atol=1e-4)
        assert shares[0] > shares[1] > 0
        # Another reader of the same index has the same map.
        assert facts_of(CorpusMap(Index.open(index.path))) == facts


def test_it_is_kept_until_the_index_changes(index: Index) -> None:
    corpus = CorpusMap(index)
    facts = facts_of(corpus)
    assert facts_of(corpus) is facts
    assert placed(corpus, ["5"])["state"] == facts["state"]
    with Index.open(index.path) as writing:
        writing.delete(["5", "59"])
    changed = facts_of(corpus)
    assert changed["state"] != facts["state"]
    assert changed["documents"] == 58
    assert [point["id"] for point in changed["points"]] == [str(i) for i in range(59) if i != 5]
    assert placed(corpus, ["5", "6"])["points"][0] is None
    assert placed(corpus, ["6"])["state"] == changed["state"]


def test_documents_of_the_sample_are_placed_where_they_are(index: Index) -> None:
    corpus = CorpusMap(index)
    points = facts_of(corpus)["points"]
    wanted = ["40", "7", "7", "nonsense"]
    expected = [{key: points[int(one)][key] for key in ("id", "x", "y")} for one in wanted[:3]]
    assert placed(corpus, wanted)["points"] == [*expected, None]
    assert placed(corpus, [])["points"] == []


def test_a_large_index_is_sampled_evenly(tmp_path: Path) -> None:
    """Over its segments, and what lies between the sample is placed too."""
    with Index.build(tmp_path / "x.jv5", embeddings=random_rows(2400, 16), precision="int8") as index:
        index.add(embeddings=random_rows(100, 16, seed=1), ids=[f"more{i}" for i in range(100)])
        assert index.segment_count == 2
        corpus = CorpusMap(index)
        facts = facts_of(corpus)
        assert facts["documents"] == 2500
        numbers = [int(one["id"].replace("more", "")) + 2400 * ("more" in one["id"]) for one in facts["points"]]
        assert len(numbers) == 1000
        assert (numbers[0], numbers[-1]) == (0, 2499)
        assert set(np.diff(numbers).tolist()) == {2, 3}
        (missing, *_) = set(range(2500)) - set(numbers)
        (point,) = placed(corpus, [str(missing) if missing < 2400 else f"more{missing - 2400}"])["points"]
        assert max(abs(point["x"]), abs(point["y"])) < 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_index_of_few_documents(tmp_path: Path, count: int) -> None:
    with Index.build(tmp_path / "x.jv5", embeddings=random_rows(2, 16), precision="float32") as index:
        index.delete([str(i) for i in range(count, 2)])
        corpus = CorpusMap(index)
        facts = facts_of(corpus)
        assert (facts["documents"], len(facts["points"])) == (count, count)
        assert facts["explained"] == ([1, 0] if count == 2 else [0, 0])
        assert all(point["y"] == 0 for point in facts["points"])
        if count == 1:
            assert facts["points"][0]["x"] == 0
        if count == 2:
            assert facts["points"][0]["x"] == pytest.approx(-facts["points"][1]["x"], abs=1e-4) != 0
        assert [point is None for point in placed(corpus, ["0", "1"])["points"]] == [i >= count for i in range(2)]


def test_passages_each_have_their_place_and_a_document_is_one_point(tmp_path: Path, encoder: Encoder) -> None:
    documents = [
        {"id": f"d{i}", "text": " ".join(f"the penguin {i + j} of {j}" for j in range(60)), "title": "t" * 200}
        for i in range(4)
    ]
    with Index.build(tmp_path / "x.jv5", documents, encoder, passages=32) as index:
        assert index.row_count > 12
        corpus = CorpusMap(index)
        facts = facts_of(corpus)
        assert [(point["id"], len(point["title"])) for point in facts["points"]] == [(f"d{i}", 120) for i in range(4)]
        first, second, beyond, default = placed(corpus, ["d2"] * 4, [1, 2, 999, None])["points"]
        assert first == default == {key: facts["points"][2][key] for key in ("id", "x", "y")}
        assert second["id"] == "d2"
        assert second != first
        assert beyond is None


@pytest.mark.parametrize(
    ("ids", "passages", "message"),
    [
        (["a"] * 1001, None, "ids has 1,001 documents; send at most 1,000 at a time"),
        ([3], None, "ids[0] is 3; it must be a string"),
        (["a"], [1, 2], "passages has 2 numbers for 1 ids; send one for each"),
        (["a"], [0], "passages[0] is 0; it must be a whole number from 1 on"),
        (["a"], [True], "passages[0] is True; it must be a whole number from 1 on"),
        ("a", None, "ids is 'a'; it must be a list"),
    ],
)
def test_what_cannot_be_placed(index: Index, ids: Any, passages: Any, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        placed(CorpusMap(index), ids, passages)
    assert (caught.value.status, caught.value.message) == (400, message)


def test_over_http(tmp_path: Path, encoder: Encoder) -> None:
    documents = [{"id": f"d{i}", "text": f"the penguin {i} of {i % 7}", "title": f"T{i}"} for i in range(30)]
    with Index.build(tmp_path / "x.jv5", documents, encoder) as index, running(Service(encoder, index)) as url:
        facts = httpx.get(f"{url}/v1/map").json()
        assert [*facts] == ["state", "documents", "points", "explained"]
        assert [point["title"] for point in facts["points"]] == [f"T{i}" for i in range(30)]
        answer = httpx.post(f"{url}/v1/map", json={"ids": ["d3"]}).json()
        expected = facts["points"][3]
        del expected["title"]
        assert answer == {"state": facts["state"], "points": [expected]}
        refused = httpx.post(f"{url}/v1/map", json={"ids": ["d3"], "ranks": []})
        assert refused.status_code == 400
        assert "'ranks' is not known" in error_of(refused)["message"]
        assert httpx.put(f"{url}/v1/map").status_code == 405
    with running(Service(encoder), key="secret") as url:
        assert httpx.get(f"{url}/v1/map").status_code == 401
        headers = {"Authorization": "Bearer secret"}
        for response in (
            httpx.get(f"{url}/v1/map", headers=headers),
            httpx.post(f"{url}/v1/map", json={"ids": []}, headers=headers),
        ):
            assert response.status_code == 404
            assert error_of(response)["code"] == "no_index"
