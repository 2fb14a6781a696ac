from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from jv5kit import Index
from jv5kit.hybrid import fuse
from jv5kit.storage.catalog import Catalog

if TYPE_CHECKING:
    from pathlib import Path


def test_fusion_by_reciprocal_ranks() -> None:
    # 1 is second in both; 0 and 2 are first and third, which is a little more: 1/61 + 1/63 > 2/62.
    assert fuse([np.array([0, 1, 2]), np.array([2, 1, 0])], 3).tolist() == [0, 2, 1]
    assert fuse([np.array([5]), np.array([7, 5])], 10).tolist() == [5, 7]
    assert fuse([np.empty(0, np.int64), np.array([3])], 1).tolist() == [3]


@pytest.mark.parametrize(
    ("query", "rows"),
    [("To be", [0]), ("?!", []), ('" OR bee*', [1]), ("NEAR NOT bees", [1]), ("is BEE'S", [1])],
)
def test_words_that_are_none_or_operators(tmp_path: Path, query: str, rows: list[int]) -> None:
    documents = [{"text": "to be or not to be"}, {"text": "a bee"}]
    Index.build(tmp_path / "x.jv5", documents, embeddings=np.eye(2, 8), lexical=True).close()
    assert list(Catalog(tmp_path / "x.jv5").lexical_rows(query)) == rows
