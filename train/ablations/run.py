"""Try the paper's claims: ``python train/ablations/run.py WORK SETS``.

WORK is the folder that train/run.sh worked in; SETS has evaluation sets. Each run takes at least ``--tokens`` tokens,
and adds a line to ``--results``; one that is there already is not made again, so that an interrupted command goes on
where it was. ``report.py`` makes the table and the plots of it.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from claims import Trial, trials
from long_context import CLAIM as LONG
from long_context import long_context

from jv5kit import Encoder
from jv5kit.encoder import load_tokenizer
from jv5kit.errors import InputError, Jv5kitError
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.folders import choose, find_sets
from jv5kit.evaluation.runner import evaluate
from jv5kit.pretrained import load_checkpoint
from jv5kit.training.config import check, overlay, read_toml, to_toml
from jv5kit.training.run import Run
from jv5kit.training.sizes import DataSettings, RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jv5kit.evaluation.tasks import EvaluationSet

RECIPE = Path(__file__).parents[1] / "pico.toml"
RESULTS = Path(__file__).parent / "results.jsonl"
DIMS = (384, 256, 128, 64, 32)
SAMPLE = 512

MARGIN = 1.06
"""Over the tokens wanted: the rows that a run draws may be shorter than those that were counted."""

Record = dict[str, Any]


def tokens_of_a_row(path: Path, phase: str, settings: RunSettings) -> float:
    """Tokens that the rows of a file have on average, as a phase reads them."""
    tokenizer = load_tokenizer(load_checkpoint(settings.student.model))
    tokenizer.no_padding()
    own: Any = getattr(settings, phase)
    tokenizer.enable_truncation(own.length)
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(SAMPLE), strict=False)]
    negatives = getattr(own, "negatives", 0)
    names = ["text", "anchor", "positive", "sentence1", "sentence2", *(f"negative_{i + 1}" for i in range(negatives))]
    texts = [row[name] for row in rows for name in names if name in row]
    # Beside a text with a label there is one of its own, and others of other labels.
    repeated = 2 + negatives if phase == "classification" else 1
    return repeated * sum(len(one.ids) for one in tokenizer.encode_batch(texts)) / len(rows)


def settings_of(trial: Trial, work: Path, tokens: int) -> RunSettings:
    """The settings of a run that takes at least so many tokens."""
    recipe = read_toml(RECIPE, RunSettings())
    settings = overlay(recipe, trial.settings)
    data = work / "texts" / f"{trial.rows}.jsonl"
    phase = str(trial.phase)
    own: Any = getattr(settings, phase)
    steps = math.ceil(MARGIN * tokens / (tokens_of_a_row(data, phase, settings) * own.batch))
    changed: dict[str, Any] = {
        "seed": trial.seed,
        "data": (DataSettings(path=str(data), name=trial.rows, phases=(phase.replace("_", "-"),)),),
        "teacher": replace(settings.teacher, cache=str(work / "teacher")),
        "optimizer": replace(
            settings.optimizer, log_steps=1, evaluate_steps=max(1, steps // 5), checkpoint_steps=10 * steps
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
    # An adapter begins with what stage 1 left: the student without adapters, the projection and the rotation.
    output.mkdir(parents=True)
    shutil.copytree(work / "run" / "student", output / "student", ignore=shutil.ignore_patterns("adapters"))
    for name in ("projection", "rotation"):
        if (work / "run" / f"{name}.safetensors").exists():
            shutil.copyfile(work / "run" / f"{name}.safetensors", output / f"{name}.safetensors")
    if trial.phase is None:
        return
    (output / "run.toml").write_text(to_toml(settings), encoding="utf-8")
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


def record_of(trial: Trial, output: Path, sets: list[tuple[str, EvaluationSet]]) -> Record:
    """A line of the results."""
    lines = []
    if trial.phase is not None:
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "tokens" in line]
    return {
        "claim": trial.claim,
        "name": trial.name,
        "seed": trial.seed,
        "steps": len(steps),
        "tokens": sum(line["tokens"] for line in steps),
        "loss": [steps[i]["loss"] for i in (0, -1) if steps],
        "curve": [{"step": line["step"], **line["scores"]} for line in lines if "scores" in line],
        "scores": measure(output / "student", trial.kinds, sets),
    }


def records(
    trial: Trial, work: Path, tokens: int, sets: list[tuple[str, EvaluationSet]], *, keep: bool
) -> Iterator[Record]:
    """Make a run, and the line that it gives."""
    output = work / "ablations" / trial.key.replace("/", "-").replace(" ", "")
    shutil.rmtree(output, ignore_errors=True)
    settings = settings_of(trial, work, tokens) if trial.phase else RunSettings()
    train(trial, settings, work, output)
    yield record_of(trial, output, sets)
    if not keep:
        shutil.rmtree(output)


def main(
    work: Annotated[Path, typer.Argument(help="the folder that train/run.sh worked in")],
    sets: Annotated[Path, typer.Argument(help="a folder with evaluation sets")],
    claims: Annotated[
        list[str] | None, typer.Argument(help="which claims, or runs as CLAIM/VARIANT (default: all)")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="that each run takes, at least")] = 1_000_000,
    names: Annotated[str, typer.Option(help="evaluation sets, with commas between them")] = (
        "cranfield,scitldr,stsb_multi/en,clu_biomedical,amazon_counterfactual/EN"
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
    done = set()
    if results.exists():
        lines = map(json.loads, results.read_text(encoding="utf-8").splitlines())
        done = {f"{one['claim']}/{one['name']}/{one['seed']}" for one in lines}

    def add(record: Record) -> None:
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        typer.echo(f"{record['claim']}/{record['name']}/{record['seed']}: {record['tokens']:,} tokens", err=True)

    try:
        chosen = [(one.name, one.read()) for one in choose(find_sets(sets)[0], names.split(","))]
        if not any(data.kind == "retrieval" for _, data in chosen):
            raise InputError(f"--names {names} has no set for retrieval, which most claims are about")
        for trial in wanted:
            if trial.key not in done:
                for record in records(trial, work, tokens, chosen, keep=keep):
                    add(record)
        if LONG in asked and not any(key.startswith(f"{LONG}/") for key in done):
            for record in long_context(work, tokens, keep=keep):
                add(record)
    except (Jv5kitError, OSError) as error:
        typer.echo(f"ablations: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None


if __name__ == "__main__":
    typer.run(main)
