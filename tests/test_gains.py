"""The table of what each mode finds, on a collection made here."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from jv5kit import Document, rotation, truncate_embeddings
from jv5kit.evaluation.beir import Collection

PATH = Path(__file__).parents[1] / "benches" / "gains.py"


@pytest.fixture(scope="module")
def gains() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gains", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where a dataclass looks up its annotations.
    sys.modules["gains"] = module
    spec.loader.exec_module(module)
    return module


def test_the_table(gains: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # Noise has no better rotation.
    monkeypatch.setattr(rotation, "ITERATIONS", 1)
    rng = np.random.default_rng(0)
    documents = truncate_embeddings(rng.standard_normal((400, 300)), 300)
    queries = truncate_embeddings(documents[:50] + 0.03 * rng.standard_normal((50, 300)), 300)
    collection = Collection(
        [Document(f"d{row}", f"it is about word{row}s", "Word" if row % 2 else None) for row in range(400)],
        {f"q{row}": f"is it the word{row}?" for row in range(50)},
        {f"q{row}": {f"d{row}": 1} for row in range(50)},
    )
    table = [line.strip("| ").split(" | ") for line in gains.lines(gains.Encoded("c", collection, queries, documents))]
    assert [row[1] for row in table] == [
        "words (BM25)",
        "float32 300",
        "float32 300 + words",
        "float32 256",
        "float32 64",
        "256 bits, Hamming",
        "256 bits, float query",
        "256 bits, rescored by int8",
        "256 bits, rescored by int8 + words",
    ]
    # "word7s" has the stem of "word7".
    assert table[0][2:] == ["1.0000", "100.0%", "-", "-"]
    assert all(float(row[2]) > 0.9 for row in table if row[1] != "float32 64")
    few = gains.lines(gains.Encoded("c", collection, *(truncate_embeddings(x, 100) for x in (queries, documents))))
    assert len(list(few)) == 4


def test_fusion_by_reciprocal_ranks(gains: ModuleType) -> None:
    # 1 is second in both; 0 and 2 are first and third, which is a little more: 1/61 + 1/63 > 2/62.
    assert gains.fused([[0, 1, 2]], [[2, 1, 0]]) == [[0, 2, 1]]
    assert gains.fused([[5], []], [[7, 5], [3]]) == [[5, 7], [3]]


def test_words_that_are_none(gains: ModuleType) -> None:
    collection = Collection(
        [Document("a", "to be or not to be"), Document("b", "a bee")],
        {"only stop words": "To be", "signs": "?!", "quotes": '" OR bee*', "operators": "NEAR NOT bees"},
        {},
    )
    assert gains.by_words(collection) == [[0], [], [1], [1]]
