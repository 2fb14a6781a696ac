"""Search of float32 rows: a score is a function of the query and the row, whatever they are compared beside."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from jv5kit import scan
from jv5kit.embeddings import truncate_embeddings
from jv5kit.scan import Rows
from jv5kit.storage.state import Settings

DIM = 24
COUNT = 600


class Segment:
    """As much of a segment as a scan of float32 rows takes."""

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        self.embeddings = embeddings
        self.rows = len(embeddings)

    def tensor(self, name: str) -> NDArray[np.float32]:
        assert name == "embeddings"
        return self.embeddings


def rows_of(embeddings: NDArray[np.float32], flags: NDArray[np.bool_], ends: list[int]) -> Rows:
    parts = [slice(*part) for part in pairwise([0, *ends, len(embeddings)])]
    masks = [np.packbits(flags[part], bitorder="little") for part in parts]
    segments: list[object] = [Segment(embeddings[part]) for part in parts]
    return Rows(Settings(DIM, "float32", DIM), segments, masks)  # type: ignore[arg-type]  # as much as it takes


@pytest.fixture
def embeddings() -> NDArray[np.float32]:
    """Rows that are the same, that differ in a last bit, and that differ: ties, and what rounding makes ties of."""
    generator = np.random.default_rng(0)
    few = truncate_embeddings(generator.standard_normal((30, DIM)), DIM)
    rows = few[generator.integers(0, 30, COUNT)]
    rows[::3] = np.nextafter(rows[::3], generator.choice([-1, 1], rows[::3].shape).astype(np.float32))
    return rows


@pytest.mark.parametrize("top_k", [1, 10, 100, COUNT + 5])
@pytest.mark.parametrize("ends", [[], [1, 130, 131, 400]])
@pytest.mark.parametrize("block_rows", [64, 10_000])
def test_the_best_by_exact_scores_then_by_row(
    embeddings: NDArray[np.float32], top_k: int, ends: list[int], block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(scan, "PAIRS", 50)
    generator = np.random.default_rng(1)
    queries = truncate_embeddings(embeddings[:70] + 0.01 * generator.standard_normal((70, DIM)), DIM)
    flags = generator.random(COUNT) < 0.7
    exact = (queries.astype(np.float64) @ embeddings.T.astype(np.float64)).astype(np.float32)
    exact[:, ~flags] = -np.inf
    order = np.argsort(-exact, axis=1, kind="stable")[:, : min(top_k, flags.sum())]
    rows = rows_of(embeddings, flags, ends)
    for part in (slice(0, 70), slice(3, 4)):
        scores, positions = scan.candidates(rows, queries[part], top_k, 4, {}).best(top_k)
        np.testing.assert_array_equal(positions, order[part])
        np.testing.assert_array_equal(scores, np.clip(np.take_along_axis(exact[part], order[part], axis=1), -1, 1))
