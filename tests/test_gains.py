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
    documents = truncate_embeddings(rng.standard_normal((400, 304)), 304)
    queries = truncate_embeddings(documents[:50] + 0.03 * rng.standard_normal((50, 304)), 304)
    collection = Collection(
        [Document(f"d{row}", f"it is about word{row}s", "Word" if row % 2 else None) for row in range(400)],
        {f"q{row}": f"is it the word{row}?" for row in range(50)},
        {f"q{row}": {f"d{row}": 1} for row in range(50)},
    )
    table = [line.strip("| ").split(" | ") for line in gains.lines(gains.Encoded("c", collection, queries, documents))]
    assert [row[1] for row in table] == [*gains.MODES, "words (BM25)"]
    # "word7s" has the stem of "word7".
    assert table[-1][2:] == ["1.0000", "100.0%", "-", "-"]
    assert all(float(row[2]) > 0.9 for row in table if row[1] != "float32, 64 dimensions")
    few = gains.lines(gains.Encoded("c", collection, *(truncate_embeddings(x, 104) for x in (queries, documents))))
    assert [line.split(" | ")[1] for line in few] == [
        "float32",
        "float32, 64 dimensions",
        "float32 + words",
        "words (BM25)",
    ]
