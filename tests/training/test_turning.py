"""Turning a student's states: exact where norms' gains are alike, near where they are not."""

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from models import TEXTS
from safetensors.torch import load_file, save_file

from jv5kit import Encoder
from jv5kit.errors import InputError
from jv5kit.rotation import Rotation
from jv5kit.training.config import check, overlay
from jv5kit.training.run import Run
from jv5kit.training.sizes import RunSettings
from jv5kit.training.student import Student, StudentStart
from jv5kit.training.turning import keeping_ones, turn_states


def orthogonal(dim: int) -> torch.Tensor:
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(3).standard_normal((dim, dim)))[0].astype(np.float32))


def embeddings(student: Student) -> torch.Tensor:
    student.eval()
    with torch.no_grad():
        return student.embed(student.tokenize(TEXTS, "", student.max_tokens))


def load(folder: Path, **options: Any) -> Student:
    return Student.load(StudentStart(model=str(folder), **options))


def with_gains(folder: Path, gain: float) -> Path:
    """A model whose norms have that gain everywhere, and shifts and biases that are not 0."""
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    for name, tensor in tensors.items():
        if name.endswith("LayerNorm.weight"):
            tensors[name] = torch.full_like(tensor, gain)
        elif name.endswith("bias"):
            tensors[name] = torch.randn(tensor.shape, generator=generator) * 0.1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_with_gains_alike_embeddings_are_turned_exactly(kind: str, tmp_path: Path) -> None:
    if kind == "bert":
        models.bert(tmp_path / "model")
    else:
        vocabulary = models.write_tokenizer(tmp_path / "model", template="[CLS] $A [SEP]")
        settings = {"max_position_embeddings": models.CONTEXT + 2, "pad_token_id": 0, "type_vocab_size": 1}
        models.random_model(tmp_path / "model", kind, vocab_size=vocabulary, **settings)
    folder = with_gains(tmp_path / "model", 0.7)
    matrix = orthogonal(models.DIM)
    before, student = embeddings(load(folder)), load(folder)
    turn_states(student, matrix)
    turned = keeping_ones(matrix.T.double()).float()
    np.testing.assert_allclose(embeddings(student), before @ turned.T, atol=2e-5)
    # What is turned is not what was there.
    assert (embeddings(student) - before).abs().max() > 0.1


def test_ones_stay_where_they_are() -> None:
    turn = orthogonal(48).double()
    kept = keeping_ones(turn)
    np.testing.assert_allclose(kept.sum(1), np.ones(48), atol=1e-6)
    np.testing.assert_allclose(kept @ kept.T, np.eye(48), atol=1e-6)
    assert torch.linalg.matrix_rank(kept - turn, tol=1e-5) == 1
    np.testing.assert_array_equal(keeping_ones(torch.eye(48).double()), np.eye(48))


def test_a_real_model_begins_near_its_rotated_targets() -> None:
    texts = [f"{one} {other}" for one in ("a dog", "the market", "an engine", "rain") for other in ("runs", "stops")]
    encoder = Encoder.from_pretrained("all-MiniLM-L6-v2", dtype="float32")
    rows = encoder.encode(texts)
    matrix = Rotation.fit(rows, [32, 64, 128, 256]).matrix
    targets = torch.from_numpy(rows @ matrix)
    student = Student.load(StudentStart(model="all-MiniLM-L6-v2"))

    def nearness() -> float:
        with torch.no_grad():
            own = student.embed(student.tokenize(texts, "", 32))
        return float(torch.cosine_similarity(own, targets).mean())

    assert nearness() < 0.2
    turn_states(student, torch.from_numpy(matrix))
    assert nearness() > 0.5


def test_other_architectures_and_dimensions_are_refused(tmp_path: Path) -> None:
    student = load(models.qwen3(tmp_path / "qwen3", end=""))
    with pytest.raises(InputError, match="a qwen3 cannot be turned: only bert, roberta, xlm-roberta can"):
        turn_states(student, orthogonal(models.DIM))
    student = load(models.bert(tmp_path / "bert"))
    with pytest.raises(InputError, match=f"targets have 32 dimensions where the student has {models.DIM}"):
        turn_states(student, orthogonal(32))


def test_targets_that_are_not_rotated_are_refused(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a text"}\n{"text": "another"}\n')
    model = str(models.bert(tmp_path / "bert"))
    settings = check(
        overlay(
            RunSettings(),
            {
                "student": {"model": model, "turn": True},
                "teacher": {"model": model, "cache": str(tmp_path / "cache")},
                "distill": {"steps": 1, "batch": 2},
                "data": [{"path": str(rows)}],
            },
        )
    )
    with pytest.raises(InputError, match=r"no targets are rotated: set teacher\.rotate too"):
        Run(settings, tmp_path / "run", stages=["distill"], show=False).train()
