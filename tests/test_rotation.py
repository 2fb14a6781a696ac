from __future__ import annotations

import pickle
import subprocess
import sys

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from jv5kit import hamming_search, quantize_embeddings, truncate_embeddings
from jv5kit.errors import InputError
from jv5kit.rotation import Rotation

Rows = NDArray[np.float32]


def anisotropic(count: int, dim: int = 128, seed: int = 0) -> Rows:
    """Rows of unit length as models give them: a mean, and a variance that falls, in coordinates of no meaning."""
    rng = np.random.default_rng(7)
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    mean = rng.standard_normal(dim) / dim**0.5
    spread = 1 / np.arange(1, dim + 1)
    rows = 0.7 * mean + (np.random.default_rng(seed).standard_normal((count, dim)) * spread) @ axes
    return truncate_embeddings(rows.astype(np.float32), dim)


def error(rotation: Rotation) -> float:
    matrix = rotation.matrix.astype(np.float64)
    return float(np.abs(matrix.T @ matrix - np.eye(len(matrix))).max())


@settings(deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 70)),
        elements=st.sampled_from([0.0, 1.0, -1.0, 1e-20, -3e30]) | st.floats(-10, 10, width=32),
    ),
    st.sets(st.integers(1, 70), max_size=3),
)
def test_any_sample_gives_an_orthogonal_matrix_and_inner_products_stay(rows: Rows, dims: set[int]) -> None:
    rows[:, 0] = np.where(rows.any(axis=1), rows[:, 0], 1)
    rotation = Rotation.fit(rows, [dim for dim in dims if dim <= rows.shape[1]])
    assert rotation.matrix.dtype == np.float32
    assert rotation.matrix.shape == (rows.shape[1],) * 2
    assert rotation.source_dim == rows.shape[1]
    assert error(rotation) < 1e-5
    unit = truncate_embeddings(rows, rows.shape[1])
    rotated = rotation(unit)
    assert rotated.dtype == np.float32
    assert np.abs(rotated @ rotated.T - unit @ unit.T).max() < 1e-5
    assert np.allclose(rotated, unit.astype(np.float64) @ rotation.matrix, atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 127, 128, 2000])
def test_a_sample_of_any_size(count: int) -> None:
    rotation = Rotation.fit(anisotropic(count), dims=[32, 64])
    assert error(rotation) < 1e-5
    rows = anisotropic(500, seed=1)
    assert np.abs(rotation(rows) @ rotation(rows).T - rows @ rows.T).max() < 1e-5


def test_opposite_rows_have_no_mean() -> None:
    rows = anisotropic(50)
    rotation = Rotation.fit(np.concatenate([rows, -rows]), dims=[1])
    assert error(rotation) < 1e-5
    largest = np.linalg.eigh(rows.T.astype(np.float64) @ rows)[1][:, -1]
    assert abs(float(rotation.matrix[:, 0] @ largest)) == pytest.approx(1, abs=1e-5)


def test_the_same_sample_gives_the_same_rotation() -> None:
    rows = anisotropic(300)
    again = Rotation.fit(rows.copy(), [64])
    assert np.array_equal(Rotation.fit(rows, [64]).matrix, again.matrix)
    # Rows count by their direction alone.
    lengths = np.float32(2) ** np.random.default_rng(0).integers(-10, 10, (300, 1)).astype(np.float32)
    assert np.array_equal(Rotation.fit(rows * lengths, [64]).matrix, again.matrix)


def test_another_process_gives_the_same_rotation() -> None:
    script = (
        "import numpy as np; from jv5kit.rotation import Rotation;"
        "rows = np.random.default_rng(3).standard_normal((200, 48), np.float32);"
        "print(Rotation.fit(rows, [16]).matrix.tobytes().hex())"
    )
    ours = Rotation.fit(np.random.default_rng(3).standard_normal((200, 48), np.float32), [16]).matrix.tobytes().hex()
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ours


def test_each_block_spans_what_the_principal_components_span() -> None:
    rows = anisotropic(3000).astype(np.float64)
    dims = [8, 32, 64]
    matrix = Rotation.fit(rows, dims).matrix.astype(np.float64)
    mean = rows.mean(axis=0)
    mean /= np.linalg.norm(mean)
    rest = rows - np.outer(rows @ mean, mean)
    components = np.linalg.svd(rest, full_matrices=False)[2]
    for dim in dims:
        span = np.column_stack([mean, components[: dim - 1].T])
        # The projectors on a subspace are equal, whatever its basis.
        assert np.allclose(matrix[:, :dim] @ matrix[:, :dim].T, span @ span.T, atol=1e-5)
    assert abs(float(matrix[:, 0] @ mean)) == pytest.approx(1, abs=1e-6)
    # Behind the last block there is nothing to rotate: these are the components themselves.
    assert np.allclose(np.abs(np.diag(components[64:80] @ matrix[:, 65:81])), 1, atol=1e-2)


def test_truncation_keeps_more_and_bits_are_balanced() -> None:
    sample, rows = anisotropic(2000), anisotropic(2000, seed=1)
    rotated = Rotation.fit(sample, [64])(rows)
    assert (rotated[:, :64] ** 2).sum() > 1.3 * (rows[:, :64] ** 2).sum()
    # The first bit is the mean's: the same for nearly all.
    balance = [np.abs((values > 0).mean(axis=0) - 0.5)[1:64] for values in (rows, rotated)]
    assert balance[0].mean() > 0.1
    assert balance[1].mean() < 0.03


def test_a_block_is_near_to_its_signs() -> None:
    rows = anisotropic(3000)
    block = Rotation.fit(rows, [64])(rows)[:, 1:64]
    other = np.linalg.qr(np.random.default_rng(5).standard_normal((63, 63)))[0]
    # Of equal lengths, those nearest to their signs have the largest sum of absolute values.
    assert np.abs(block).sum() > 1.02 * np.abs(block @ other).sum()


def test_bits_find_more_of_what_is_nearest() -> None:
    rows, queries = anisotropic(3000), anisotropic(100, seed=1)
    truth = np.argsort(-(queries @ rows.T), axis=1)[:, :10]

    def recall(dims: tuple[int, ...] | None) -> float:
        turn = Rotation.fit(rows, dims) if dims is not None else lambda values: values
        codes, query_codes = (quantize_embeddings(turn(values)[:, :64]) for values in (rows, queries))
        found = hamming_search(query_codes, codes, 40)[1]
        return float(np.mean([np.isin(best, few).mean() for best, few in zip(truth, found, strict=True)]))

    plain, one_block, blocks = recall(None), recall((64,)), recall((8, 16, 32, 64))
    assert one_block > plain + 0.1
    assert one_block > blocks + 0.05


@pytest.mark.parametrize("dim", [1, 7, 64, 384])
def test_a_row_comes_out_the_same_whatever_rows_are_beside_it(dim: int) -> None:
    generator = np.random.default_rng(4)
    rotation = Rotation(np.linalg.qr(generator.standard_normal((dim, dim)))[0])
    rows = generator.standard_normal((200, dim), np.float32)
    rotated = rotation(rows)
    for count in (1, 2, 3, 5, 13, 64, 65, 199):
        assert np.array_equal(rotation(rows[-count:]), rotated[-count:])


def test_a_pickled_rotation_is_the_same() -> None:
    rows = anisotropic(100)
    rotation = Rotation.fit(rows)
    rotated = rotation(rows)
    again = pickle.loads(pickle.dumps(rotation))
    assert np.array_equal(again.matrix, rotation.matrix)
    assert np.array_equal(again(rows), rotated)


def test_embeddings_as_they_come() -> None:
    rotation = Rotation.fit(anisotropic(300))
    rows = anisotropic(10_000, seed=2)
    expected = rows @ rotation.matrix
    assert np.allclose(rotation(rows), expected, atol=1e-6)
    assert np.allclose(rotation(rows.astype(np.float64)), expected, atol=1e-6)
    assert np.allclose(rotation(np.asfortranarray(rows)), expected, atol=1e-6)
    assert np.allclose(rotation(rows[::3]), expected[::3], atol=1e-6)
    assert np.allclose(rotation(rows[:1].tolist()), expected[:1], atol=1e-6)
    assert rotation(rows[:0]).shape == (0, 128)
    bad = rows[:3].copy()
    bad[0, 3], bad[1, 5], bad[2] = np.nan, np.inf, 0
    rotated = rotation(bad)
    assert np.isnan(rotated[0]).all()
    assert not np.isfinite(rotated[1]).any()
    assert not rotated[2].any()


@pytest.mark.parametrize(
    ("sample", "dims", "message"),
    [
        (np.ones(3), [], r"sample has shape \(3,\); it must have two dimensions"),
        (np.ones((0, 3)), [], r"sample has shape \(0, 3\); a rotation needs a row"),
        (np.ones((3, 0)), [], r"sample has shape \(3, 0\); a rotation needs a row"),
        (np.ones((2, 3), complex), [], "sample has dtype complex128"),
        (np.array([[1, 0], [0, 0]]), [], "row 1 of the sample holds nothing but zeros"),
        (np.array([[1, 0], [0, np.nan]]), [], "row 1 of the sample holds a NaN"),
        (np.array([[1, np.inf]]), [], "row 0 of the sample holds an infinity"),
        (np.ones((2, 3)), [0], "dims has 0; the sample has dimensions 1 to 3"),
        (np.ones((2, 3)), [2, 4], "dims has 4; the sample has dimensions 1 to 3"),
        (np.ones((2, 3)), [2.5], "dims is 2.5; it must be a whole number"),
    ],
)
def test_bad_samples(sample: NDArray[np.float64], dims: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rotation.fit(sample, dims)


def test_bad_matrices_and_embeddings() -> None:
    with pytest.raises(InputError, match=r"matrix has shape \(2, 3\); it must be square"):
        Rotation(np.ones((2, 3)))
    with pytest.raises(InputError, match=r"the matrix is not orthogonal: .* off by up to 0.01"):
        Rotation(np.array([[1, 0.01], [0, 1]]))
    with pytest.raises(InputError, match="not orthogonal"):
        Rotation(np.array([[1, 0], [0, np.nan]]))
    rotation = Rotation(np.eye(4)[::-1])
    assert np.array_equal(rotation([[1, 2, 3, 4]]), [[4, 3, 2, 1]])
    for rows in (np.ones((2, 3)), np.ones(4)):
        with pytest.raises(InputError, match=r"it must be \(n, 4\) to be rotated"):
            rotation(rows)
