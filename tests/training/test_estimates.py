"""What a step is estimated to hold in memory, beside what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from runs import BOUND, estimated, wide_config
from several import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wide")


@pytest.mark.parametrize(
    ("batch", "length", "pass_tokens"),
    [
        pytest.param(16, 32, 256, id="in passes"),
        pytest.param(12, 32, 10_000, id="in one pass"),
        pytest.param(300, 2, 256, id="the loss is most of it"),
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
