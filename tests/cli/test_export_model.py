"""``jv5kit export`` of a model: one command that looks at what the folder is."""

import json
import re
from pathlib import Path

import models
import numpy as np
import pytest
from command import Inside, random_rows

from jv5kit import Encoder, Index


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(model_copy: Path, here: Path) -> Path:
    """The output of a run whose retrieval adapter is done."""
    models.add_adapter(model_copy, "retrieval", {"encoder.layer.0.output.dense": 4})
    (here / "run").mkdir()
    model_copy.rename(here / "run" / "student")
    (here / "run" / "run.toml").write_text("")
    return Path("run")


def test_with_adapters(inside: Inside, run: Path) -> None:
    said = inside("export", run, "-o", "out").stderr
    assert said.startswith("out: the model with adapters for retrieval, ")
    expected = Encoder.from_pretrained(run / "student").encode("a penguin")
    np.testing.assert_array_equal(Encoder.from_pretrained("out").encode("a penguin"), expected)
    assert inside("export", run, "-o", "out", code=2).stderr == (
        "jv5kit: out/model.safetensors exists; replace the export with --force (force=True), or name another folder\n"
    )


def test_merged_int8_as_json(inside: Inside, run: Path) -> None:
    outcome = inside("export", run, "-o", "out", "--merge", "retrieval", "--int8", "--json")
    said = json.loads(outcome.stdout)
    files = [Path(file) for file in said["files"]]
    assert said["model"] == "run"
    assert said["bytes"] == sum(file.stat().st_size for file in files)
    assert {Path("out/model.int8.safetensors"), Path("out/README.md")} <= set(files)
    expected = Encoder.from_pretrained(run / "student").encode("a penguin")
    assert Encoder.from_pretrained("out").encode("a penguin") @ expected > 0.98
    assert inside("export", run, "-o", "out", "--merge", "retrieval", "--force").stderr.startswith(
        "out: retrieval merged into the weights, "
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "-o", "out", "--merge", "poem"], "--merge poem is no adapter of run; it has retrieval"),
        (["run", "-o", "out", "--faiss"], "--faiss is for an index; run is a model"),
        (["run"], "say where the files go with -o DIR"),
        (["x.jv5", "-o", "out", "--int8"], "--int8 is for a model: .*; x.jv5 is none"),
        (["-o", "out", "--merge", "retrieval"], "--merge is for a model: .*; this is an index"),
        (["x.jv5", "-o", "out", "--onnx"], "--onnx is for a model"),
        (["nowhere", "-o", "out"], "nowhere is no jv5kit index"),
    ],
)
def test_wrong_arguments(inside: Inside, run: Path, arguments: list[str], message: str) -> None:
    Index.build("x.jv5", embeddings=random_rows(3)).close()
    said = inside("export", *arguments, code=2).stderr
    assert re.match(f"jv5kit: {message}", said), said
    assert not Path("out").exists()
