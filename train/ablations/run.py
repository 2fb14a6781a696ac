"""Try the paper's claims: ``python train/ablations/run.py WORK SETS``.

WORK is the folder that train/run.sh worked in; SETS has evaluation sets. Each run takes at least ``--tokens`` tokens,
and adds a line to ``--results``; one that is there already is not made again, so that an interrupted command goes on
where it was. ``report.py`` makes the table and the plots of it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from budget import steps_for, tokens_of_a_row
from claims import LONG, Trial, key_of, trials
from long_context import long_context

from jv5kit import Encoder
from jv5kit.errors import InputError, Jv5kitError
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.folders import choose, find_sets
from jv5kit.evaluation.runner import evaluate
from jv5kit.training.config import check, overlay, read_toml, to_toml
from jv5kit.training.hardware import fast_bfloat16
from jv5kit.training.run import Run
from jv5kit.training.sizes import DataSettings, RunSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.evaluation.tasks import EvaluationSet

RECIPE = Path(__file__).parents[1] / "pico.toml"
RESULTS = Path(__file__).parent / "results.jsonl"
DIMS = (384, 256, 128, 64, 32)
Record = dict[str, Any]


def settings_of(trial: Trial, work: Path, tokens: int, *, bfloat16: bool) -> RunSettings:
    """The settings of a run that takes at least so many tokens."""
    recipe = read_toml(RECIPE, RunSettings())
    settings = overlay(recipe, trial.settings)
    data = work / "texts" / f"{trial.rows}.jsonl"
    phase = str(trial.phase)
    own: Any = getattr(settings, phase)
    negatives = getattr(own, "negatives", 0)
    names = ["text", "anchor", "positive", "sentence1", "sentence2", *(f"negative_{i + 1}" for i in range(negatives))]
    # Beside a text with a label there is one of its own, and others of other labels.
    repeated = 2 + negatives if phase == "classification" else 1
    steps = steps_for(tokens, repeated * tokens_of_a_row(data, settings.student.model, own.length, names), own.batch)
    changed: dict[str, Any] = {
        "seed": trial.seed,
        "data": (DataSettings(path=str(data), name=trial.rows, phases=(phase.replace("_", "-"),)),),
        "teacher": replace(settings.teacher, cache=str(work / "teacher")),
        "optimizer": replace(
            settings.optimizer,
            bfloat16=bfloat16,
            log_steps=1,
            evaluate_steps=max(1, steps // 5),
            checkpoint_steps=10 * steps,
        ),
        phase: replace(own, steps=steps),
    }
    if trial.claim == "objectives":
        held_out = RECIPE.parents[1] / "tests" / "training" / "data" / "retrieval"
        changed["evaluation"] = replace(settings.evaluation, data=(str(held_out),))
    return check(replace(settings, **changed))


def train(trial: Trial, settings: RunSettings, work: Path, output: Path) -> None:
    """Run the phase."""
    if trial.start == "teacher":
        Run(settings, output, stages=["distill"]).train()
        return
    # It begins with what stage 1 left: the student without adapters, the projection and the rotation.
    output.mkdir(parents=True)
    shutil.copytree(work / "run" / "student", output / "student", ignore=shutil.ignore_patterns("adapters"))
    for name in ("projection", "rotation"):
        if (work / "run" / f"{name}.safetensors").exists():
            shutil.copyfile(work / "run" / f"{name}.safetensors", output / f"{name}.safetensors")
    if trial.phase is None:
        return
    (output / "run.toml").write_text(to_toml(settings), encoding="utf-8")
    if trial.phase == "distill":
        Run(settings, output, stages=["distill"], resume=True).train()
        return
    task: Any = trial.phase.replace("_", "-")
    Run(settings, output, stages=["adapt"], tasks=[task], resume=True).train()


def measure(folder: Path, kinds: tuple[str, ...], sets: list[tuple[str, EvaluationSet]]) -> list[Record]:
    """What a student scores on sets of some kinds, in float32 and, for retrieval, in bits."""
    encoder = TextEncoder(Encoder.from_pretrained(folder, dtype="float32"), show_progress_bar=False)
    found = []
    for name, data in sets:
        if data.kind not in kinds:
            continue
        retrieval = data.kind == "retrieval"
        result = evaluate(
            encoder, name, data, DIMS if retrieval else DIMS[:1], ["float32", "ubinary"] if retrieval else ["float32"]
        )
        encoder.forget()
        metric = result.metrics[0]
        found += [
            {"set": name, "kind": data.kind, "dim": one.dim, "precision": one.precision, metric: one.metrics[metric]}
            for one in result.scores
        ]
    return found


def record_of(
    trial: Trial, output: Path, sets: list[tuple[str, EvaluationSet]], tokens: int, *, bfloat16: bool
) -> Record:
    """A line of the results.

    Raises:
        Jv5kitError: the run took fewer tokens than it was to.
    """
    lines = []
    if trial.phase is not None:
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "tokens" in line]
    taken = sum(line["tokens"] for line in steps)
    if trial.phase is not None and taken < tokens:
        raise Jv5kitError(
            f"{trial.key} took {taken:,} tokens of {tokens:,}: its rows are shorter than a sample of them"
        )
    return {
        "claim": trial.claim,
        "name": trial.name,
        "seed": trial.seed,
        "bfloat16": bfloat16,
        "steps": len(steps),
        "tokens": taken,
        "loss": [steps[i]["loss"] for i in (0, -1) if steps],
        "curve": [{"step": line["step"], **line["scores"]} for line in lines if "scores" in line],
        "scores": measure(output / "student", trial.kinds, sets),
    }


def record_run(
    trial: Trial, work: Path, tokens: int, sets: list[tuple[str, EvaluationSet]], *, bfloat16: bool, keep: bool
) -> Record:
    """Make a run, and the line that it gives."""
    output = work / "ablations" / trial.key.replace("/", "-").replace(" ", "")
    shutil.rmtree(output, ignore_errors=True)
    settings = settings_of(trial, work, tokens, bfloat16=bfloat16) if trial.phase else RunSettings()
    train(trial, settings, work, output)
    record = record_of(trial, output, sets, tokens, bfloat16=bfloat16)
    if not keep:
        shutil.rmtree(output)
    return record


def earlier(results: Path) -> dict[str, Record]:
    """What was run before, by its key.

    Raises:
        InputError: a line cannot be read.
    """
    if not results.exists():
        return {}
    found = {}
    for number, line in enumerate(results.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            found[key_of(record["claim"], record["name"], record["seed"])] = record
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{results}:{number} is no whole result: take the line away, and run it again") from None
    return found


def type_of(claim: str, done: dict[str, Record]) -> bool:
    """Whether matrices are multiplied in bfloat16: as in the claim's runs that are there, else where that is faster.

    Raises:
        InputError: they were in bfloat16, which is not to be had here; or some of them were.
    """
    types = {one.get("bfloat16", False) for one in done.values() if one["claim"] == claim}
    again = f"give another --results, or take the lines of {claim} away"
    if len(types) > 1:
        raise InputError(f"some runs of {claim} were made with bfloat16, others without: {again}")
    if types == {True} and not fast_bfloat16():
        raise InputError(
            f"runs of {claim} were made with bfloat16, which this machine has no instructions for: {again}"
        )
    return types.pop() if types else fast_bfloat16()


def check_earlier(
    wanted: Sequence[Trial], done: dict[str, Record], sets: list[tuple[str, EvaluationSet]], tokens: int
) -> None:
    """Find out whether runs can be compared with those that are there.

    Raises:
        InputError: one there had fewer tokens, or other sets; see also :func:`type_of`.
    """
    of_kind = {trial.key: {name for name, data in sets if data.kind in trial.kinds} for trial in wanted}
    for trial in wanted:
        if not of_kind[trial.key]:
            raise InputError(f"--names has no set for {' or '.join(trial.kinds)}, which {trial.key} is measured on")
        again = f"give another --results, or take the lines of {trial.claim} away"
        record = done.get(trial.key)
        if record is None:
            type_of(trial.claim, done)
        elif trial.phase is not None and record["tokens"] < tokens:
            raise InputError(f"{trial.key} took {record['tokens']:,} tokens, --tokens is {tokens:,}: {again}")
        elif {one["set"] for one in record["scores"]} != of_kind[trial.key]:
            had = ", ".join(sorted({one["set"] for one in record["scores"]}))
            raise InputError(f"{trial.key} was measured on {had}, --names has other sets: {again}")


def main(
    work: Annotated[Path, typer.Argument(help="the folder that train/run.sh worked in")],
    sets: Annotated[Path, typer.Argument(help="a folder with evaluation sets")],
    claims: Annotated[
        list[str] | None, typer.Argument(help="which claims, or runs as CLAIM/VARIANT (default: all)")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="that each run takes, at least")] = 1_000_000,
    names: Annotated[str, typer.Option(help="evaluation sets, with commas between them")] = (
        "cranfield,scitldr,stsb_multi/en,clu_biomedical,banking77,clinc150,amazon_counterfactual/EN"
    ),
    results: Annotated[Path, typer.Option(help="a line for each run is added to it")] = RESULTS,
    keep: Annotated[bool, typer.Option("--keep", help="leave each run's folder in WORK/ablations")] = False,
) -> None:
    """Try the paper's claims, each run at an equal budget."""
    every = list(trials())
    known = [*dict.fromkeys(trial.claim for trial in every), LONG]
    asked = claims or known
    wanted = [trial for trial in every if any(f"{trial.key}/".startswith(f"{one}/") for one in asked)]
    wrong = [one for one in asked if one != LONG and not any(f"{trial.key}/".startswith(f"{one}/") for trial in every)]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]} is no claim; there are {', '.join(known)}")
    rows = [trial.rows for trial in wanted if trial.phase] + (["spans", "pairs"] if LONG in asked else [])
    needed = [work / "texts" / f"{one}.jsonl" for one in dict.fromkeys(rows)]
    if any(trial.start == "stage 1" for trial in wanted):
        needed.append(work / "run" / "student")
    missing = [str(path.relative_to(work)) for path in needed if not path.exists()]
    if missing:
        raise typer.BadParameter(f"{work} has no {', '.join(missing)}: train/run.sh makes them")

    def add(record: Record) -> None:
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        typer.echo(f"{record['claim']}/{record['name']}/{record['seed']}: {record['tokens']:,} tokens", err=True)

    try:
        chosen = [(one.name, one.read()) for one in choose(find_sets(sets)[0], names.split(","))]
        done = earlier(results)
        check_earlier(wanted, done, chosen, tokens)
        for trial in wanted:
            if trial.key not in done:
                add(record_run(trial, work, tokens, chosen, bfloat16=type_of(trial.claim, done), keep=keep))
        if LONG in asked and not any(key.startswith(f"{LONG}/") for key in done):
            # All or none: what follows takes over from what came before.
            for record in list(long_context(work, tokens, keep=keep)):
                add(record)
    except (Jv5kitError, OSError) as error:
        typer.echo(f"ablations: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None


if __name__ == "__main__":
    typer.run(main)
