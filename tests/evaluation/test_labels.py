from __future__ import annotations

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics as reference

from jv5kit.errors import InputError
from jv5kit.evaluation.labels import accuracy, label_ranking_average_precision, macro_f1, v_measure

LABELS = st.sampled_from(["a", "b", "c", "d"])


@settings(deadline=None)
@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40))
def test_single_labels_are_scored_as_by_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    true, found = (list(column) for column in zip(*pairs, strict=True))
    assert accuracy(true, found) == pytest.approx(reference.accuracy_score(true, found), abs=1e-6)
    assert macro_f1(true, found) == pytest.approx(
        reference.f1_score(true, found, average="macro", zero_division=0), abs=1e-6
    )
    assert v_measure(true, found) == pytest.approx(reference.v_measure_score(true, found), abs=1e-6)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 2**31))
def test_several_labels_are_scored_as_by_scikit_learn(rows: int, labels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, found = rng.random((2, rows, labels)) < 0.4
    # Few values, so that there are ties.
    scores = rng.integers(0, 4, (rows, labels)) / 4
    assert accuracy(true, found) == pytest.approx(reference.accuracy_score(true, found), abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = reference.f1_score(true, found, average="macro", zero_division=0)
    assert macro_f1(true, found) == pytest.approx(expected, abs=1e-6)
    expected = reference.label_ranking_average_precision_score(true, scores)
    assert label_ranking_average_precision(true, scores) == pytest.approx(expected, abs=1e-6)


def test_clusters_have_no_names() -> None:
    assert v_measure(["x", "x", "y"], [7, 7, 3]) == pytest.approx(1)
    assert v_measure(["x", "x", "y", "y"], [0, 1, 0, 1]) == 0
    assert v_measure(["x", "x"], [0, 0]) == 1


@pytest.mark.parametrize("measure", [accuracy, macro_f1, v_measure, label_ranking_average_precision])
def test_bad_input(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(3,\)"):
        measure([0, 1], [0, 1, 1])
    with pytest.raises(InputError, match="there is no row"):
        measure([], [])


def test_scores_that_are_nan() -> None:
    with pytest.raises(InputError, match="none of them NaN"):
        label_ranking_average_precision([[True, False]], [[0.5, float("nan")]])
