"""Settings: what a file and flags make of a size's, and what they refuse."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from jv5kit.errors import InputError
from jv5kit.training.config import check, overlay, read_toml, to_toml
from jv5kit.training.sizes import BY_NAME, FROM_A_MODEL, NANO, PICO, SMALL, RunSettings

RECIPES = Path(__file__).parents[2] / "train"


@pytest.mark.parametrize("settings", [*BY_NAME.values(), FROM_A_MODEL, RunSettings()])
@pytest.mark.parametrize("marked", [True, False])
def test_what_is_written_is_read_again(settings: RunSettings, marked: bool) -> None:
    assert check(overlay(RunSettings(), tomllib.loads(to_toml(settings, marked=marked)))) == settings


def test_data_are_written_too() -> None:
    settings = overlay(PICO, {"data": [{"path": "a.jsonl", "weight": 2}, {"path": "b", "phases": ["distill"]}]})
    assert overlay(RunSettings(), tomllib.loads(to_toml(settings))) == settings
    assert [source.weight for source in settings.data] == [2.0, 1.0]


def test_a_file_is_over_the_size_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('size = "nano"\n[text-matching]\nsteps = 7\n')
    settings = read_toml(path, RunSettings())
    assert settings.text_matching.steps == 7
    assert settings.student == NANO.student


def test_the_paper_is_marked() -> None:
    lines = {
        line.split(" = ")[0]: line
        for line in to_toml(SMALL, marked=True).split("[long]")[0].splitlines()
        if "=" in line
    }
    assert "# paper; " in lines["learning_rate"]
    assert "# chosen; " in lines["weight_decay"]
    changed = overlay(SMALL, {"distill": {"learning_rate": 3e-4}})
    assert "learning_rate = 0.0003" in to_toml(changed, marked=True)
    assert "chosen" in next(line for line in to_toml(changed, marked=True).splitlines() if "0.0003" in line)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sizes": 1}, r"the key 'sizes' at the top is not known; there are size, seed, student, .*text-matching"),
        ({"distill": {"stps": 1}}, r"the key 'stps' in \[distill\] is not known; there are steps, batch"),
        ({"distill": {"steps": "many"}}, r"distill.steps = 'many' must be a whole number"),
        ({"distill": {"steps": True}}, r"distill.steps = True must be a whole number"),
        ({"distill": {"steps": -1}}, r"distill.steps = -1 must not be below 0"),
        ({"distill": 3}, r"distill = 3 must be a table"),
        ({"distill": {"objective": "mse"}}, r"distill.objective = 'mse' is not known; choose one of distill, score"),
        ({"distill": {"learning_rate": 0}}, r"distill.learning_rate = 0.0 must be above 0"),
        ({"distill": {"learning_rate": float("nan")}}, r"distill.learning_rate = nan must be a finite number"),
        ({"distill": {"cycles": 0}}, r"distill.cycles = 0; of 30000 steps there are 1 to 30000"),
        ({"long": {"steps": 2, "cycles": 3}}, r"long.cycles = 3; of 2 steps there are 1 to 2"),
        ({"retrieval": {"dropout": 1.0}}, r"retrieval.dropout = 1.0 must be in \[0, 1\)"),
        ({"student": {"dims": [64, 64]}}, r"student.dims = \[64, 64\] has a number twice"),
        ({"student": {"dims": [0]}}, r"student.dims = \[0\]; a dimension is at least 1"),
        ({"student": {"dims": 64}}, r"student.dims = 64 must be a list"),
        ({"student": {"dims": ["a"]}}, r"student.dims\[0\] = 'a' must be a whole number"),
        ({"student": {"dims": [64, 32], "dim_weights": [1]}}, r"dim_weights has 1 weights for 2 dimensions"),
        ({"optimizer": {"betas": [0.9]}}, r"optimizer.betas = \[0.9\]; AdamW has two"),
        ({"data": [{"weight": 1}]}, r"data\[0\] lacks path"),
        ({"data": ["a.jsonl"]}, r"data\[0\] = 'a.jsonl' must be a table"),
        ({"data": [{"path": "a", "weight": 0}]}, r"data\[0\].weight = 0.0 must be above 0"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(overlay(PICO, table))


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("steps: 3")
    with pytest.raises(InputError, match=r"own\.toml: the settings cannot be read"):
        read_toml(path, RunSettings())
    with pytest.raises(InputError, match=r"other\.toml"):
        read_toml(tmp_path / "other.toml", RunSettings())
    path.write_text('size = "huge"')
    with pytest.raises(InputError, match=r"own\.toml: size 'huge' is not known; choose one of small, nano, pico"):
        read_toml(path, RunSettings())


@pytest.mark.parametrize("size", ["small", "nano"])
def test_the_recipes_are_what_a_dry_run_prints(size: str) -> None:
    assert (RECIPES / f"{size}.toml").read_text(encoding="utf-8") == to_toml(BY_NAME[size], marked=True)
