"""Runs of several processes: interrupted, killed, and taken up by another number of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from runs import BOUND, SPREAD_BOUND, config, environment, estimated, records, weights, wide_config, write_rows
from safetensors.numpy import load_file
from several import Command, run

if TYPE_CHECKING:
    from collections.abc import Sequence

LAUNCHER = [
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
    *("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"),
]
SCRIPT = Path(__file__).with_name("several.py")
LIMIT = 300
"""Seconds that a launch may take: what hangs fails."""
RATE = 1e-4
"""Of both phases, at its highest."""
KINDS = ["", "-sharded"]

Said = list[dict[str, Any]]
"""Of each process: its exit status, and what it said."""


def in_two_processes(folder: Path, commands: Sequence[Command]) -> list[Said]:
    """What comes of commands, one after the other in the same processes."""
    folder.mkdir()
    path = folder / "commands.json"
    path.write_text(json.dumps(commands))
    launch = [*LAUNCHER, str(SCRIPT), str(path)]
    outcome = subprocess.run(launch, env=environment(), check=False, capture_output=True, text=True, timeout=LIMIT)
    assert outcome.returncode == 0, outcome.stderr
    return [
        [json.loads((folder / f"{number}-{process}.json").read_text()) for process in range(2)]
        for number in range(len(commands))
    ]


@dataclass(frozen=True)
class Runs:
    """What two processes did, and one between them.

    Attributes:
        folder: of the runs: ``whole``; ``others``, interrupted, taken up by one, interrupted, and taken up by two; both
            of them also with weights that were spread, and of these ``again-sharded``, interrupted and taken up by two;
            and ``unkilled``, which one that is killed should come to.
        settings: of runs that are killed, and of those that are measured.
        said: what came of each command.
    """

    folder: Path
    settings: dict[str, Path]
    said: dict[str, Said]

    def codes(self, name: str) -> list[int]:
        """Exit statuses of a command."""
        return [one["code"] for one in self.said[name]]

    def lines(self, name: str) -> list[str]:
        """What all processes said of a command."""
        return [line for one in self.said[name] for line in one["said"].splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    rows = write_rows(tmp_path_factory.mktemp("rows"))

    def train(settings: Path, output: str, *flags: str) -> list[str]:
        return ["train", "--config", str(settings), "-o", str(folder / output), *flags]

    wide = tmp_path_factory.mktemp("wide")
    others: dict[str, Path] = {}
    first: dict[str, Command] = {}
    for kind, lines in zip(KINDS, ("", "shard = true"), strict=True):
        settings = config(
            folder / f"settings{kind}",
            rows,
            tiny_model,
            # Runs are compared by what the order of their sums changes, which bfloat16 would hide.
            optimizer=f"bfloat16 = false\n{lines}",
            # What is dropped differs between numbers of processes.
            adapters=f"dropout = 0.0\naverage = true\nlearning_rate = {RATE}",
            distill=6,
            retrieval=6,
        )
        # torchrun starts a command again as it is: where there is no run, one is begun.
        first[f"whole{kind}"] = {"arguments": train(settings, f"whole{kind}", "--resume")}
        first[f"interrupted{kind}"] = {"arguments": train(settings, f"others{kind}"), "interrupt": [False, 4]}
        others[f"measured{kind}"] = wide_config(wide, 48, 32, 512, lines, ("distill", "retrieval"))
        measured = train(others[f"measured{kind}"], f"measured{kind}")
        first[f"measured{kind}"] = {"arguments": measured, "measured": True}
    first["broken"] = {"arguments": train(settings, "broken", "--stage", "adapt"), "broken": True}
    first["there already"] = {"arguments": train(settings, "whole")}
    others["killed"] = config(folder / "killed", rows, tiny_model, evaluated=False, retrieval=12)
    first["unkilled"] = {"arguments": train(others["killed"], "unkilled")}
    said = dict(zip(first, in_two_processes(folder / "first", list(first.values())), strict=True))
    shutil.copytree(folder / "others-sharded", folder / "again-sharded")
    for kind in KINDS:
        arguments = ["train", "-o", str(folder / f"others{kind}"), "--resume"]
        said[f"alone{kind}"] = [run({"arguments": arguments, "interrupt": [True, 3]})]
    last = ["again-sharded", "others", "others-sharded"]
    resumed: list[Command] = [{"arguments": ["train", "-o", str(folder / name), "--resume"]} for name in last]
    said |= dict(zip(last, in_two_processes(folder / "second", resumed), strict=True))
    return Runs(folder, others, said)


def differences(one: Path, other: Path) -> dict[str, float]:
    """The difference of each tensor of two runs, the root mean square of its values, in rates: what a step changes."""
    found: dict[str, float] = {}
    for name in ("model", "adapters/retrieval/adapter_model"):
        first, second = (load_file(folder / "student" / f"{name}.safetensors") for folder in (one, other))
        assert first.keys() == second.keys()
        found |= {key: float(np.sqrt(np.square(first[key] - second[key]).mean())) / RATE for key in first}
    return found


def check_alike(one: Path, other: Path) -> None:
    """Check that two runs differ by the order of their sums alone.

    AdamW divides a gradient by its size, so that its rounding counts as much where there is nothing else: a key's bias
    adds the same to all scores of a query, and has no gradient but that. Elsewhere it may be so for a value of
    thousands at a step (0.7 of a step, for one of the 2,048 of a lora_A, on one machine); taken together, those of a
    tensor differ by a small share of a step.
    """
    for name, difference in differences(one, other).items():
        assert difference < (6 if name.endswith("key.bias") else 0.05), name


def test_taken_up_it_ends_where_it_would_have_ended(runs: Runs) -> None:
    whole, again = (runs.folder / f"{name}-sharded" for name in ("whole", "again"))
    assert runs.codes("whole-sharded") == runs.codes("again-sharded") == [0, 0]
    assert weights(again) == weights(whole)
    own, others = ([record for record in records(run) if "loss" not in record] for run in (whole, again))
    assert own == others
    assert own


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_processes_takes_it_up(runs: Runs, kind: str) -> None:
    assert runs.codes(f"whole{kind}") == [0, 0]
    assert runs.codes(f"interrupted{kind}") == [130, 130]
    assert runs.codes(f"alone{kind}") == [130]
    assert runs.codes(f"others{kind}") == [0, 0]
    check_alike(runs.folder / f"whole{kind}", runs.folder / f"others{kind}")
    # What is compared has been learned.
    assert max(differences(runs.folder / f"whole{kind}", runs.folder / "unkilled").values()) > 1


def test_spread_weights_come_to_what_whole_ones_do(runs: Runs) -> None:
    check_alike(runs.folder / "whole", runs.folder / "whole-sharded")


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_in_one_process_ends_all_after_the_same_step(runs: Runs, kind: str) -> None:
    output = runs.folder / f"others{kind}"
    assert runs.lines(f"interrupted{kind}") == [
        "jv5kit: interrupted after step 4 of distill",
        f"jv5kit: go on with: torchrun ... -m jv5kit train --resume -o {output}",
    ]
    assert f"jv5kit: go on with: jv5kit train --resume -o {output}" in runs.lines(f"alone{kind}")


def test_a_loss_that_is_no_number_ends_all_and_is_said_once(runs: Runs) -> None:
    assert runs.codes("broken") == [1, 1]
    (line,) = runs.lines("broken")
    assert "the loss is nan at step 1 (infonce" in line


def test_what_no_process_can_do_is_said_once(runs: Runs) -> None:
    assert runs.codes("there already") == [2, 2]
    (line,) = runs.lines("there already")
    assert "has a run: go on with it by --resume" in line


def test_no_text_is_encoded_twice(runs: Runs) -> None:
    (cache,) = (runs.folder / "settings" / "teacher").iterdir()
    shards = [load_file(path)["keys"] for path in cache.glob("*.safetensors")]
    keys = [key.tobytes() for shard in shards for key in shard]
    # All that is encoded is written, and two processes wrote.
    assert len(keys) == len(set(keys)) > 100
    assert len(shards) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_process_holds_about_what_is_estimated(runs: Runs, kind: str) -> None:
    found = estimated(runs.settings[f"measured{kind}"], 2)
    for said in runs.said[f"measured{kind}"]:
        assert found.keys() == said["held"].keys()
        for phase, held in said["held"].items():
            assert found[phase] == pytest.approx(held, rel=SPREAD_BOUND if kind else BOUND), phase


def test_a_killed_process_is_started_again(runs: Runs) -> None:
    output, at = runs.folder / "killed-run", random.Random(os.urandom(4)).randint(2, 10)
    launch = [*LAUNCHER, "--max-restarts=3", "-m", "jv5kit", "train", "--config", str(runs.settings["killed"])]
    with subprocess.Popen(
        [*launch, "-o", str(output), "-q"], env=environment(), stderr=subprocess.PIPE, text=True
    ) as torchrun:
        path = output / "metrics.jsonl"
        while torchrun.poll() is None and not (path.exists() and path.read_text().count('"loss"') >= at):
            time.sleep(0.002)
        children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
        os.kill(int(random.Random(at).choice(children)), signal.SIGKILL)
        _, errors = torchrun.communicate(timeout=LIMIT)
    assert torchrun.returncode == 0, errors
    assert weights(output) == weights(runs.folder / "unkilled"), f"killed after {at} steps"
    lines = [(record["phase"], record["step"]) for record in records(output)]
    assert lines == [("retrieval", step) for step in range(1, 13)]
