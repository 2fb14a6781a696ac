"""The ablations: every run's settings are possible, and the report says of each claim what the numbers say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "train" / "ablations"
sys.path.insert(0, str(FOLDER))

import budget  # noqa: E402 - the scripts are no package: their folder is on the path only now.
import claims  # noqa: E402 - as above.
import report  # noqa: E402 - as above.
import run  # noqa: E402 - as above.
import verdicts  # noqa: E402 - as above.

from jv5kit.errors import InputError  # noqa: E402 - as above.
from jv5kit.training.config import check, overlay, read_toml  # noqa: E402 - as above.
from jv5kit.training.sizes import RunSettings  # noqa: E402 - as above.


def record(claim: str, name: str, seed: int = 0, kind: str = "retrieval", **scores: float) -> dict[str, Any]:
    """A run of which ``whole``, ``half``, ``small`` and ``bits`` are known."""
    cells = [
        (384, "float32", "whole"),
        (256, "float32", "half"),
        (64, "float32", "small"),
        (256, "ubinary", "bits"),
    ]
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


def seeded(claim: str, name: str, *values: float, kind: str = "retrieval") -> list[dict[str, Any]]:
    """A run a value, each with a seed of its own."""
    return [record(claim, name, seed, kind, whole=value) for seed, value in enumerate(values)]


def test_what_matryoshka_is_compared_with_has_the_same_targets() -> None:
    """The rotation is fitted to the dimensions: those that have no weight are there."""
    recipe = read_toml(FOLDER.parent / "pico.toml", RunSettings())
    tried = [overlay(recipe, trial.settings).student for trial in claims.trials() if trial.claim == "dimensions"]
    assert {one.dims for one in tried} == {recipe.student.dims}
    assert {one.dim_weights for one in tried} == {(), (1.0, 0.0, 0.0, 0.0, 0.0)}


@pytest.mark.parametrize(("after", "outcome"), [(0.33, verdicts.HOLDS), (0.32, verdicts.FAILS)])
def test_gor_holds_from_a_quarter_on(after: float, outcome: str) -> None:
    records = []
    for seed in range(3):
        records.append(record("losses", "NCE + distill", seed, half=0.4, bits=0.3))
        records.append(record("losses", "NCE + distill + GOR", seed, half=0.4, bits=after))
    ((_, found, told),) = verdicts.gor(records)
    assert (found, told) == (outcome, f"{1 - (0.4 - after) / 0.1:.0%} over 3 seeds")
    # A seed that only one of the two has is no pair; and of nothing lost there is no share.
    assert len(verdicts.saved(records[:-1])) == 2
    nothing = [record("losses", name, half=0.3, bits=0.3) for name in ("NCE + distill", "NCE + distill + GOR")]
    assert not list(verdicts.gor(nothing))


@pytest.mark.parametrize(
    ("gain", "least", "outcome"),
    [
        (0.02, 0.01, verdicts.HOLDS),
        (-0.02, 0.01, verdicts.FAILS),
        (0.01, 0.01, verdicts.NEAR),
        (-0.01, 0.01, verdicts.NEAR),
        (0.5, None, verdicts.NEAR),
    ],
)
def test_a_gain_is_more_than_chance_makes(gain: float, least: float | None, outcome: str) -> None:
    assert verdicts.judged(gain, least) == outcome


def test_chance_is_two_standard_errors_of_a_difference() -> None:
    records = seeded("losses", "NCE", 0.5, 0.52) + seeded("adapters", "retrieval", 0.7, 0.74, 0.72)
    records += seeded("adapters", claims.LONGER, 0.6, 0.6)
    cell = verdicts.WHOLE
    # Three runs and two, of means of their own: 2 + 1 degrees of freedom.
    assert verdicts.deviation(records, "adapters", cell) == pytest.approx((2 * 0.02**2 / 3) ** 0.5)
    assert verdicts.deviation(records, "losses", cell) == pytest.approx(0.02 / 2**0.5)
    # A claim without seeds has those of all others.
    everywhere = verdicts.deviation(records, "projection", cell)
    assert everywhere is not None
    assert everywhere == pytest.approx(((2 * 0.02**2 + 0.02**2 / 2) / 4) ** 0.5)
    assert verdicts.chance(records, "projection", cell, 1, 4) == pytest.approx(2 * everywhere * (1 + 1 / 4) ** 0.5)
    assert verdicts.deviation([records[0], records[2]], "losses", cell) is None, "one seed of each"
    assert verdicts.chance(records, "losses", (384, "float32", "sts"), 1, 1) is None, "of another kind"


def test_the_report_has_every_claim_and_says_what_was_not_run() -> None:
    records = [
        *seeded("adapters", "retrieval", 0.5, 0.51),
        record("adapters", claims.ALONE, whole=0.4),
        record("adapters", claims.LONGER, whole=0.45),
        *seeded("losses", claims.AVERAGED, 0.402, 0.398),
        record("dimensions", "whole, as it is", whole=0.5, small=0.2, bits=0.1),
        record("dimensions", "Matryoshka, as it is", whole=0.5, small=0.3, bits=0.1),
        record("dimensions", "Matryoshka, rotated", whole=0.5, small=0.25, bits=0.2),
    ]
    # What tells how much seeds do at 64 dimensions; none tell it of bits.
    records += [record("losses", "distill", seed, small=0.1 + seed / 50) for seed in (0, 1)]
    lines = list(report.report(records))
    ours = "| 5 adapters | the adapter helps retrieval, by our recipe"
    assert f"{ours} | holds | 0.4000 to 0.5050; by chance up to 0.0100 |" in lines
    beside = ", more than as many tokens of stage 1 do (not of the paper)"
    assert f"{ours}{beside} | holds | 0.4500 to 0.5050; by chance up to 0.0173 |" in lines
    papers = "| 5 adapters | the adapter helps retrieval, by the paper's losses"
    assert any(line.startswith(f"{papers} | too near to say | 0.4000 to 0.4000;") for line in lines)
    assert any(line.startswith(f"{papers}{beside} | does not hold | 0.4500 to 0.4000;") for line in lines)
    matryoshka = "Matryoshka keeps more at 64 dimensions, targets as it is"
    told = "0.2000 to 0.3000, at 384 0.5000 to 0.5000; by chance up to 0.0400"
    assert f"| 6 dimensions | {matryoshka} | holds | {told} |" in lines
    assert any("rotated targets help 64 dimensions" in line and "does not hold" in line for line in lines)
    assert any("rotated targets help 256 bits" in line and "one seed of each" in line for line in lines)
    assert sum("not run yet" in line for line in lines) == 5
    assert "| retrieval, nDCG@10 | 2 | 1.00M | 0.4000 | 0.4500 | 0.5050 |" in lines


def test_objectives_are_compared_when_all_rates_are_there() -> None:
    records = seeded("losses", "NCE", 0.5, 0.51)
    for kind, offset in (("embeddings", 0.1), ("scores", 0.0), ("InfoNCE", 0.05)):
        for i, rate in enumerate(claims.RATES):
            # The best of all but the scores' is the third.
            value = 0.4 + offset + (i if kind == "scores" else -abs(i - 2)) / 1000
            records.append(record("objectives", f"{kind}, {rate:g}", whole=value))
    assert not list(verdicts.objectives(records[:-1]))
    ((_, outcome, told),) = verdicts.objectives(records)
    assert outcome == verdicts.HOLDS
    assert told.startswith("embeddings 0.5000 (at 0.0001), scores 0.4030 (at 0.0003, the highest tried), InfoNCE 0.45")


def test_long_contexts_are_compared_by_base_and_with_short_texts() -> None:
    found = {claims.BEFORE: (0.1, 0.2), claims.AFTER: (0.5, 0.4), claims.SHORT: (0.46, 0.47)}
    records = []
    for state, values in found.items():
        for base, value in zip((claims.TRAINED, claims.RAISED), values, strict=True):
            records.append(record("long", f"{state}, base {base}", kind="long-documents", whole=value))
            records[-1]["scores"][0]["set"] = "passkey-256"
    outcomes = [(outcome, told) for _, outcome, told in verdicts.long(records)]
    assert outcomes == [
        (verdicts.HOLDS, "0.200 to 0.500"),
        (verdicts.NEAR, "0.470 to 0.500"),
        (verdicts.FAILS, "0.500 to 0.400"),
    ]
    assert not list(verdicts.long(records[:-1]))
    assert f"| {claims.AFTER}, base raised | 1.00M | 0.4000 |" in list(report.report(records))


@pytest.mark.parametrize(("ours", "outcome"), [(0.58, verdicts.HOLDS), (0.5705, verdicts.NEAR), (0.56, verdicts.FAILS)])
def test_losses_are_compared_by_the_seeds_that_all_have(ours: float, outcome: str) -> None:
    """And by more than seeds differ."""
    others = [name for name in list(claims.LOSSES)[:6] if name != claims.AVERAGED]
    records = [record("losses", name, whole=0.57) for name in others]
    records.append(record("losses", claims.AVERAGED, whole=ours))
    # Of no account, but for how far seeds are apart.
    records += [record("losses", "NCE + distill", seed, whole=0.57 + seed / 1000) for seed in (1, 2)]
    best, *helps = verdicts.losses(records)
    assert best[1] == outcome
    assert "NCE + distill 0.5700" in best[2]
    assert "by chance up to 0.0028" in best[2]
    assert [one[1] for one in helps] == [verdicts.NEAR, verdicts.NEAR]


@pytest.mark.parametrize("fast", [True, False])
def test_a_claim_goes_on_in_the_type_that_its_runs_have(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(run, "fast_bfloat16", lambda: fast)
    done = {
        str(number): {"claim": claim, "bfloat16": bfloat16}
        for number, (claim, bfloat16) in enumerate(
            [("adapters", False), ("dimensions", True), ("losses", True), ("losses", False)]
        )
    }
    assert run.type_of("objectives", done) is fast
    assert run.type_of("adapters", done) is False
    if fast:
        assert run.type_of("dimensions", done) is True
    else:
        with pytest.raises(InputError, match="dimensions were made with bfloat16, which this machine has no"):
            run.type_of("dimensions", done)
    with pytest.raises(InputError, match="some runs of losses were made with bfloat16, others without: give another"):
        run.type_of("losses", done)
    other = claims.Trial("losses", "NCE", "stage 1", "retrieval")
    sets: Any = [("one", SimpleNamespace(kind="retrieval"))]
    with pytest.raises(InputError, match="some runs of losses"):
        run.check_earlier([other], done, sets, 1_000_000)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_a_run_takes_its_tokens_in_the_type_that_is_given(tmp_path: Path, bfloat16: bool) -> None:
    (tmp_path / "texts").mkdir()
    text = "the penguin swims in the cold sea"
    (tmp_path / "texts" / "spans.jsonl").write_text((json.dumps({"text": text}) + "\n") * 100)
    trial = next(trial for trial in claims.trials() if trial.claim == "dimensions")
    settings = run.settings_of(trial, tmp_path, 100_000, bfloat16=bfloat16)
    assert settings.optimizer.bfloat16 is bfloat16
    # Seven words, of which one is two tokens, and the two around them.
    assert settings.distill.steps * settings.distill.batch * 10 >= 100_000


def test_a_run_that_is_there_is_one_that_was_asked_for(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    trial = claims.Trial("adapters", "retrieval", "stage 1", "retrieval")
    sets: Any = [("one", SimpleNamespace(kind="retrieval")), ("two", SimpleNamespace(kind="sts"))]
    assert run.earlier(results) == {}
    results.write_text(json.dumps(record("adapters", "retrieval", whole=0.5)) + "\n")
    done = run.earlier(results)
    assert list(done) == [trial.key]
    run.check_earlier([trial], done, sets, 1_000_000)
    for change, refused in (
        ({"tokens": 2_000_000}, "took 1,000,000 tokens, --tokens is 2,000,000"),
        ({"sets": [*sets, ("three", sets[0][1])]}, "was measured on one, --names has other sets"),
        ({"sets": sets[1:]}, "--names has no set for retrieval"),
    ):
        given: dict[str, Any] = {"sets": sets, "tokens": 1_000_000} | change
        with pytest.raises(InputError, match=refused):
            run.check_earlier([trial], done, **given)
    results.write_text(results.read_text() + '{"claim": "adap')
    with pytest.raises(InputError, match=r"results\.jsonl:2 is no whole result"):
        run.earlier(results)


def test_steps_take_the_tokens_that_are_asked_for(tmp_path: Path) -> None:
    """Whatever the order of the rows."""
    path = tmp_path / "rows.jsonl"
    lines = ['{"text": "a word"}\n'] * 2000 + [json.dumps({"text": "word " * 40}) + "\n"] * 2000
    path.write_text("".join(lines))
    of_row = budget.tokens_of_a_row(path, "all-MiniLM-L6-v2", 34, ["text", "another"])
    # Two tokens of each are those that begin and end it.
    assert of_row == pytest.approx((4 + 34) / 2, rel=0.02)
    steps = budget.steps_for(1000, of_row, 8)
    assert 1000 < steps * 8 * of_row < 1000 * budget.MARGIN + 8 * of_row
