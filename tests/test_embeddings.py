from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from jv5kit import truncate_embeddings
from jv5kit.embeddings import EmbeddingsFile, check_rows
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

finite = st.floats(-1e6, 1e6, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6)
rows = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=finite)


@given(rows, st.data())
def test_truncation_is_a_slice_at_unit_length(embeddings: NDArray[np.float32], data: st.DataObject) -> None:
    dim = data.draw(st.integers(1, embeddings.shape[1]))
    kept = embeddings[:, :dim].astype(np.float64)
    norms = np.linalg.norm(kept, axis=1, keepdims=True)
    expected = np.divide(kept, norms, out=np.zeros_like(kept), where=norms > 0)
    truncated = truncate_embeddings(embeddings, dim)
    assert truncated.dtype == np.float32
    assert truncated.shape == (len(embeddings), dim)
    np.testing.assert_allclose(truncated, expected, atol=1e-7)


def test_a_row_does_not_depend_on_its_neighbors() -> None:
    embeddings = np.random.default_rng(0).standard_normal((50, 77)).astype(np.float32)
    alone = np.concatenate([truncate_embeddings(embeddings[i : i + 1], 33) for i in range(50)])
    assert (truncate_embeddings(embeddings, 33) == alone).all()


@pytest.mark.parametrize("dim", [0, -1, 9])
def test_a_dim_outside_the_embeddings_is_refused(dim: int) -> None:
    with pytest.raises(InputError, match=f"dim={dim}"):
        truncate_embeddings(np.ones((2, 8)), dim)


@pytest.mark.parametrize("embeddings", [np.ones(8), np.ones((2, 2, 2)), np.array([["a"]]), np.ones((2, 2), complex)])
def test_what_is_no_rows_of_numbers_is_refused(embeddings: NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match=r"shape|dtype"):
        truncate_embeddings(embeddings, 1)


def test_strided_and_double_rows_are_taken() -> None:
    embeddings = np.random.default_rng(1).standard_normal((6, 10))
    expected = truncate_embeddings(embeddings[::2, ::2].astype(np.float32), 3)
    assert (truncate_embeddings(embeddings[::2, ::2], 3) == expected).all()


@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.nan, "a NaN"), (np.inf, "an infinity"), (-np.inf, "an infinity"), (0, "zeros in its first 4")],
)
def test_rows_without_a_direction_are_named(value: float, problem: str) -> None:
    embeddings = np.ones((5, 8), np.float32)
    check_rows(embeddings, 4)
    embeddings[3, :4] = value
    with pytest.raises(InputError, match=f"row 103 of the embeddings holds .*{problem}"):
        check_rows(embeddings, 4, first_row=100)


def test_huge_and_tiny_rows_have_a_direction() -> None:
    check_rows(np.array([[3e38, 3e38], [1e-40, 0]], np.float32), 2)


class TestEmbeddingsFile:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
    def test_slices_are_those_of_the_array(self, tmp_path: Path, dtype: type[np.generic]) -> None:
        array = (np.random.default_rng(0).standard_normal((100, 7)) * 50).astype(dtype)
        np.save(tmp_path / "x.npy", array)
        file = EmbeddingsFile(tmp_path / "x.npy")
        assert file.shape == (100, 7)
        for part in (slice(0, 10), slice(90, 200), slice(100, 110), slice(13, 14)):
            assert (file[part] == array[part]).all()
            assert file[part].shape == array[part].shape

    def test_what_cannot_be_read_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npy"
        with pytest.raises(InputError, match="cannot read"):
            EmbeddingsFile(path)
        path.write_bytes(b"not an array")
        with pytest.raises(InputError, match=r"no \.npy file"):
            EmbeddingsFile(path)
        for array in (np.ones(3), np.ones((2, 2), complex), np.asfortranarray(np.ones((3, 2)))):
            np.save(path, array)
            with pytest.raises(InputError, match="must be real"):
                EmbeddingsFile(path)
        np.save(path, np.ones((100, 4)))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(InputError, match="cut short"):
            EmbeddingsFile(path)
