"""A run as its users start it: to its end, killed and taken up again, and refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import command, config, environment, records, weights, write_rows
from safetensors.torch import load_file

from jv5kit.errors import InputError
from jv5kit.training import outputs


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


def test_killed_at_any_step_it_reaches_the_same_weights(tmp_path: Path, rows: Path, tiny_model: Path) -> None:
    settings = config(tmp_path, rows, tiny_model, distill=14, retrieval=8, adapters="average = true")
    settings.write_text(settings.read_text().replace("[distill]\n", "[distill]\ncycles = 3\n"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command("--config", settings, "-o", whole, "-q"), check=True, env=environment())
    at = random.Random(os.urandom(4)).randint(2, 18)
    with subprocess.Popen(command("--config", settings, "-o", killed, "-q"), env=environment()) as process:
        while process.poll() is None:
            path = killed / "metrics.jsonl"
            if path.exists() and path.read_text().count('"loss"') >= at:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    if process.returncode != 0:
        subprocess.run(command("-o", killed, "--resume", "-q"), check=True, env=environment())
    assert weights(killed) == weights(whole), f"killed after {at} steps"
    assert set(weights(whole)) == {
        "student/model.safetensors",
        "student/adapters/retrieval/adapter_model.safetensors",
    }
    lines = [(record["phase"], record["step"]) for record in records(killed) if "loss" in record]
    assert lines == [("distill", step) for step in range(1, 15)] + [("retrieval", step) for step in range(1, 9)]
    losses = [[record["loss"] for record in records(output) if "loss" in record] for output in (whole, killed)]
    assert losses[0] == losses[1]
    assert not list((whole / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("setting", "steps", "kept"), [("cycles = 3", 7, [2, 4]), ("average = true", 6, [4]), ("", 5, [])]
)
def test_a_phase_gives_the_mean_of_what_it_kept(
    tmp_path: Path,
    rows: Path,
    tiny_model: Path,
    inside: Any,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    steps: int,
    kept: list[int],
) -> None:
    from jv5kit.training.loop import Loop
    from jv5kit.training.run import Run

    phase = "retrieval" if setting.startswith("average") else "distill"
    distilled = steps if phase == "distill" else 0
    settings = config(tmp_path, rows, tiny_model, distill=distilled, retrieval=steps - distilled)
    settings.write_text(settings.read_text().replace(f"[{phase}]\n", f"[{phase}]\n{setting}\n"))
    step, average = Loop.step, Run._average
    after: list[dict[str, Any]] = []
    rates: list[float] = []
    means: dict[str, Any] = {}

    def stepped(self: Loop) -> dict[str, Any]:
        record = step(self)
        after.append({name: value.clone() for name, value in self.trained().items()})
        rates.append(record["learning_rate"])
        return record

    def averaged(self: Run, phase: Any, loop: Loop, folder: Path) -> None:
        average(self, phase, loop, folder)
        means.update(loop.trained())

    monkeypatch.setattr(Loop, "step", stepped)
    monkeypatch.setattr(Run, "_average", averaged)
    inside("train", "--config", settings, "-o", tmp_path / "run")
    assert len(after) == steps
    used = [after[number - 1] for number in [*kept, steps]]
    for name, mean in means.items():
        assert torch.allclose(mean, sum(one[name] for one in used) / len(used), atol=1e-7), name
    # It falls to each end, and begins anew after it.
    risen = [number for number in range(1, steps) if rates[number] > rates[number - 1]]
    assert risen == (kept if setting.startswith("cycles") else [])


def test_all_phases(tmp_path: Path, rows: Path, tiny_model: Path, inside: Any) -> None:
    from jv5kit import Encoder

    settings = config(
        tmp_path, rows, tiny_model, distill=3, retrieval=2, text_matching=4, clustering=2, classification=2
    )
    outcome = inside("train", "--config", settings, "-o", tmp_path / "run", "--average")
    assert "distill, retrieval, text-matching, clustering, classification done" in outcome.stderr
    found = records(tmp_path / "run")
    terms = {
        phase: {name for record in found if record["phase"] == phase and "loss" in record for name in record}
        for phase in dict.fromkeys(record["phase"] for record in found)
    }
    common = {
        *("phase", "step", "source", "loss", "tokens", "gradient_norm", "learning_rate", "seconds"),
        "tokens_per_second",
    }
    assert {phase: names - common for phase, names in terms.items()} == {
        "distill": {"distill"},
        "retrieval": {"infonce", "distill", "gor"},
        "text-matching": {"cosent", "infonce", "distill"},
        "clustering": {"distill"},
        "classification": {"infonce", "relational"},
    }
    evaluated = [(record["phase"], record["step"]) for record in found if "scores" in record]
    assert evaluated[:2] == [("distill", 0), ("distill", 3)]
    assert (tmp_path / "run" / "train.png").stat().st_size > 10_000
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert [(one["name"], one["rows"]) for one in data] == [("pairs", 50), ("scored", 60), ("labeled", 80)]
    student = Encoder.from_pretrained(tmp_path / "run" / "student", dtype="float32")
    made = {task: student.encode("a penguin", task=task) for task in student.checkpoint.adapters}
    assert len(made) == 4
    assert len({embedding.tobytes() for embedding in made.values()}) == 4
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert any((before[name] != after[name]).any() for name in before if name in after)


def test_an_adapter_leaves_the_backbone_as_it_is(tmp_path: Path, rows: Path, tiny_model: Path, inside: Any) -> None:
    inside(
        *("train", "--init", tiny_model, "--task", "retrieval", "--data", rows / "pairs.jsonl"),
        *("--steps", "2", "-o", tmp_path / "run", "--seed", "5"),
    )
    before, after = load_file(tiny_model / "model.safetensors"), load_file(tmp_path / "run/student/model.safetensors")
    for name, tensor in after.items():
        assert (before[name] == tensor).all(), name
    assert (tmp_path / "run/student/adapters/retrieval/adapter_config.json").exists()
    assert "seed = 5" in (tmp_path / "run" / "run.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to train: --size small, nano or pico; --init MODEL; or --config FILE"),
        (["--size", "huge"], "--size 'huge' is not known; choose one of small, nano, pico"),
        (["--size", "nano", "--init", "MODEL"], "contradict each other"),
        (["--init", "MODEL"], "say where the run goes with -o DIR"),
        (["--init", "MODEL", "-o", "OUT"], "there is nothing to train"),
        (["-o", "OUT", "--resume"], "has no run to go on with"),
        (["--init", "MODEL", "-o", "OUT", "--resume"], "has no run to go on with: leave out --resume"),
        (["--init", "MODEL", "-o", "HERE", "--data", "pairs"], "is there already, and holds no run"),
        (["--init", "MODEL", "-o", "OUT", "--data", "pairs", "--task", "sts"], "--task sts is not known"),
        (["--init", "MODEL", "-o", "OUT", "--data", "pairs", "--stage", "second"], "--stage second is not known"),
        (["--init", "MODEL", "-o", "OUT", "--data", "pairs", "--steps", "0"], "--steps 0 must be at least 1"),
        (["--init", "MODEL", "-o", "OUT", "--data", "pairs", "--task", "classification"], "classification has no data"),
        (["--init", "MODEL", "-o", "OUT", "--data", "pairs", "--task", "clustering"], "there is no teacher"),
        (["--init", "MODEL", "-o", "OUT", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--init", "no/such/model", "-o", "OUT", "--data", "pairs"], "no/such/model"),
        (["--config", "no.toml", "-o", "OUT"], "no.toml: the settings cannot be read"),
        (["--init", "MODEL", "-o", "OUT", "--processes", "2"], "--processes 2 is for --dry-run"),
        (["--init", "MODEL", "--dry-run", "--processes", "0"], "--processes 0 is for --dry-run, and at least 1"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, rows: Path, tiny_model: Path, inside: Any, arguments: list[str], message: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    places = {
        "MODEL": str(tiny_model),
        "OUT": str(tmp_path / "run"),
        "HERE": str(tmp_path / "here"),
        "pairs": str(rows / "pairs.jsonl"),
    }
    outcome = inside("train", *(places.get(word, word) for word in arguments), code=2)
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_as_it_began(tmp_path: Path, rows: Path, tiny_model: Path, inside: Any) -> None:
    settings = config(tmp_path, rows, tiny_model, retrieval=2)
    inside("train", "--config", settings, "-o", tmp_path / "run")
    outcome = inside("train", "--config", settings, "-o", tmp_path / "run", code=2)
    assert "has a run: go on with it by --resume" in outcome.stderr
    outcome = inside("train", "--config", settings, "-o", tmp_path / "run", "--resume", "--seed", "4", code=2)
    assert "was begun with seed = 3, and now it is 4" in outcome.stderr
    with (rows / "pairs.jsonl").open("a") as file:
        file.write(json.dumps({"anchor": "new", "positive": "newer"}) + "\n")
    outcome = inside("train", "-o", tmp_path / "run", "--resume", code=2)
    assert "the data are not those of" in outcome.stderr


def test_a_loss_that_is_no_number(
    tmp_path: Path, rows: Path, tiny_model: Path, inside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jv5kit.training import losses

    calls = 0

    def broken(embeddings: Any) -> Any:
        nonlocal calls
        calls += 1
        # Two dimensions, queries and positives: four calls a step.
        return embeddings.sum() * (float("nan") if calls > 4 * 4 else 0)

    monkeypatch.setattr(losses, "orthogonality", broken)
    settings = config(tmp_path, rows, tiny_model, retrieval=9)
    outcome = inside("train", "--config", settings, "-o", tmp_path / "run", code=1)
    assert "the loss is nan at step 5 (infonce" in outcome.stderr
    assert "pairs.jsonl:" in outcome.stderr
    assert [path.name for path in (tmp_path / "run/checkpoints/retrieval").iterdir()] == ["step-000003"]
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, rows: Path, tiny_model: Path, inside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jv5kit.training.loop import Loop

    settings = config(tmp_path, rows, tiny_model, retrieval=6)
    inside("train", "--config", settings, "-o", tmp_path / "whole")
    step = Loop.step

    def interrupted(self: Loop) -> dict[str, Any]:
        if self.step_number == 3:
            # In the midst of a step, which is finished.
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Loop, "step", interrupted)
    outcome = inside("train", "--config", settings, "-o", tmp_path / "run", code=130)
    assert "interrupted after step 4 of retrieval" in outcome.stderr
    assert f"go on with: jv5kit train --resume -o {tmp_path / 'run'}" in outcome.stderr
    # Nothing that was done is done again.
    assert (tmp_path / "run/checkpoints/retrieval/step-000004").is_dir()
    # What fails torchrun starts again, as long as it may.
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    shutil.copytree(tmp_path / "run", tmp_path / "again")

    def interrupted_at_once(self: Loop) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Loop, "step", interrupted_at_once)
    assert "interrupted after step 5" in inside("train", "--resume", "-o", tmp_path / "again").stderr
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS")
    monkeypatch.setattr(Loop, "step", step)
    inside("train", "--resume", "-o", tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_dry_run_prints_its_settings(tmp_path: Path, inside: Any) -> None:
    outcome = inside("train", "--size", "small", "--dry-run")
    recipe = Path(__file__).parents[2] / "train" / "small.toml"
    assert outcome.stdout == recipe.read_text()
    # The paper's: 596,049,920 with the embeddings, and 20.2M an adapter.
    assert "596,049,920 parameters" in outcome.stderr
    assert "20,185,088 trained" in outcome.stderr
    outcome = inside("train", "--size", "nano", "--dry-run", "--json", "--processes", "8")
    estimates = json.loads(outcome.stdout)["estimates"]
    assert (estimates["parameters"], estimates["processes"]) == (211_766_016, 8)
    assert {phase["trained"] for phase in estimates["phases"]} == {211_766_016, 6_782_976}
    # Of these a step of stage 1 has weights, a gradient and two moments, in four bytes each.
    first = estimates["phases"][0]["on_gpu"]
    assert first["peak"] > first["weights"] + first["gradients"] > 16 * 211_766_016


def test_a_replacement_that_was_cut_off(tmp_path: Path) -> None:
    from jv5kit.training.outputs import put_in_place, take_back

    put_in_place(tmp_path, "a/b", lambda folder: (folder / "file").write_text("old"))

    def fail(folder: Path) -> None:
        (folder / "file").write_text("new")
        raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        put_in_place(tmp_path, "a/b", fail)
    assert (tmp_path / "a/b/file").read_text() == "old"
    # Between the two renames.
    (tmp_path / "a/b").rename(tmp_path / ".a-b.old")
    take_back(tmp_path, "a/b")
    assert (tmp_path / "a/b/file").read_text() == "old"
    put_in_place(tmp_path, "a/b", lambda folder: (folder / "file").write_text("new"))
    take_back(tmp_path, "a/b")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["a", "a/b", "a/b/file"]
    assert (tmp_path / "a/b/file").read_text() == "new"


def test_a_folder_that_another_process_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_SEEN_TRIES", 2)
    with pytest.raises(InputError, match="has nothing here of what the first process wrote there"):
        outputs.check_seen(tmp_path)
    (tmp_path / "run.toml").touch()
    outputs.check_seen(tmp_path)


def test_infonce_takes_pairs_alone_in_stage_1(tmp_path: Path, rows: Path, tiny_model: Path, inside: Any) -> None:
    settings = config(tmp_path, rows, tiny_model, distill=2)
    written = settings.read_text()
    settings.write_text(written.replace("[distill]\n", '[distill]\nobjective = "infonce"\n'))
    inside("train", "--config", settings, "-o", tmp_path / "run", "-q")
    # A text has no positive, and of two that are scored the second need not be one.
    assert {record["source"] for record in records(tmp_path / "run") if "source" in record} == {"pairs"}
    settings.write_text(settings.read_text().replace("pairs.jsonl", "graded.jsonl"))
    outcome = inside("train", "--config", settings, "-o", tmp_path / "other", code=2)
    assert "distill has no data: it takes rows that are pairs, and of the sources there is none" in outcome.stderr


def test_a_loss_without_a_term_is_refused(tmp_path: Path, rows: Path, tiny_model: Path, inside: Any) -> None:
    settings = config(tmp_path, rows, tiny_model, text_matching=2)
    nothing = "[text-matching]\ncosent = 0.0\ninfonce = 0.0\ndistill = 0.0\n"
    settings.write_text(settings.read_text().replace("[text-matching]\n", nothing))
    outcome = inside("train", "--config", settings, "-o", tmp_path / "run", code=2)
    assert "no term of the loss that rows as those of" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
