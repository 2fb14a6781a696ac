from __future__ import annotations

import numpy as np
import pytest
from command import random_rows
from scipy.spatial.distance import cosine

from jv5kit import quantize_embeddings, quantize_rows
from jv5kit.errors import InputError
from jv5kit.evaluation.quantized import (
    STORED_PRECISIONS,
    as_query,
    check_dims,
    document_bytes,
    has_meaning,
    pair_cosines,
    stored,
    unit,
)
from jv5kit.evaluation.tasks import KINDS


def test_bytes_are_those_of_the_arrays() -> None:
    rows = random_rows(3, 64)
    values, scales = quantize_rows(rows)
    bits = quantize_embeddings(rows)
    sizes = {
        "float32": rows.nbytes,
        "int8": values.nbytes + scales.nbytes,
        "ubinary": bits.nbytes,
        "ubinary+codes": bits.nbytes,
        "ubinary+int8": bits.nbytes + values.nbytes + scales.nbytes,
    }
    assert {precision: 3 * document_bytes(64, precision) for precision in STORED_PRECISIONS} == sizes


def test_what_is_kept_has_the_direction() -> None:
    rows = random_rows(50, 64)
    assert stored(rows, "float32") is rows
    values, _ = quantize_rows(rows)
    np.testing.assert_array_equal(stored(rows, "int8"), values.astype(np.float32))
    np.testing.assert_array_equal(stored(rows, "ubinary"), np.where(rows > 0, 1, -1))
    assert (pair_cosines(rows, stored(rows, "int8")) > 0.999).all()
    assert (pair_cosines(rows, stored(rows, "ubinary")) > 0.6).all()
    assert as_query(rows, "ubinary+codes") is rows
    np.testing.assert_array_equal(as_query(rows, "ubinary"), stored(rows, "ubinary"))


def test_cosines_of_bits_are_equal_where_distances_are() -> None:
    rows = random_rows(4000, 72)
    left, right = stored(rows[:2000], "ubinary"), stored(rows[2000:], "ubinary")
    distances = (left != right).sum(axis=1)
    cosines = pair_cosines(left, right)
    np.testing.assert_allclose(cosines, 1 - 2 * distances / 72, atol=1e-12)
    assert len(set(cosines.tolist())) == len(set(distances.tolist()))


def test_cosines_of_pairs() -> None:
    left, right = random_rows(20), random_rows(20, seed=1)
    expected = [1 - cosine(a, b) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(pair_cosines(left, right), expected, atol=1e-6)
    assert pair_cosines(np.zeros((1, 16), np.float32), left[:1]).tolist() == [0]
    assert unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]
    right[7, 0] = np.nan
    with pytest.raises(InputError, match="the embedding of pair 7 is not finite"):
        pair_cosines(left, right)


def test_where_precisions_have_a_meaning() -> None:
    for kind in KINDS:
        assert all(has_meaning(kind, precision) for precision in STORED_PRECISIONS[:3])
        assert has_meaning(kind, "ubinary+codes") == (kind not in ("classification", "clustering"))
        assert has_meaning(kind, "ubinary+int8") == (kind in ("retrieval", "long-documents", "bitext"))


def test_dims_that_a_model_does_not_have() -> None:
    check_dims([100, 64], ["float32", "int8"], 100)
    with pytest.raises(InputError, match=r"dim 128 is outside 1\.\.100"):
        check_dims([64, 128], ["float32"], 100)
    with pytest.raises(InputError, match="dim 100 is not a multiple of 8, which ubinary\\+codes needs"):
        check_dims([100], ["float32", "ubinary+codes"], 100)
