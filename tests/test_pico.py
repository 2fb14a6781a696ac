"""The model in the package: what it is, what it weighs, and that it is as good as its card says."""

import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from jv5kit import Encoder
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.folders import find_sets
from jv5kit.evaluation.runner import evaluate
from jv5kit.tasks import TASKS
from jv5kit.weights import float_matrix, merge_adapter, read_weights

FOLDER = Path(str(files("jv5kit"))) / "models" / "pico"
HELD_OUT = Path(__file__).parent / "training" / "data"
ROOT = Path(__file__).parents[1]

MOST_BYTES = 24 << 20
MOST_WEIGHTS = 5_308_416
"""Of matrices outside the embeddings: half of what its teacher has."""


@pytest.fixture(scope="module")
def pico() -> Encoder:
    return Encoder.from_pretrained(backend="native", dtype="float32")


def test_it_is_the_default_and_needs_nothing_else(pico: Encoder) -> None:
    checkpoint = pico.checkpoint
    assert (checkpoint.name, checkpoint.folder) == ("pico", FOLDER)
    assert (checkpoint.dim, checkpoint.max_tokens, checkpoint.pooling) == (384, 512, "mean")
    assert sorted(checkpoint.adapters) == sorted(TASKS)
    assert not any(checkpoint.prompts.values())


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MOST_BYTES
    for task in TASKS:
        tensors = read_weights(sorted(FOLDER.glob("*.safetensors")))
        merge_adapter(tensors, FOLDER / "adapters" / task)
        matrices = {
            name: shape
            for name, (_, shape, _) in tensors.items()
            if len(shape) == 2 and not name.startswith("embeddings.")
        }
        assert 1_000_000 < sum(int(np.prod(shape)) for shape in matrices.values()) <= MOST_WEIGHTS, sorted(matrices)


def test_its_tasks_differ_and_torch_gives_the_same(pico: Encoder) -> None:
    texts = ["which bird never lands", "Swifts sleep, eat and drink on the wing.", "how to open a zip archive"]
    other = Encoder.from_pretrained(backend="torch", device="cpu")
    embeddings = {task: pico.encode(texts, task=task) for task in TASKS}
    for task, rows in embeddings.items():
        np.testing.assert_allclose(other.encode(texts, task=task), rows, atol=1e-5)
    for task in TASKS[1:]:
        assert np.abs(embeddings[task] - embeddings["retrieval"]).max() > 1e-3


# What share of its teacher's score it reaches, on sets that are in the repository. One is held out from training, the
# other has texts of a set that it was cut from; a broken export, adapter or rotation falls far below.
FLOORS = {
    ("retrieval", 384, "float32"): 0.95,
    ("retrieval", 256, "ubinary+int8"): 0.93,
    ("retrieval", 256, "ubinary"): 0.75,
    ("sts", 384, "float32"): 0.95,
    ("sts", 64, "float32"): 0.85,
}


def test_it_is_nearly_as_good_as_its_teacher(pico: Encoder) -> None:
    teacher = TextEncoder(Encoder.from_pretrained("all-MiniLM-L6-v2", dtype="float32"))
    own = TextEncoder(pico)
    measured = set()
    for place in (HELD_OUT / "retrieval", HELD_OUT / "graded.jsonl"):
        (found,), _ = find_sets(place)
        data = found.read()
        reference = evaluate(teacher, found.name, data, [384], ["float32"]).scores[0].metrics
        metric = next(iter(reference))
        result = evaluate(own, found.name, data, [384, 256, 64], ["float32", "ubinary", "ubinary+int8"])
        for score in result.scores:
            floor = FLOORS.get((data.kind, score.dim, score.precision))
            if floor is not None:
                share = score.metrics[metric] / reference[metric]
                assert share >= floor, (data.kind, score.dim, score.precision, share)
                measured.add((data.kind, score.dim, score.precision))
    assert measured == FLOORS.keys()


def test_its_card_says_where_it_comes_from() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for said in ("all-MiniLM-L6-v2", "Apache-2.0", "## Scores", "## Training", "## Notes", "English"):
        assert said in card
    # Every set that texts were cut from is in NOTICE, with a licence that lets the weights be shipped.
    table = card.partition("| data | rows | licence | cut from |")[2].partition("\n\n")[0]
    sets = {name for row in table.splitlines()[2:] for name in row.split("|")[4].replace(" ", "").split(",")}
    assert len(sets) >= 10
    for name in sets:
        licence = re.search(rf"^  {name} +(.*)$", notice, re.MULTILINE)
        assert licence is not None, name
        assert re.match(r"CC BY|CC0|Apache-2\.0|MIT|PSF|public domain", licence[1]), licence[0]
        assert "NC" not in licence[1]


def test_no_path_of_a_machine_is_in_it() -> None:
    for path in FOLDER.rglob("*"):
        if path.suffix in (".json", ".md") and path.name != "tokenizer.json":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.])/(tmp|home|root|work|Users)/", text), path
            assert path.suffix == ".md" or json.loads(text) is not None


def test_int8_rows_lose_next_to_nothing() -> None:
    tensors = read_weights(sorted(FOLDER.glob("*.safetensors")))
    kinds = {name: kind for name, (kind, shape, _) in tensors.items() if len(shape) == 2}
    assert set(kinds.values()) == {"I8"}
    name = "encoder.layer.0.intermediate.dense.weight"
    rows = float_matrix(tensors[name], tensors[f"{name}_scale"])
    steps = float_matrix(tensors[f"{name}_scale"]).reshape(-1)
    # Each row uses the whole range of int8, so that rounding is off by at most half of 1/127 of its largest value.
    np.testing.assert_allclose(np.abs(rows).max(1) / steps, 127)
