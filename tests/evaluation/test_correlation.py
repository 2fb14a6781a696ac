from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from scipy.stats import spearmanr

from jv5kit.errors import InputError
from jv5kit.evaluation.correlation import spearman

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.5, 1.0, 2.5, 5.0])


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=40))
def test_it_is_scipys_with_ties(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-6)


def test_its_ends() -> None:
    assert spearman([1, 2, 3], [10, 20, 300]) == 1
    assert spearman([1, 2, 3], [5, 4, -1]) == -1
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="all 3 values of a column are equal"):
        spearman([1, 2, 3], [2, 2, 2])
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(3,\)"):
        spearman([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="n at least 2"):
        spearman([1], [1])
    with pytest.raises(InputError, match="value 1 is NaN"):
        spearman([1, 2], [1, float("nan")])
