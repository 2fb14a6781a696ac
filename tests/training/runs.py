"""Runs of training on tiny rows: what the tests of one process and of several start."""

from __future__ import annotations

import json
import os
import random
import sys
from typing import TYPE_CHECKING, Any

from command import write_jsonl

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["penguin", "bird", "sea", "ice", "warm", "the", "a"]


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
    names = ("distill", "retrieval", "text-matching", "clustering", "classification")
    tables = "\n".join(
        f"[{name}]\nsteps = {phases.get(name.replace('-', '_'), 0)}\nbatch = 8\nlength = 24\n"
        + ("" if name == "distill" else adapters)
        for name in names
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
