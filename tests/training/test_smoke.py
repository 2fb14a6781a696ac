"""Proof that it trains: ``train/smoke.toml`` makes a better student, and with its teacher's rows shuffled not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "train" / "smoke.toml"
STS, RETRIEVAL = "graded Spearman", "retrieval nDCG@10"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the teacher's embeddings, which both runs ask for."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    # The recipe names its rows from there.
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("JV5KIT_CACHE", str(cache))


def scores(output: Path) -> list[tuple[str, int, dict[str, float]]]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(record["phase"], record["step"], record["scores"]) for record in records if "scores" in record]


def has_learned(untrained: dict[str, float], trained: dict[str, float]) -> bool:
    # Training gives .5 and .4. Targets of other texts still tell what all targets have in common: up to .17 and .06.
    return trained[STS] - untrained[STS] >= 0.25 and trained[RETRIEVAL] - untrained[RETRIEVAL] >= 0.15


def test_both_stages_make_a_better_student(tmp_path: Path, inside: Any) -> None:
    inside("train", "--config", RECIPE, "-o", tmp_path / "run")
    found = scores(tmp_path / "run")
    (first_phase, first_step, untrained), *others = found
    assert (first_phase, first_step) == ("distill", 0)
    ends = {phase: own for phase, step, own in others if step}
    assert set(ends) == {"distill", "retrieval", "text-matching", "clustering", "classification"}
    for phase, own in ends.items():
        assert has_learned(untrained, own), (phase, untrained, own)


def test_with_shuffled_targets_it_learns_nothing(tmp_path: Path, inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from jv5kit.training.teacher import Teacher

    rows = Teacher.rows
    draw = np.random.default_rng(0)

    def shuffled(self: Teacher, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        found = rows(self, texts, prompt)
        return found[draw.permutation(len(found))]

    monkeypatch.setattr(Teacher, "rows", shuffled)
    inside("train", "--config", RECIPE, "--stage", "distill", "-o", tmp_path / "run")
    (_, _, untrained), (_, _, trained) = scores(tmp_path / "run")
    assert not has_learned(untrained, trained), (untrained, trained)
