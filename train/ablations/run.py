"""Try the paper's claims: ``python train/ablations/run.py WORK SETS``.

WORK is the folder that train/run.sh worked in; SETS has evaluation sets. Each run takes at least ``--tokens`` tokens,
and adds a line to ``WORK/ablations.jsonl``; one that is there already is not made again. ``report.py`` makes the table
and the plots of it.
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
    from jv5kit.evaluation.tasks import EvaluationSet

RECIPE = Path(__file__).parents[1] / "pico.toml"
DIMS = (384, 256, 128, 64, 32)
SAMPLE = 512


def tokens_of_a_row(path: Path, phase: str, settings: RunSettings) -> float:
    """Tokens that the rows of a file have on average, as a phase reads them."""
    tokenizer = load_tokenizer(load_checkpoint(settings.student.model))
    tokenizer.no_padding()
    own = settings.distill if phase == "distill" else settings.retrieval
    tokenizer.enable_truncation(own.length)
    texts: list[str] = []
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(SAMPLE), strict=False)]
    for row in rows:
        names = ["text", "anchor", "positive"]
        if phase == "retrieval":
            names += [f"negative_{i}" for i in range(1, settings.retrieval.negatives + 1)]
        texts += [row[name] for name in names if name in row]
    return sum(len(one.ids) for one in tokenizer.encode_batch(texts)) / len(rows)


def settings_of(trial: Trial, work: Path, tokens: int) -> RunSettings:
    """The settings of a run that takes at least so many tokens."""
    recipe = read_toml(RECIPE, RunSettings())
    settings = overlay(recipe, trial.settings)
    data = work / "texts" / f"{trial.rows}.jsonl"
    phase = trial.phase
    own: Any = getattr(settings, phase)
    steps = math.ceil(tokens / (tokens_of_a_row(data, phase, settings) * own.batch))
    changed: dict[str, Any] = {
        "seed": trial.seed,
        "data": (DataSettings(path=str(data), name=trial.rows, phases=(phase,)),),
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
    shutil.rmtree(output, ignore_errors=True)
    if trial.start == "teacher":
        Run(settings, output, stages=["distill"]).train()
        return
    # An adapter begins with what stage 1 left: the student without adapters, the projection and the rotation.
    output.mkdir(parents=True)
    shutil.copytree(work / "run" / "student", output / "student", ignore=shutil.ignore_patterns("adapters"))
    for name in ("projection", "rotation"):
        if (work / "run" / f"{name}.safetensors").exists():
            shutil.copyfile(work / "run" / f"{name}.safetensors", output / f"{name}.safetensors")
    (output / "run.toml").write_text(to_toml(settings), encoding="utf-8")
    Run(settings, output, stages=["adapt"], tasks=["retrieval"], resume=True).train()


def measure(folder: Path, sets: list[tuple[str, EvaluationSet]]) -> list[dict[str, Any]]:
    """What a student scores on sets of retrieval and similarity, in float32 and in bits."""
    encoder = TextEncoder(Encoder.from_pretrained(folder, dtype="float32"), show_progress_bar=False)
    found = []
    for name, data in sets:
        # An adapter for retrieval alone is asked for retrieval alone.
        if data.kind != "retrieval" and encoder.encoder.checkpoint.adapters:
            continue
        result = evaluate(encoder, name, data, DIMS, ["float32", "ubinary"])
        encoder.forget()
        found += [
            {"set": name, "dim": one.dim, "precision": one.precision, result.metrics[0]: one.metrics[result.metrics[0]]}
            for one in result.scores
        ]
    return found


def record_of(trial: Trial, output: Path, sets: list[tuple[str, EvaluationSet]]) -> dict[str, Any]:
    """A line of the results."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curve = [{"step": line["step"], **line["scores"]} for line in lines if "scores" in line]
    steps = [line for line in lines if "tokens" in line]
    return {
        "claim": trial.claim,
        "name": trial.name,
        "seed": trial.seed,
        "steps": len(steps),
        "tokens": sum(line["tokens"] for line in steps),
        "loss": [steps[0]["loss"], steps[-1]["loss"]],
        "curve": curve,
        "scores": measure(output / "student", sets),
    }


def main(
    work: Annotated[Path, typer.Argument(help="the folder that train/run.sh worked in")],
    sets: Annotated[Path, typer.Argument(help="a folder with evaluation sets")],
    claims: Annotated[list[str] | None, typer.Argument(help="which claims (default: all)")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="that each run takes, at least")] = 1_000_000,
    names: Annotated[str, typer.Option(help="evaluation sets, with commas between them")] = (
        "cranfield,scitldr,msmarco_dl_5k,stsb_multi/en"
    ),
) -> None:
    """Try the paper's claims, each run at an equal budget."""
    every = list(trials())
    known = list(dict.fromkeys(trial.claim for trial in every))
    wrong = [claim for claim in claims or () if claim not in known]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]} is no claim; there are {', '.join(known)}")
    needed = [work / "texts" / "mined.jsonl", work / "texts" / "spans.jsonl", work / "run" / "student"]
    missing = [str(path.relative_to(work)) for path in needed if not path.exists()]
    if missing:
        raise typer.BadParameter(f"{work} has no {', '.join(missing)}: train/run.sh makes them")
    results = work / "ablations.jsonl"
    done = set()
    if results.exists():
        records = map(json.loads, results.read_text(encoding="utf-8").splitlines())
        done = {f"{one['claim']}/{one['name']}/{one['seed']}" for one in records}
    try:
        chosen = [(one.name, one.read()) for one in choose(find_sets(sets)[0], names.split(","))]
        if not any(data.kind == "retrieval" for _, data in chosen):
            raise InputError(f"--names {names} has no set for retrieval, which most claims are about")
        for trial in every:
            if trial.key in done or (claims and trial.claim not in claims):
                continue
            output = work / "ablations" / trial.key.replace("/", "-").replace(" ", "")
            train(trial, settings_of(trial, work, tokens), work, output)
            record = record_of(trial, output, chosen)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            shutil.rmtree(output)
            typer.echo(f"{trial.key}: {record['tokens']:,} tokens", err=True)
    except (Jv5kitError, OSError) as error:
        typer.echo(f"ablations: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None


if __name__ == "__main__":
    typer.run(main)
