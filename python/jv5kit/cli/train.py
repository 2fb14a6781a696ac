"""``jv5kit train``: both stages of training."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli.options import Json, Quiet, Verbose, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jv5kit.tasks import Task
    from jv5kit.training.phases import Phase, Stage
    from jv5kit.training.sizes import RunSettings

_HELP_DATA = (
    "Rows to train on: a file (JSONL, CSV, TSV, Parquet), a folder of them, or a data set of the hub. Rows have anchor "
    "and positive (and negatives), or sentence1, sentence2 and score, or text and label, or text. May be given again."
)


def train(
    size: Annotated[str | None, typer.Option("--size", metavar="SIZE", help="small, nano or pico.")] = None,
    init: Annotated[
        str | None, typer.Option("--init", metavar="MODEL", help="Start from this model: a folder or a hub id.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings as TOML; --dry-run prints them all.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option("--data", metavar="DATA", help=_HELP_DATA)] = None,
    stage: Annotated[str, typer.Option(metavar="STAGE", help="distill, long, adapt, or all.")] = "all",
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="Which adapter: retrieval, text-matching, clustering, classification, or all "
            "(default: those that there is data for).",
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model that is distilled: a folder or a hub id.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="The run's folder.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run of the folder; under torchrun, or begin it.")
    ] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of everything that is drawn (default: 0).")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps of each phase, at most.")] = None,
    average: Annotated[
        bool | None,
        typer.Option(
            "--average/--no-average", help="Whether an adapter is the mean of its last weights and earlier ones."
        ),
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluate", metavar="DATA", help="Evaluation sets, as jv5kit eval takes them. May be given again."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings as TOML, and what they will take; train nothing.")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --dry-run, for so many processes (default: those of torchrun, or 1)."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model: distil a teacher into it, then one adapter a task.

    The commonest job: jv5kit train --init MODEL --task retrieval --data pairs.jsonl -o my-model. Settings are those of
    the size, over them those of --config, over them the flags. Several processes share a batch: torchrun
    --nproc-per-node 8 -m jv5kit train ...
    """
    from jv5kit.errors import InputError, MissingExtraError
    from jv5kit.logs import log_to_stderr

    first = os.environ.get("RANK", "0") == "0"
    quiet = quiet or not first
    log_to_stderr(quiet=quiet, verbose=verbose and first)
    try:
        from jv5kit.training.phases import phases_of
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"training needs {error.name}: pip install 'jv5kit[train]'") from None
    from jv5kit.tasks import TASKS

    with _in_one_voice():
        resumed = output if resume else None
        settings = _settings(size, init, config, resumed, data, teacher, seed, steps, average, evaluate)
        stages, tasks = _stages(stage), _tasks(task)
        if processes is not None and (not dry_run or processes < 1):
            raise InputError(
                f"--processes {processes} is for --dry-run, and at least 1; to start so many: torchrun "
                "--nproc-per-node N -m jv5kit train ..."
            )
        if dry_run:
            if first:
                phases = phases_of(settings, stages, TASKS if tasks is None else tasks)
                _print_plan(settings, phases, processes or int(os.environ.get("WORLD_SIZE", "1")), as_json=json)
            return
        if output is None:
            raise InputError("say where the run goes with -o DIR")
        from jv5kit.training.interrupts import Interrupted
        from jv5kit.training.run import Run

        run = Run(settings, output, stages=stages, tasks=tasks, resume=resume, show=False if quiet or json else None)
        try:
            run.train()
        except KeyboardInterrupt as error:
            if first:
                print(f"jv5kit: go on with: {_command()} train --resume -o {output}", file=sys.stderr)
            if isinstance(error, Interrupted) and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
                # torchrun would start again what failed. One process alone may not end so: the others wait for it.
                raise typer.Exit(0) from None
            raise
    if json and first:
        print_json({"output": str(output), "phases": [phase.name for phase in run.phases]})
    elif not quiet:
        names = ", ".join(phase.name for phase in run.phases)
        print(f"{output}: {names} done; jv5kit export {output} -o MODEL makes a model of it", file=sys.stderr)


@contextmanager
def _in_one_voice() -> Iterator[None]:
    """What fails in several processes alike is said by one of them."""
    from jv5kit.errors import InputError, Jv5kitError
    from jv5kit.training.processes import is_first_to_say

    try:
        yield
    except (Jv5kitError, OSError) as error:
        if is_first_to_say(str(error)):
            raise
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None


def _command() -> str:
    """What starts jv5kit as it was started."""
    from jv5kit.training.processes import launched

    return "torchrun ... -m jv5kit" if launched() else "jv5kit"


def _settings(
    size: str | None,
    init: str | None,
    config: Path | None,
    resumed: Path | None,
    data: Sequence[str] | None,
    teacher: str | None,
    seed: int | None,
    steps: int | None,
    average: bool | None,
    evaluate: Sequence[str] | None,
) -> RunSettings:
    """The size's settings, those of a file over them, and the flags over these."""
    from jv5kit.errors import InputError
    from jv5kit.training.config import check, overlay, read_toml, size_named
    from jv5kit.training.sizes import FROM_A_MODEL, RunSettings

    if size is not None and init is not None:
        raise InputError(f"--size {size} and --init {init} contradict each other: a size has its own start")
    settings = RunSettings()
    if size is not None:
        settings = size_named(size)
    elif init is not None:
        settings = FROM_A_MODEL
    if config is None and resumed is not None and (resumed / "run.toml").exists():
        config = resumed / "run.toml"
    if config is not None:
        settings = read_toml(config, settings)
    elif size is None and init is None and resumed is not None:
        raise InputError(f"{resumed} has no run to go on with")
    elif size is None and init is None:
        raise InputError("say what to train: --size small, nano or pico; --init MODEL; or --config FILE")
    flags: dict[str, Any] = {
        "student": {} if init is None else {"model": init},
        "teacher": {} if teacher is None else {"model": teacher},
        "evaluation": {"data": list(evaluate)} if evaluate else {},
    }
    if seed is not None:
        flags["seed"] = seed
    if data:
        flags["data"] = [{"path": path} for path in data]
    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps} must be at least 1")
    for name in ("distill", "long", "retrieval", "text_matching", "clustering", "classification"):
        before = getattr(settings, name)
        own = flags[name] = {} if steps is None else {"steps": min(steps, before.steps)}
        if average is not None and hasattr(before, "average"):
            own["average"] = average
    return check(overlay(settings, flags))


def _stages(stage: str) -> Sequence[Stage]:
    from jv5kit.errors import InputError
    from jv5kit.training.phases import STAGES

    for name in STAGES:
        if stage == name:
            return (name,)
    if stage != "all":
        raise InputError(f"--stage {stage} is not known; choose one of {', '.join(STAGES)}, all")
    return STAGES


def _tasks(task: str | None) -> Sequence[Task] | None:
    from jv5kit.errors import InputError
    from jv5kit.tasks import TASKS

    if task is None:
        return None
    for name in TASKS:
        if task == name:
            return (name,)
    if task != "all":
        raise InputError(f"--task {task} is not known; choose one of {', '.join(TASKS)}, all")
    return TASKS


def _print_plan(settings: RunSettings, phases: Sequence[Phase], processes: int, *, as_json: bool) -> None:
    from dataclasses import asdict

    from jv5kit.training.config import to_toml
    from jv5kit.training.estimates import estimate

    text = to_toml(settings, marked=True)
    estimates = estimate(settings, phases, processes)
    if as_json:
        print_json({"settings": asdict(settings), "estimates": asdict(estimates)})
        return
    print(text, end="")
    lines = [
        f"{estimates.parameters:,} parameters, {estimates.matrices:,} of them in matrices that each token goes through",
        f"a product makes {estimates.flops / 1e9:,.0f} GFLOP/s on {estimates.device}; {len(phases)} phases in "
        f"{processes} process{'es' if processes > 1 else ''}:",
    ]
    lines += [
        f"  {one.phase:<15} {one.trained:>13,} trained, at most {one.tokens:>11,} tokens a step, "
        f"{_duration(one.seconds)}"
        for one in estimates.phases
    ]
    parts = ("peak", "weights", "gradients", "one_pass", "loss", "teacher")
    for place, name in (("memory", f"on {estimates.device}"), ("on_gpu", "on a GPU")):
        if place == "memory" or estimates.device == "cpu":
            lines += [f"{f'GiB of a process {name}':<24}" + "".join(f"{part.replace('_', ' '):>11}" for part in parts)]
            for one in estimates.phases:
                held = asdict(one)[place]
                lines += [f"  {one.phase:<22}" + "".join(f"{held[part] / 2**30:>11.2f}" for part in parts)]
    print("\n".join(lines), file=sys.stderr)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
