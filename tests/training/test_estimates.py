"""What a step is estimated to hold in memory, beside what it holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from runs import BOUND, estimated, wide_config
from several import run

from jv5kit.training.config import overlay
from jv5kit.training.estimates import estimate
from jv5kit.training.phases import phases_of
from jv5kit.training.sizes import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wide")


@pytest.mark.parametrize(
    ("batch", "length", "pass_tokens"),
    [
        pytest.param(8, 32, 128, id="in passes"),
        pytest.param(10, 32, 10_000, id="in one pass"),
        pytest.param(200, 2, 256, id="the loss is most of it"),
    ],
)
def test_an_estimate_is_near_what_is_measured(
    folder: Path, tmp_path: Path, batch: int, length: int, pass_tokens: int
) -> None:
    settings = wide_config(folder, batch, length, pass_tokens)
    outcome = run({"arguments": ["train", "--config", str(settings), "-o", str(tmp_path / "run")], "measured": True})
    assert outcome["code"] == 0, outcome["said"]
    found = estimated(settings, 1)
    assert found.keys() == outcome["held"].keys()
    for phase, held in outcome["held"].items():
        assert found[phase] == pytest.approx(held, rel=BOUND), phase


def readme_rows() -> list[dict[str, str]]:
    """The rows of the table of memory in train/README.md."""
    text = (Path(__file__).parents[2] / "train" / "README.md").read_text(encoding="utf-8")
    lines = text[text.index("| phase | batch | processes |") :].split("\n\n")[0].splitlines()
    heading, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(heading, row, strict=True)) for row in rows]


@pytest.mark.parametrize("row", readme_rows(), ids=lambda row: " ".join(list(row.values())[:5]))
def test_the_readme_has_what_is_estimated(row: dict[str, str]) -> None:
    flags = {"pass_tokens": int(row["pass_tokens"]), "shard": row["shard"] == "true"}
    settings = overlay(SMALL, {"optimizer": flags, row["phase"]: {"batch": int(row["batch"])}})
    phases = phases_of(settings, ["distill", "adapt"], ["retrieval"])
    (found,) = (
        one.on_gpu for one in estimate(settings, phases, int(row["processes"])).phases if one.phase == row["phase"]
    )
    parts = {name.replace("_", " "): f"{size / 2**30:.2f}" for name, size in asdict(found).items()}
    assert parts == {name: row[name] for name in parts}
