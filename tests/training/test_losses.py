"""Each loss against a plain NumPy twin, written from the paper's formula with loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from jv5kit.training import losses

Array = NDArray[np.float64]


def rows(count: int, dim: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((count, dim))


def tensor(array: Any) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def softmax(values: list[float]) -> list[float]:
    highest = max(values)
    powers = [math.exp(value - highest) for value in values]
    return [power / sum(powers) for power in powers]


sizes = st.tuples(st.integers(2, 7), st.integers(2, 6), st.integers(0, 1000))


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_distillation(size: tuple[int, int, int]) -> None:
    count, dim, seed = size
    student, teacher = rows(count, dim, seed), rows(count, dim, seed + 1)
    expected = sum(1 - cosine(s, t) for s, t in zip(student, teacher, strict=True)) / count
    assert float(losses.distillation(tensor(student), tensor(teacher))) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_score_distillation(size: tuple[int, int, int]) -> None:
    count, dim, seed = size
    sides = rows(count, dim, seed), rows(count, dim + 1, seed + 1)
    p_student, p_teacher = ([softmax([cosine(a, b) / 0.1 for b in side]) for a in side] for side in sides)
    expected = sum((p_student[i][j] - p_teacher[i][j]) ** 2 for i in range(count) for j in range(count)) / count
    found = losses.score_distillation(tensor(sides[0]), tensor(sides[1]), 0.1)
    assert float(found) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_similarity_distillation(size: tuple[int, int, int]) -> None:
    count, dim, seed = size
    student, teacher = rows(count, dim, seed), rows(count, dim + 1, seed + 1)
    pairs = [(i, j) for i in range(count) for j in range(count)]
    expected = sum((cosine(student[i], student[j]) - cosine(teacher[i], teacher[j])) ** 2 for i, j in pairs) / count**2
    found = losses.similarity_distillation(tensor(student), tensor(teacher))
    assert float(found) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(0, 4))
def test_infonce(size: tuple[int, int, int], mined: int) -> None:
    count, dim, seed = size
    queries, candidates = rows(count, dim, seed), rows(count + mined, dim, seed + 1)
    never = np.random.default_rng(seed).random((count, count + mined)) < 0.3
    expected = 0.0
    for i in range(count):
        powers = [math.exp(cosine(queries[i], candidate) / 0.2) for candidate in candidates]
        others = sum(power for j, power in enumerate(powers) if j != i and not never[i, j])
        expected -= math.log(powers[i] / (powers[i] + others)) / count
    found = losses.infonce(tensor(queries), tensor(candidates), 0.2, torch.from_numpy(never))
    assert float(found) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_orthogonality(size: tuple[int, int, int]) -> None:
    count, dim, seed = size
    x = rows(count, dim, seed)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    expected = sum(cosine(x[i], x[j]) ** 2 for i, j in pairs) / (count * (count - 1))
    assert float(losses.orthogonality(tensor(x))) == pytest.approx(expected, abs=1e-6)


def test_orthogonality_of_a_single_row_is_none() -> None:
    assert float(losses.orthogonality(tensor(rows(1, 4, 0)))) == 0


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_cosent(size: tuple[int, int, int]) -> None:
    count, dim, seed = size
    left, right = rows(count, dim, seed), rows(count, dim, seed + 1)
    scores = np.random.default_rng(seed).integers(0, 4, count)
    own = [cosine(a, b) for a, b in zip(left, right, strict=True)]
    total = 1.0
    for i in range(count):
        for j in range(count):
            if scores[i] > scores[j]:
                total += math.exp((own[j] - own[i]) / 0.05)
    found = losses.cosent(tensor(left), tensor(right), torch.from_numpy(scores), 0.05)
    assert float(found) == pytest.approx(math.log(total), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_relational(size: tuple[int, int, int]) -> None:
    count, dim, seed = size
    student, base = rows(count, dim, seed), rows(count, dim + 2, seed + 1)
    pairs = [(i, j) for i in range(count) for j in range(count)]
    means = [sum(1 - cosine(side[i], side[j]) for i, j in pairs) / count**2 for side in (student, base)]
    expected = sum(
        ((1 - cosine(student[i], student[j])) / means[0] - (1 - cosine(base[i], base[j])) / means[1]) ** 2
        for i, j in pairs
    )
    found = losses.relational(tensor(student), tensor(base))
    assert float(found) == pytest.approx(expected / count**2, abs=1e-6)


def test_relational_of_equal_texts_is_finite() -> None:
    same = tensor(np.ones((4, 3)))
    assert math.isfinite(float(losses.relational(same, same)))


def test_signs_are_the_bits_of_the_index_and_pass_the_gradient() -> None:
    from jv5kit import quantize_embeddings

    x = rows(5, 16, 3).astype(np.float32)
    x[0, :3] = [0.0, -0.0, 1e-30]
    values = torch.tensor(x, requires_grad=True)
    bits = losses.signs(values, 8)
    np.testing.assert_array_equal(np.packbits(bits.detach().numpy() > 0, axis=1), quantize_embeddings(x[:, :8]))
    assert set(bits.detach().round(decimals=4).flatten().tolist()) == {-1.0, 1.0}
    weights = torch.randn(5, 8)
    (bits * weights).sum().backward()
    straight = torch.tensor(x, requires_grad=True)
    (torch.nn.functional.normalize(straight[:, :8]) * 8**0.5 * weights).sum().backward()
    torch.testing.assert_close(values.grad, straight.grad)


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(0, 4))
def test_ranking(size: tuple[int, int, int], mined: int) -> None:
    count, dim, seed = size
    student, teacher = rows(count, count + mined, seed), rows(count, count + mined, seed + dim)
    never = np.random.default_rng(seed).random(student.shape) < 0.3
    never[:, 0] = False
    expected = 0.0
    for i in range(count):
        kept = np.flatnonzero(~never[i])
        mine, theirs = (softmax((side[i, kept] / 0.2).tolist()) for side in (student, teacher))
        expected += sum(p * math.log(p / q) for p, q in zip(theirs, mine, strict=True)) / count
    found = losses.ranking(tensor(student), tensor(teacher), 0.2, torch.from_numpy(never))
    assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert float(losses.ranking(tensor(student), tensor(student), 0.2)) == pytest.approx(0.0, abs=1e-9)


def test_bits_tell_cosines_of_values_that_are_spread_normally() -> None:
    queries, noise = rows(40, 4096, 5), rows(40, 4096, 6)
    shares = np.linspace(0.0, 1.0, 40)[:, None]
    candidates = shares * queries + (1 - shares) * noise
    both, values = losses.cosines_of_bits(tensor(queries), tensor(candidates), 4096)
    true = losses.cosines(tensor(queries), tensor(candidates))
    torch.testing.assert_close(both, true, atol=0.07, rtol=0)
    torch.testing.assert_close(values, true, atol=0.07, rtol=0)
    # Canary: untransformed, the bits of near texts are off by more than that.
    assert float((torch.asin(both) * 2 / math.pi - true).abs().max()) > 0.15


def test_repeats() -> None:
    found = losses.repeats(["a", "b"], ["b", "a", "c", "b"])
    assert found.tolist() == [[False, True, False, False], [True, False, False, True]]
