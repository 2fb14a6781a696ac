"""The claim of the long context: documents found by one sentence in them, before and after training on long ones.

The paper raises the base of the rotary positions for inference above that of training. Our teacher reads 256 tokens, so
that nothing can be distilled from it of longer texts: the long phase is InfoNCE, of what asks for a document, among
documents made of short ones (train/data/long_documents.py).
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from budget import steps_for, tokens_of_a_row
from claims import AFTER, BEFORE, LONG, RAISED, SHORT, TRAINED
from safetensors.torch import load_file, save_file

from jv5kit import Encoder
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.long_documents import long_document_sets
from jv5kit.evaluation.runner import evaluate
from jv5kit.pretrained import load_checkpoint
from jv5kit.training.config import check
from jv5kit.training.hardware import fast_bfloat16
from jv5kit.training.packed import PackedModel
from jv5kit.training.run import Run
from jv5kit.training.sizes import (
    DataSettings,
    DistillSettings,
    OptimizerSettings,
    RunSettings,
    StudentSettings,
    TeacherSettings,
)

sys.path.append(str(Path(__file__).parents[1] / "data"))
import long_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTHS = (256, 512, 1024, 2048)

GENERAL, TRAINING, INFERENCE = 2e4, 1e4, 7e4
"""Bases of the rotary positions, in the ratio that they have in the paper for small: 1M, 500K and 3.5M."""

SHARES = {"distill": 2, "long": 2}
"""Budgets of the two phases: layers from scratch need more than those of a teacher."""

LONG_TOKENS = (256, 1000)
LENGTH, SPAN_LENGTH = LONG_TOKENS[1] + 24, 128
ROWS = 8000
"""Long documents that are made, each with a question."""

LONG_BATCH, SPAN_BATCH = 16, 64
WORDS = 0.5
"""Standard deviation of the word vectors at the beginning."""

CONFIG: dict[str, Any] = {
    "model_type": "eurobert",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": LENGTHS[-1],
    "rope_theta": INFERENCE,
}


def backbone(folder: Path, teacher: str) -> Path:
    """A model of rotary positions, with a teacher's tokenizer and word vectors, and layers drawn at random.

    With vectors drawn at random 4M tokens were not enough to find a sentence by its words (train/LOG.md).
    The teacher's have more dimensions: what is kept is their main directions.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = load_checkpoint(teacher).folder
    own = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config = CONFIG | {"vocab_size": own["vocab_size"], "pad_token_id": own.get("pad_token_id", 0)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for path in source.glob("tokenizer*.json"):
        shutil.copyfile(path, folder / path.name)
    model = PackedModel(config)
    model.initialize(seed=0)
    weights = model.named.state_dict()
    (words,) = (
        tensor.float()
        for path in source.glob("*.safetensors")
        for name, tensor in load_file(path).items()
        if name.endswith("word_embeddings.weight")
    )
    directions = torch.linalg.svd(words, full_matrices=False).Vh[: config["hidden_size"]]
    kept = words @ directions.T
    # Large beside what a step changes, so that they outlast the first steps of layers that know nothing.
    weights["embed_tokens.weight"] = (WORDS / kept.std() * kept).contiguous()
    save_file(weights, folder / "model.safetensors")
    return folder


def settings_of(work: Path, model: Path, teacher: str, phase: str, own: DistillSettings, rows: Path) -> RunSettings:
    """Settings of one phase, over rows."""
    phases = {"distill": DistillSettings(steps=0), "long": DistillSettings(steps=0)} | {phase: own}
    return check(
        RunSettings(
            student=StudentSettings(model=str(model), pooling="mean", max_tokens=LENGTHS[-1], rope_theta=INFERENCE),
            teacher=TeacherSettings(model=teacher, cache=str(work / "teacher")),
            optimizer=OptimizerSettings(log_steps=1, checkpoint_steps=1 << 30, evaluate_steps=1 << 30),
            distill=phases["distill"],
            long=phases["long"],
            data=(DataSettings(path=str(rows), name=rows.stem, phases=(phase,)),),
        )
    )


def with_base(student: Path, folder: Path, theta: float) -> Path:
    """A copy of a student with another base of its rotary positions."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(student, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_theta"] = theta
    if "rope_parameters" in config:
        config["rope_parameters"]["rope_theta"] = theta
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def measure(folder: Path) -> list[dict[str, Any]]:
    """The share of passkey documents that are found first, by their length."""
    encoder = Encoder.from_pretrained(folder, dtype="float32")
    texts = TextEncoder(encoder, show_progress_bar=False)
    found = []
    for one in long_document_sets(encoder, LENGTHS)[0]:
        if not one.name.startswith("passkey"):
            continue
        result = evaluate(texts, one.name, one.read(), [encoder.dim], ["float32"])
        metric = result.metrics[0]
        found.append({"set": one.name, "kind": "long-documents", "dim": encoder.dim, "precision": "float32"})
        found[-1][metric] = result.scores[0].metrics[metric]
    return found


def record_of(name: str, run: Path, phase: str, scores: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of the results: what a phase took, and what its student finds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "tokens" in line and line["phase"] == phase]
    return {
        "claim": LONG,
        "name": name,
        "seed": 0,
        "bfloat16": fast_bfloat16(),
        "steps": len(steps),
        "tokens": sum(line["tokens"] for line in steps),
        "loss": [steps[0]["loss"], steps[-1]["loss"]],
        "curve": [],
        "scores": scores,
    }


def long_context(work: Path, tokens: int, *, keep: bool) -> Iterator[dict[str, Any]]:
    """Train, and measure each student at the base that it was trained with and at that of inference.

    Three students: of stage 1; of InfoNCE over long documents after that; and of as many steps and tokens of InfoNCE
    over the short texts that the long ones were made of, which tells what is owed to the length.
    """
    output = work / "ablations" / "long"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    teacher = "all-MiniLM-L6-v2"
    spans, short, rows = work / "texts" / "spans.jsonl", work / "texts" / "pairs.jsonl", output / "long.jsonl"
    pairs = long_documents.read_pairs(short)
    with rows.open("w", encoding="utf-8") as file:
        for row in long_documents.make(pairs, ROWS, *LONG_TOKENS, seed=0):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    long_row, short_row = (tokens_of_a_row(path, teacher, LENGTH, ["anchor", "positive"]) for path in (rows, short))
    infonce = DistillSettings(
        steps=steps_for(SHARES["long"] * tokens, long_row, LONG_BATCH),
        batch=LONG_BATCH,
        length=LENGTH,
        learning_rate=3e-4,
        objective="infonce",
        temperature=0.05,
        rope_theta=TRAINING,
    )
    distill = DistillSettings(
        steps=steps_for(SHARES["distill"] * tokens, tokens_of_a_row(spans, teacher, SPAN_LENGTH, ["text"]), SPAN_BATCH),
        batch=SPAN_BATCH,
        length=SPAN_LENGTH,
        learning_rate=1e-3,
        similarity=1.0,
        rope_theta=GENERAL,
    )

    def measured(name: str, run: Path, phase: str, trained: float) -> Iterator[dict[str, Any]]:
        for told, theta in ((TRAINED, trained), (RAISED, INFERENCE)):
            place = with_base(run / "student", output / "measured", theta)
            yield record_of(f"{name}, base {told}", run, phase, measure(place))

    first = output / "stage1"
    model = backbone(output / "backbone", teacher)
    Run(settings_of(work, model, teacher, "distill", distill, spans), first).train()
    yield from measured(BEFORE, first, "distill", GENERAL)
    # As many texts more in a batch as they are shorter: the same tokens in the same steps.
    of_short = replace(infonce, batch=round(LONG_BATCH * long_row / short_row))
    for name, own, path in ((AFTER, infonce, rows), (SHORT, of_short, short)):
        run = output / path.stem
        Run(settings_of(work, first / "student", teacher, "long", own, path), run).train()
        yield from measured(name, run, "long", TRAINING)
    if not keep:
        shutil.rmtree(output)
