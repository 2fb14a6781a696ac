from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jv5kit import (
    embedding_ranges,
    hamming_search,
    quantize_embeddings,
    quantize_rows,
    rescored_search,
    truncate_embeddings,
)
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def unit_rows(n: int, dim: int, seed: int) -> NDArray[np.float32]:
    return truncate_embeddings(np.random.default_rng(seed).standard_normal((n, dim)), dim)


def naive_rescored_search(
    queries: NDArray[np.float32],
    codes: NDArray[np.uint8],
    top_k: int,
    values: NDArray[np.float64],
    oversample: int,
    mask: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    """Products in float64 with what the rows stand for, of the candidates, best first."""
    _, found = hamming_search(quantize_embeddings(queries), codes, top_k * oversample, mask=mask)
    return -np.sort(-np.einsum("qd,qkd->qk", queries, values[found]), axis=1)[:, :top_k]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 100),
    st.integers(0, 5),
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_every_kind_of_rows_equals_the_naive_search(
    n: int, dim: int, q: int, top_k: int, oversample: int, seed: int, masked: bool
) -> None:
    embeddings, queries = unit_rows(n, dim, seed), unit_rows(q, dim, seed + 1)
    codes = quantize_embeddings(embeddings)
    mask = np.random.default_rng(seed).random(n) < 0.5 if masked else None
    symmetric, scales = quantize_rows(embeddings)
    ranges = np.stack([np.full(dim, -0.5), np.linspace(-0.5, 1, dim)])
    steps = np.where(ranges[1] > ranges[0], (ranges[1] - ranges[0]) / 255, 0)
    ranged = quantize_embeddings(embeddings, "int8", ranges)
    bits = np.unpackbits(codes, axis=1)[:, :dim]
    kinds: list[tuple[dict[str, Any], NDArray[np.float64]]] = [
        ({"rows": symmetric, "scales": scales}, symmetric.astype(np.float64) * scales[:, None]),
        # A dimension without a range has steps of 1 and nothing to be in the middle of.
        (
            {"rows": ranged, "ranges": ranges},
            ranges[0] + steps / 2 + (ranged + 128.0) * np.where(steps == 0, 1, steps),
        ),
        ({}, (2.0 * bits - 1) / np.sqrt(dim)),
    ]
    for options, values in kinds:
        scores, rows = rescored_search(queries, codes, top_k, oversample=oversample, mask=mask, **options)
        expected = naive_rescored_search(queries, codes, top_k, values, oversample, mask)
        assert scores.dtype == np.float32
        assert rows.dtype == np.int64
        assert scores.shape == rows.shape == expected.shape
        # Ranges may be far wider than the embeddings, and then so are their products.
        assert np.allclose(scores, expected, atol=1e-4)
        assert np.allclose(np.einsum("qd,qkd->qk", queries, values[rows]), expected, atol=1e-4)


def test_equal_scores_come_by_row() -> None:
    embeddings = np.repeat(unit_rows(5, 32, 1), 4, axis=0)
    rows, scales = quantize_rows(embeddings)
    codes = quantize_embeddings(embeddings)
    for options in ({}, {"rows": rows, "scales": scales}):
        _, found = rescored_search(embeddings[::4], codes, 4, oversample=5, **options)  # type: ignore[arg-type]
        assert found.tolist() == [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(5)]


def test_a_query_alone_has_the_scores_that_it_has_among_others() -> None:
    embeddings, queries = unit_rows(300, 96, 5), unit_rows(9, 96, 6)
    codes = quantize_embeddings(embeddings)
    symmetric, scales = quantize_rows(embeddings)
    ranges = embedding_ranges(embeddings)
    ranged = quantize_embeddings(embeddings, "int8", ranges)
    kinds: list[dict[str, Any]] = [
        {"rows": symmetric, "scales": scales},
        {"rows": ranged, "ranges": ranges},
        {},
    ]
    for options in kinds:
        together = rescored_search(queries, codes, 20, **options)
        for i in range(len(queries)):
            scores, rows = rescored_search(queries[i : i + 1], codes, 20, **options)
            assert np.array_equal(scores[0], together[0][i])
            assert np.array_equal(rows[0], together[1][i])


def test_scores_estimate_the_cosine_and_better_rows_find_more() -> None:
    embeddings, noise = unit_rows(5000, 128, 2), unit_rows(40, 128, 3)
    queries = truncate_embeddings(embeddings[:40] + noise, 128)
    codes, ranges = quantize_embeddings(embeddings), embedding_ranges(embeddings)
    rows, scales = quantize_rows(embeddings)
    kinds: dict[str, dict[str, Any]] = {
        "codes": {},
        "scales": {"rows": rows, "scales": scales},
        "ranges": {"rows": quantize_embeddings(embeddings, "int8", ranges), "ranges": ranges},
    }
    cosines = queries @ embeddings.T
    best = np.argsort(-cosines, axis=1)[:, :10]
    recall, error = {}, {}
    for name, options in kinds.items():
        scores, found = rescored_search(queries, codes, 10, oversample=20, **options)
        recall[name] = np.mean([np.isin(a, b).mean() for a, b in zip(found, best, strict=True)])
        error[name] = np.abs(scores - np.take_along_axis(cosines, found, axis=1)).max()
    assert min(recall["scales"], recall["ranges"]) > recall["codes"] + 0.1
    assert error["scales"] < 0.005
    assert error["ranges"] < 0.005
    assert error["codes"] < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": np.ones(3, np.float32)}, "without the rows"),
        ({"rows": np.ones((3, 8), np.int8)}, "need either scales"),
        (
            {"rows": np.ones((3, 8), np.int8), "scales": np.ones(3, np.float32), "ranges": np.ones((2, 8))},
            "need either scales",
        ),
        ({"rows": np.ones((2, 8), np.int8), "scales": np.ones(2, np.float32)}, r"rows have shape \(2, 8\)"),
        ({"rows": np.ones((3, 8), np.int8), "scales": np.ones(2, np.float32)}, "2 scales for 3 rows"),
        ({"rows": np.ones((3, 8)), "scales": np.ones(3, np.float32)}, "rows is float64"),
        ({"rows": np.ones((3, 8), np.int8), "ranges": np.ones((2, 7))}, r"ranges have shape \(2, 7\)"),
        ({"oversample": 0}, "oversample=0"),
        ({"mask": np.ones(4, bool)}, "mask is bool of shape"),
        ({"top_k": 0}, "top_k=0"),
        ({"threads": 0}, "threads=0"),
        ({"codes": np.ones((3, 2), np.uint8)}, "queries have 8 dimensions and codes 2 bytes"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"queries": np.ones((1, 8)), "codes": np.ones((3, 1), np.uint8), "top_k": 1} | options
    with pytest.raises(InputError, match=message):
        rescored_search(**arguments)


def test_no_rows_and_no_queries() -> None:
    codes = np.ones((3, 1), np.uint8)
    assert rescored_search(np.ones((0, 8)), codes, 2)[0].shape == (0, 0)
    assert rescored_search(np.ones((2, 8)), codes[:0], 2)[0].shape == (2, 0)
    assert rescored_search(np.ones((2, 8)), codes, 10**30, oversample=10**30)[1].shape == (2, 3)
    assert rescored_search(np.ones((2, 8)), codes, 2, mask=np.zeros(3, bool))[1].shape == (2, 0)
