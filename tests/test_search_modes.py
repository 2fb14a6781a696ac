"""One index searched in several modes: each gives what an index that stores nothing else gives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from jv5kit import Index, quantize_embeddings
from jv5kit.errors import InputError
from jv5kit.search_modes import SEARCH_MODES, modes_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.types import SearchMode

DIM = 64


def rows(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of bits with int8 rows beside them."""
    return Index.build(tmp_path_factory.mktemp("modes") / "both.jv5", embeddings=rows(3000, 0))


@pytest.mark.parametrize(
    ("mode", "alike"),
    [("ubinary", {"rescore": "none"}), ("int8", {"precision": "int8"}), ("ubinary+int8", {"rescore": "int8"})],
)
def test_a_mode_is_an_index_that_stores_nothing_else(
    both: Index, tmp_path: Path, mode: SearchMode, alike: dict[str, Any]
) -> None:
    queries = rows(10, 1)
    expected = Index.build(tmp_path / "one.jv5", embeddings=rows(3000, 0), **alike).search(queries, 7)
    assert both.search(queries, 7, mode=mode) == expected


def test_the_modes_differ_and_the_own_one_is_the_default(both: Index) -> None:
    queries = rows(10, 1)
    found = {mode: both.search(queries, 7, mode=mode) for mode in modes_of(both.settings)}
    assert both.search(queries, 7) == found["ubinary+int8"]
    assert found["ubinary"] != found["int8"] != found["ubinary+int8"]


def test_float_rows_beside_their_graph(tmp_path: Path) -> None:
    pytest.importorskip("hnswlib")
    index = Index.build(tmp_path / "x.jv5", embeddings=rows(12_000, 0), precision="float32", hnsw=True)
    stages: dict[str, float] = {}
    index.search(rows(1, 1), stages=stages)
    assert "scan" not in stages
    exact = Index.build(tmp_path / "y.jv5", embeddings=rows(12_000, 0), precision="float32")
    assert index.search(rows(3, 1), mode="float32") == exact.search(rows(3, 1))


@pytest.mark.parametrize(
    ("options", "modes"),
    [
        ({"precision": "float32"}, {"float32": 256}),
        ({"precision": "int8"}, {"int8": 68}),
        ({"rescore": "codes"}, {"ubinary": 8}),
        ({"rescore": "none"}, {"ubinary": 8}),
        ({}, {"ubinary+int8": 76, "int8": 68, "ubinary": 8}),
    ],
)
def test_the_modes_of_an_index_and_their_bytes(
    tmp_path: Path, options: dict[str, Any], modes: dict[SearchMode, int]
) -> None:
    index = Index.build(tmp_path / "x.jv5", embeddings=rows(5, 0), **options)
    assert modes_of(index.settings) == modes
    assert len(index.search(rows(1, 1)[0], 3, mode=next(iter(modes)))) == 3
    for mode in set(SEARCH_MODES) - set(modes):
        with pytest.raises(InputError, match=re.escape(f"it can be searched in {', '.join(modes)}")):
            index.search(rows(1, 1)[0], mode=mode)


def test_what_is_no_mode(both: Index) -> None:
    with pytest.raises(InputError, match="mode='exact' is not known; choose one of float32, int8, ubinary, ubinary"):
        both.search(rows(1, 1)[0], mode=cast("SearchMode", "exact"))


def test_codes_are_compared_with_codes_alone(both: Index) -> None:
    codes = quantize_embeddings(rows(2, 1))
    assert both.search(codes, mode="ubinary") == both.search(codes)
    with pytest.raises(InputError, match="mode='int8' takes texts, or embeddings, but no codes"):
        both.search(codes, mode="int8")
