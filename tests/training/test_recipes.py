"""The sizes of the paper, end to end, on tiny checkpoints of their architectures, teacher included."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import models
import pytest
from command import write_jsonl

from jv5kit import Encoder, Index

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["penguin", "bird", "sea", "ice", "warm", "the", "a"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    texts = [f"{WORDS[i % 7]} {WORDS[(3 * i + 1) % 7]} of {WORDS[(5 * i + 2) % 7]} {i}" for i in range(60)]
    write_jsonl(
        folder / "pairs.jsonl",
        [{"anchor": texts[i], "positive": texts[i + 1], "negative": texts[i + 2]} for i in range(0, 57, 3)],
    )
    scored = [{"sentence1": a, "sentence2": b, "score": i % 5} for i, (a, b) in enumerate(pairwise(texts))]
    write_jsonl(folder / "scored.jsonl", scored)
    write_jsonl(folder / "labeled.jsonl", [{"text": text, "label": f"l{i % 3}"} for i, text in enumerate(texts)])
    return folder


@pytest.mark.parametrize(("size", "kind", "phases"), [("small", "qwen3", 6), ("nano", "eurobert", 5)])
def test_a_size_from_its_backbone_to_hits(
    tmp_path: Path, rows: Path, inside: Any, size: str, kind: str, phases: int
) -> None:
    backbone = tmp_path / "backbone"
    vocabulary = models.write_tokenizer(backbone, template="$A")
    tokens: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    if kind == "eurobert":
        tokens |= {"mask_token_id": 1, "num_key_value_heads": 4}
    else:
        tokens |= {"num_key_value_heads": 2, "head_dim": 16}
    models.random_model(backbone, kind, vocab_size=vocabulary, **tokens)
    teacher = models.as_sentence_transformers(models.qwen3(tmp_path / "teacher"), pooling="lasttoken")
    config = tmp_path / "tiny.toml"
    tables = "\n".join(
        f"[{name}]\nbatch = 4\nlength = 16"
        for name in ("distill", "long", "retrieval", "text-matching", "clustering", "classification")
    )
    config.write_text(
        f"""[student]
model = "{backbone}"
max_tokens = {models.CONTEXT}
dims = [{models.DIM}, 32]
[teacher]
cache = "{tmp_path / "cache"}"
{tables}
"""
    )
    run, made = tmp_path / "run", tmp_path / "made"
    data = [word for name in ("pairs", "scored", "labeled") for word in ("--data", rows / f"{name}.jsonl")]
    inside(
        *("train", "--size", size, "--config", config, "--teacher", teacher, "--steps", "2"),
        *("-o", run, *data, "-q"),
    )
    assert len(json.loads((run / "progress.json").read_text())["done"]) == phases
    settings = json.loads((run / "student" / "config.json").read_text())
    # Of inference, and of the last phase that trained the backbone.
    thetas = {"small": (3.5e6, 5e5), "nano": (1e6, 2.5e5)}
    assert (settings["rope_theta"], settings["training_rope_theta"]) == thetas[size]
    inside("export", run, "-o", made)
    write_jsonl(tmp_path / "docs.jsonl", [{"text": f"the {word} of ice"} for word in WORDS])
    encoder = Encoder.from_pretrained(made)
    assert encoder.backend.name == "native"
    assert sorted(encoder.checkpoint.adapters) == ["classification", "clustering", "retrieval", "text-matching"]
    assert encoder.query_prompt() == "Query: "
    inside("index", tmp_path / "docs.jsonl", "-m", made, "-o", tmp_path / "docs.jv5", "--binary", "--dim", "32")
    with Index.open(tmp_path / "docs.jv5") as index:
        assert len(index.search(encoder.encode_query("the sea"), top_k=3)) == 3
