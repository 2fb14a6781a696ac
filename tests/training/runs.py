"""Runs of training on tiny rows: what the tests of one process and of several start."""

from __future__ import annotations

import json
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import models
from command import write_jsonl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORDS = ["penguin", "bird", "sea", "ice", "warm", "the", "a"]
BOUND = 0.1
"""How far an estimate of memory may be from what is measured, in float32 on a CPU."""
SPREAD_BOUND = 0.25
"""The same where weights are spread: what the processes send each other comes and goes as it likes, up to 0.14 here."""
WIDE = ("distill", "retrieval", "classification")
PHASES = ("distill", "retrieval", "text-matching", "clustering", "classification")


def write_rows(folder: Path) -> Path:
    """Write rows of each kind, and a set to evaluate on."""
    draw = random.Random(0)
    texts = [" ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 9))) + f" {i}" for i in range(160)]
    pairs = [{"anchor": texts[i], "positive": texts[i + 1], "negative": texts[i + 2]} for i in range(0, 150, 3)]
    write_jsonl(folder / "pairs.jsonl", pairs)
    scored = [{"sentence1": a, "sentence2": b, "score": draw.random()} for a, b in zip(texts, texts[7:], strict=False)]
    write_jsonl(folder / "scored.jsonl", scored[:60])
    write_jsonl(folder / "labeled.jsonl", [{"text": text, "label": f"l{i % 4}"} for i, text in enumerate(texts[:80])])
    write_jsonl(folder / "graded.jsonl", scored[60:120])
    return folder


def config(
    folder: Path,
    rows: Path,
    model: Path,
    *,
    optimizer: str = "",
    adapters: str = "",
    evaluated: bool = True,
    **phases: int,
) -> Path:
    """Write the settings of a run.

    Args:
        folder: where to.
        rows: what :func:`write_rows` wrote.
        model: student and teacher.
        optimizer: more lines of its table.
        adapters: more lines of the table of each.
        evaluated: whether the run is, as it goes.
        **phases: steps of each.
    """
    tables = "\n".join(
        f"[{name}]\nsteps = {phases.get(name.replace('-', '_'), 0)}\nbatch = 8\nlength = 24\n"
        + ("" if name == "distill" else adapters)
        for name in PHASES
    )
    data = "\n".join(f'[[data]]\npath = "{rows / name}.jsonl"' for name in ("pairs", "scored", "labeled"))
    folder.mkdir(exist_ok=True)
    path = folder / "run.toml"
    path.write_text(
        f"""seed = 3
[student]
model = "{model}"
dims = [64, 32]
[teacher]
model = "{model}"
rotate = true
cache = "{folder / "teacher"}"
[optimizer]
pass_tokens = 100
log_steps = 1
checkpoint_steps = 3
evaluate_steps = 4
{optimizer}
{tables}
[evaluation]
data = [{f'"{rows / "graded.jsonl"}"' if evaluated else ""}]
{data}
"""
    )
    return path


def wide_config(
    folder: Path, batch: int, length: int, pass_tokens: int, optimizer: str = "", phases: Sequence[str] = WIDE
) -> Path:
    """Write the settings of two steps a phase on texts that fill their length, with a model and rows for it.

    What a step holds is then not the odds and ends.
    """
    model, teacher = folder / "model", folder / "teacher"
    if not model.exists():
        for place, width in ((model, 128), (teacher, 192)):
            vocabulary = models.write_tokenizer(place, template="$A [SEP]", context=1000)
            models.random_model(
                place,
                "qwen3",
                vocab_size=vocabulary,
                hidden_size=width,
                num_hidden_layers=2,
                intermediate_size=3 * width,
                num_key_value_heads=2,
                head_dim=64,
                max_position_embeddings=1000,
            )
        draw = random.Random(0)
        texts = [" ".join(draw.choice(WORDS) for _ in range(40)) for _ in range(960)]
        pairs = [{"anchor": texts[i], "positive": texts[i + 1], "negative_1": texts[i + 2]} for i in range(0, 960, 3)]
        write_jsonl(folder / "pairs.jsonl", pairs)
        write_jsonl(folder / "labeled.jsonl", [{"text": text, "label": f"l{i % 4}"} for i, text in enumerate(texts)])
    tables = "\n".join(
        f"[{name}]\nsteps = {2 if name in phases else 0}\nbatch = {batch}\n"
        f"length = {length}\n" + ("" if name in ("distill", "clustering") else "negatives = 1")
        for name in PHASES
    )
    path = folder / f"{batch}-{length}-{pass_tokens}{optimizer and '-more'}.toml"
    path.write_text(
        f"""[student]
model = "{model}"
dims = [128, 64, 32]
[teacher]
model = "{teacher}"
cache = "{folder / "cache"}"
[optimizer]
pass_tokens = {pass_tokens}
bfloat16 = false
{optimizer}
{tables}
[[data]]
path = "{folder / "pairs.jsonl"}"
[[data]]
path = "{folder / "labeled.jsonl"}"
"""
    )
    return path


def estimated(settings: Path, processes: int) -> dict[str, int]:
    """Bytes that a process should hold on a CPU, its teacher left out, by the names of the phases' settings."""
    from jv5kit.training.config import read_toml
    from jv5kit.training.estimates import estimate
    from jv5kit.training.phases import STAGES, phases_of
    from jv5kit.training.sizes import RunSettings

    own = read_toml(settings, RunSettings())
    phases = phases_of(own, STAGES, ("retrieval", "classification"))
    found = zip(phases, estimate(own, phases, processes).phases, strict=True)
    return {type(phase.settings).__name__: one.memory.peak - one.memory.teacher for phase, one in found}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "jv5kit", "train", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "JV5KIT_THREADS": "1"}


def records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def weights(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("student/**/*.safetensors"))
    }
