from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from jv5kit import _native, embedding_ranges, quantize_embeddings, quantize_rows
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

any_rows = arrays.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(1, 300)),
    elements=st.floats(width=32) | st.sampled_from([0.0, -0.0]),
)


@given(any_rows)
def test_bits_are_those_of_packbits(embeddings: NDArray[np.float32]) -> None:
    codes = quantize_embeddings(embeddings)
    assert codes.dtype == np.uint8
    with np.errstate(invalid="ignore"):
        assert np.array_equal(codes, np.packbits(embeddings > 0, axis=-1))


def test_bits_are_those_of_sentence_transformers() -> None:
    from sentence_transformers.util import quantize_embeddings as theirs

    embeddings = np.random.default_rng(0).standard_normal((20, 384)).astype(np.float32)
    assert np.array_equal(quantize_embeddings(embeddings), theirs(embeddings, precision="ubinary"))


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 50)), elements=st.floats(-1e3, 1e3, width=32))
)
def test_int8_rows_come_back_to_half_a_step(embeddings: NDArray[np.float32]) -> None:
    values, scales = quantize_rows(embeddings)
    assert values.dtype == np.int8
    assert scales.dtype == np.float32
    error = np.abs(values * scales[:, None].astype(np.float64) - embeddings)
    assert (error <= scales[:, None] * 0.501 + 1e-30).all()


def test_int8_rows_and_their_bits_in_one_pass() -> None:
    embeddings = np.random.default_rng(1).standard_normal((50, 37)).astype(np.float32)
    values, scales, codes = _native.quantize_rows(embeddings, True)
    assert np.array_equal(codes, quantize_embeddings(embeddings))
    alone = quantize_rows(embeddings)
    assert np.array_equal(alone[0], values)
    assert np.array_equal(alone[1], scales)
    assert _native.quantize_rows(embeddings, False)[2] is None


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(2, 9), st.integers(1, 60)), elements=st.floats(-9, 9, width=16)),
    st.sampled_from([0, 0.5, 1, 2]),
)
def test_int8_by_ranges_is_that_of_sentence_transformers(embeddings: NDArray[np.float32], stretch: float) -> None:
    from sentence_transformers.util import quantize_embeddings as theirs

    # Of a part of the embeddings or narrower than they are, the ranges clip some.
    ranges = embedding_ranges(embeddings[:2]) * np.float32(stretch)
    for chosen in (ranges, None):
        ours = quantize_embeddings(embeddings, "int8", chosen)
        assert ours.dtype == np.int8
        assert np.array_equal(ours, theirs(embeddings, precision="int8", ranges=chosen))


def test_the_values_of_int8_by_ranges() -> None:
    ranges = np.array([[0, -255, 2], [255, 255, 2]])
    embeddings = np.array([[-1, -300, 1], [0, -255, 2], [1.9, 0, 3], [255, 255, 200], [1e9, np.inf, np.nan]])
    expected = [[-128, -128, -128], [-128, -128, -128], [-127, -1, -127], [127, 127, 70], [127, 127, -128]]
    assert quantize_embeddings(embeddings, "int8", ranges).tolist() == expected
    assert quantize_embeddings(np.ones((0, 3)), "int8").shape == (0, 3)


def test_ranges_are_the_lowest_and_the_highest() -> None:
    ranges = embedding_ranges([[1, 5], [2, -5], [0, 0]])
    assert ranges.dtype == np.float32
    assert ranges.tolist() == [[0, -5], [2, 5]]


def test_wrong_ranges_are_named() -> None:
    rows = np.ones((3, 2))
    wrong: list[tuple[ArrayLike, str]] = [
        (np.ones((2, 3)), r"ranges have shape \(2, 3\); they must be \(2, 2\)"),
        ([[0, 1], [1, 0]], "range of dimension 1 is 1.0 to 0.0"),
        (np.array([[0, 0], [np.nan, 1]]), "range of dimension 0 is 0.0 to nan"),
        (np.array([[-np.inf, 0], [1, 1]]), "range of dimension 0 is -inf to 1.0"),
        ([[-3e38, 0], [3e38, 1]], "range of dimension 0"),
    ]
    for ranges, message in wrong:
        with pytest.raises(InputError, match=message):
            quantize_embeddings(rows, "int8", ranges)
    with pytest.raises(InputError, match="did you mean precision='int8'"):
        quantize_embeddings(rows, "ubinary", rows)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="at least two"):
        quantize_embeddings(rows[:1], "int8")
    with pytest.raises(InputError, match="dimension 1 is nan to nan"):
        embedding_ranges(np.array([[0, np.nan], [1, 1]]))


def test_only_known_precisions() -> None:
    with pytest.raises(InputError, match="precision='int4'"):
        quantize_embeddings(np.ones((1, 8)), "int4")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="no dimension"):
        quantize_embeddings(np.ones((3, 0)))
