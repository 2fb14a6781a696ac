"""How sure a share is: what is known of the bootstrap, and the command on a set of the repository."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from command import write_jsonl

FOLDER = Path(__file__).parents[1] / "train"
HELD_OUT = Path(__file__).parent / "training" / "data"
sys.path.insert(0, str(FOLDER))

import interval  # noqa: E402 - the script is no package: its folder is on the path only now.


def test_what_is_a_part_of_each_query_is_that_part_in_every_draw() -> None:
    theirs = [np.random.default_rng(1).random(40), np.random.default_rng(2).random(7)]
    assert interval.interval(theirs, theirs) == (1, 1, 1)
    assert interval.interval([one * 0.9 for one in theirs], theirs) == pytest.approx((0.9, 0.9, 0.9))


def test_an_interval_is_as_wide_as_the_spread_of_a_mean() -> None:
    """Of queries that all have 1 for the other model, the share is our own mean: its standard error is known."""
    ours = np.random.default_rng(3).random(400)
    share, low, high = interval.interval([ours], [np.ones(400)])
    assert share == pytest.approx(ours.mean())
    error = ours.std() / 20
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert interval.interval([ours], [np.ones(400)]) == (share, low, high)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interval.main(HELD_OUT, ["pico"], against="pico", names="retrieval")
    assert capsys.readouterr().out.startswith("pico: 100.0% of pico, 100.0% to 100.0% over ")
    scored = {"sentence1": "a", "sentence2": "b"}
    (tmp_path / "pairs").mkdir()
    write_jsonl(tmp_path / "pairs" / "test.jsonl", [scored | {"score": score} for score in (1, 2)])
    with pytest.raises(typer.Exit) as ended:
        interval.main(tmp_path, ["pico"], names="pairs")
    assert ended.value.exit_code == 2
    assert "pairs is no set of queries and documents: leave it out of --names" in capsys.readouterr().err


def test_of_nothing_there_is_no_share(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(interval, "scores_of", lambda model, sets: [np.zeros(3)])
    with pytest.raises(typer.Exit) as ended:
        interval.main(HELD_OUT, ["pico"], against="other", names="retrieval")
    assert ended.value.exit_code == 2
    assert "other finds nothing, of which there is no share" in capsys.readouterr().err
