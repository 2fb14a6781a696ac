"""The ablations: every run's settings are possible, and the report says of each claim what the numbers say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "train" / "ablations"
sys.path.insert(0, str(FOLDER))

import claims  # noqa: E402 - the scripts are no package: their folder is on the path only now.
import report  # noqa: E402 - as above.
import verdicts  # noqa: E402 - as above.

from jv5kit.training.config import check, overlay, read_toml  # noqa: E402 - as above.
from jv5kit.training.sizes import RunSettings  # noqa: E402 - as above.


def record(claim: str, name: str, seed: int = 0, kind: str = "retrieval", **scores: float) -> dict[str, Any]:
    """A run of which ``whole``, ``small`` and ``bits`` are known."""
    cells = [(384, "float32", "whole"), (64, "float32", "small"), (256, "ubinary", "bits")]
    rows = [
        {"set": "one", "kind": kind, "dim": dim, "precision": precision, verdicts.METRICS[kind]: scores[key]}
        for dim, precision, key in cells
        if key in scores
    ]
    return {"claim": claim, "name": name, "seed": seed, "tokens": 1_000_000, "curve": [], "scores": rows}


def test_every_run_is_possible_and_has_a_name_of_its_own() -> None:
    recipe = read_toml(FOLDER.parent / "pico.toml", RunSettings())
    every = list(claims.trials())
    assert len({trial.key for trial in every}) == len(every)
    made = {(trial.claim, trial.phase, trial.seed, check(overlay(recipe, trial.settings))) for trial in every}
    assert len(made) == len(every), "two runs of a claim are the same"
    assert sum(trial.name in claims.SEEDED for trial in every if trial.claim == "losses") == 6


@pytest.mark.parametrize(("after", "holds"), [(0.33, True), (0.32, False)])
def test_gor_holds_from_a_quarter_on(after: float, holds: bool) -> None:
    records = []
    for seed in range(3):
        records.append(record("losses", "NCE + distill", seed, whole=0.4, bits=0.3))
        records.append(record("losses", "NCE + distill + GOR", seed, whole=0.4, bits=after))
    ((_, found, told),) = verdicts.gor(records)
    assert (found, told) == (holds, f"{1 - (0.4 - after) / 0.1:.0%} over 3 seeds")
    # A seed that only one of the two has is no pair.
    assert len(verdicts.saved(records[:-1])) == 2


def test_the_report_has_every_claim_and_says_what_was_not_run() -> None:
    records = [
        record("adapters", claims.ALONE, whole=0.4),
        record("adapters", "retrieval", whole=0.5),
        record("dimensions", "whole, as it is", whole=0.5, small=0.2, bits=0.1),
        record("dimensions", "Matryoshka, as it is", whole=0.5, small=0.3, bits=0.1),
        record("dimensions", "Matryoshka, rotated", whole=0.5, small=0.25, bits=0.2),
    ]
    lines = list(report.report(records))
    assert "| 5 adapters | the adapter helps retrieval | holds | 0.4000 to 0.5000 |" in lines
    matryoshka = "Matryoshka keeps more at 64 dimensions, targets as it is"
    assert f"| 6 dimensions | {matryoshka} | holds | 0.2000 to 0.3000, at 384 0.5000 to 0.5000 |" in lines
    assert any("rotated targets help 64 dimensions" in line and "does not hold" in line for line in lines)
    assert any("rotated targets help 256 bits" in line and "| holds |" in line for line in lines)
    assert sum("not run yet" in line for line in lines) == 5


def test_long_contexts_are_compared_by_base() -> None:
    found = {"before the long phase, base as trained": 0.1, "before the long phase, base raised": 0.2}
    found |= {"after the long phase, base as trained": 0.5, "after the long phase, base raised": 0.4}
    records = []
    for name, value in found.items():
        records.append(record("long", name, kind="long-documents", whole=value))
        records[-1]["scores"][0]["set"] = "passkey-256"
    assert [holds for _, holds, _ in verdicts.long(records)] == [True, False]
    assert "| after the long phase, base raised | 1.00M | 0.4000 |" in list(report.report(records))


@pytest.mark.parametrize(("ours", "holds"), [(0.58, True), (0.5705, False)])
def test_losses_are_compared_by_the_seeds_that_all_have(ours: float, holds: bool) -> None:
    """And by more than seeds differ."""
    others = [name for name in list(claims.LOSSES)[:6] if name != "NCE + distill + GOR"]
    records = [record("losses", name, whole=0.57) for name in others]
    records.append(record("losses", "NCE + distill + GOR", whole=ours))
    # Of no account, but for how far seeds are apart.
    records += [record("losses", "NCE + distill", seed, whole=0.57 + seed / 1000) for seed in (1, 2)]
    best, helps, *_ = verdicts.losses(records)
    assert best[1] == holds
    assert "NCE + distill 57.00" in best[2]
    assert "seeds of one run 0.20" in best[2]
    assert not helps[1]
