"""What an index may store and how that is searched: each mode against plain NumPy, and against the public kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jv5kit import (
    Index,
    hamming_search,
    int8_search,
    quantize_embeddings,
    quantize_rows,
    rescored_search,
    truncate_embeddings,
)
from jv5kit.errors import InputError
from jv5kit.rotation import Rotation
from jv5kit.storage.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.types import Hit

DIM, STORED = 64, 40


def embeddings(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows whose mean and first dimensions stand out, as those of models do."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((count, DIM)) / np.arange(1, DIM + 1) ** 0.3 + 0.1).astype(np.float32)


def same(hits: list[list[Hit]], scores: NDArray[Any], rows: NDArray[np.int64]) -> None:
    assert [[hit.id for hit in one] for one in hits] == [[str(row) for row in one] for one in rows.tolist()]
    np.testing.assert_allclose([[hit.score for hit in one] for one in hits], scores, atol=1e-5)


@pytest.fixture
def given() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return embeddings(2000), embeddings(20, seed=1)


Given = tuple["NDArray[np.float32]", "NDArray[np.float32]"]


def test_codes_that_order_themselves(tmp_path: Path, given: Given) -> None:
    rows, queries = given
    index = Index.build(tmp_path / "x.jv5", embeddings=rows, dim=STORED, rescore="codes")
    asked = truncate_embeddings(queries, STORED)
    scores, found = rescored_search(asked, quantize_embeddings(truncate_embeddings(rows, STORED)), 10, oversample=6)
    same(index.search(queries, 10, oversample=6), scores, found)


def test_bits_alone(tmp_path: Path, given: Given) -> None:
    rows, queries = given
    index = Index.build(tmp_path / "x.jv5", embeddings=rows, dim=STORED, rescore="none")
    codes = [quantize_embeddings(truncate_embeddings(part, STORED)) for part in (queries, rows)]
    distances, found = hamming_search(codes[0], codes[1], 10)
    same(index.search(queries, 10), 1 - 2 * distances / STORED, found)
    same(index.search(codes[0], 10), 1 - 2 * distances / STORED, found)
    assert "rescore" not in _stages(index, queries)


def test_int8_rows(tmp_path: Path, given: Given) -> None:
    rows, queries = given
    index = Index.build(tmp_path / "x.jv5", embeddings=rows, dim=STORED, precision="int8")
    stored, asked = truncate_embeddings(rows, STORED), truncate_embeddings(queries, STORED)
    values, scales = quantize_rows(stored)
    _, candidates = int8_search(quantize_rows(asked)[0], values, scales, 40)
    scores = np.einsum("qd,qkd->qk", asked, values[candidates].astype(np.float32)) * scales[candidates]
    order = np.lexsort((candidates, -scores), axis=1)[:, :10]
    same(index.search(queries, 10), np.take_along_axis(scores, order, 1), np.take_along_axis(candidates, order, 1))
    cosines = asked @ stored.T
    best = np.argsort(-cosines, axis=1)[:, :10]
    found = [[int(hit.id) for hit in hits] for hits in index.search(queries, 10)]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(found, best, strict=True)]) > 0.95


@pytest.mark.parametrize("rescore", [None, "none", "codes"])
def test_codes_that_were_given(tmp_path: Path, given: Given, rescore: Any) -> None:
    """The same answers as from the embeddings that they are made of, without rows to rescore with."""
    rows, queries = given
    codes = quantize_embeddings(rows)
    index = Index.build(tmp_path / "x.jv5", embeddings=codes, rescore=rescore)
    whole = Index.build(tmp_path / "y.jv5", embeddings=rows, rescore=rescore or "none")
    assert index.settings.rescore == (rescore or "none")
    assert index.search(queries, 10) == whole.search(queries, 10)
    for asked in (quantize_embeddings(queries), quantize_embeddings(queries)[3]):
        assert index.search(asked, 10) == whole.search(asked, 10)
    index.add(embeddings=codes[:2], ids=["a", "b"])
    assert {hit.id for hit in index.search(codes[1], 2)} == {"1", "b"}
    assert index.add(embeddings=codes[:2], ids=["a", "b"]).identical == 2
    index.add(embeddings=rows[5:6], ids=["c"])
    assert {hit.id for hit in index.search(codes[5], 2)} == {"5", "c"}
    with pytest.raises(InputError, match=r"queries have 3 dimensions; this index takes 64"):
        index.search(np.zeros((1, 3), np.uint8))


def test_an_index_that_needs_real_numbers_takes_no_codes(tmp_path: Path, given: Given) -> None:
    rows, _ = given
    codes = quantize_embeddings(rows)
    for i, options in enumerate(({}, {"precision": "float32"}, {"rescore": "none", "rotate": True})):
        index = Index.build(tmp_path / f"{i}.jv5", embeddings=rows, **options)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="the embeddings are uint8 codes; this index takes real numbers"):
            index.add(embeddings=codes)


@pytest.mark.parametrize(
    "options", [{"precision": "float32"}, {"precision": "int8"}, {}, {"rescore": "codes"}, {"rescore": "none"}]
)
@pytest.mark.parametrize("dim", [DIM, STORED])
def test_a_rotation_is_fitted_kept_and_applied(tmp_path: Path, given: Given, options: dict[str, Any], dim: int) -> None:
    """The index of rotated embeddings is that of embeddings which were rotated before."""
    rows, queries = given
    index = Index.build(tmp_path / "x.jv5", embeddings=rows, dim=dim, rotate=True, **options)
    rotation = Index.open(tmp_path / "x.jv5")._snapshot.rotation
    assert isinstance(rotation, Rotation)
    before = Index.build(tmp_path / "y.jv5", embeddings=rotation(rows), dim=dim, **options)
    expected = before.search(rotation(queries), 10)
    for opened in (index, Index.open(tmp_path / "x.jv5")):
        found = opened.search(queries, 10)
        assert [[hit.id for hit in hits] for hits in found] == [[hit.id for hit in hits] for hits in expected]
    index.add(embeddings=embeddings(50, seed=2), ids=[f"new {i}" for i in range(50)])
    assert index.search(embeddings(50, seed=2)[7], 1)[0].id == "new 7"
    with pytest.raises(InputError, match="dimensions; this index takes 64"):
        index.search(queries[:, :STORED])
    assert verify(tmp_path / "x.jv5") == []


def test_a_rotation_keeps_more_in_fewer_dimensions(tmp_path: Path) -> None:
    turned = np.linalg.qr(np.random.default_rng(3).standard_normal((DIM, DIM)))[0].astype(np.float32)
    rows, queries = embeddings(3000) @ turned, embeddings(50, seed=1) @ turned
    best = np.argsort(-(truncate_embeddings(queries, DIM) @ truncate_embeddings(rows, DIM).T), axis=1)[:, :10]
    recall = []
    for rotate in (False, True):
        index = Index.build(tmp_path / f"{rotate}.jv5", embeddings=rows, dim=16, precision="float32", rotate=rotate)
        found = [[int(hit.id) for hit in hits] for hits in index.search(queries, 10)]
        recall.append(np.mean([np.isin(a, b).mean() for a, b in zip(found, best, strict=True)]))
    assert recall[1] > recall[0] + 0.05


def test_nothing_to_fit_a_rotation_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no embedding, to fit a rotation on"):
        Index.build(tmp_path / "x.jv5", embeddings=np.empty((0, 8)), rotate=True)
    assert not (tmp_path / "x.jv5").exists()


def test_stages_are_the_ones_that_ran(tmp_path: Path, given: Given) -> None:
    rows, queries = given
    index = Index.build(tmp_path / "x.jv5", embeddings=rows)
    stages: dict[str, float] = {}
    index.search(queries, stages=stages)
    assert set(stages) == {"encode", "filter", "scan", "rescore", "documents"}
    assert all(time > 0 for time in stages.values())
    before = dict(stages)
    index.search(queries, stages=stages)
    assert all(stages[name] > before[name] for name in stages), "they add up"


def _stages(index: Index, queries: NDArray[np.float32]) -> set[str]:
    stages: dict[str, float] = {}
    index.search(queries, stages=stages)
    return set(stages)
