"""Adapters: what they add, what is trained, and their files as PEFT and both backends read them."""

import json
import warnings
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from models import TEXTS

from jv5kit import Encoder
from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.training import lora
from jv5kit.training.student import Student, StudentStart

KINDS = ["bert", "qwen3", "electra"]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param == "electra":
        vocabulary = models.write_tokenizer(folder, template="[CLS] $A [SEP]")
        return models.random_model(folder, "electra", vocab_size=vocabulary, embedding_size=models.DIM)
    return (models.bert if request.param == "bert" else models.qwen3)(folder)


def adapted(folder: Path, *, rank: int = 4, alpha: float = 6, dropout: float = 0.0, drawn: bool = True) -> Student:
    """A student with an adapter, drawn at random so that it adds something."""
    student = Student.load(StudentStart(model=str(folder))).eval()
    lora.add_adapter(student, rank, alpha, dropout, seed=0)
    if drawn:
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for matrix in lora.adapter_parameters(student):
                matrix.copy_(0.3 * torch.randn(matrix.shape, generator=draw))
    return student


def embeddings(student: Student, texts: list[str] = TEXTS) -> models.Array:
    with torch.no_grad():
        embedded = student.embed(student.tokenize(texts, "", student.max_tokens))
    unit: models.Array = torch.nn.functional.normalize(embedded, dim=1).numpy()
    return unit


def test_it_adds_nothing_at_first(folder: Path) -> None:
    plain = Student.load(StudentStart(model=str(folder))).eval()
    student = adapted(folder, dropout=0.1, drawn=False)
    np.testing.assert_array_equal(embeddings(student.train()), embeddings(plain.train()))


def test_it_alone_is_trained(folder: Path) -> None:
    """With two steps, for the gradient of A is 0 while B is."""
    student = adapted(folder, drawn=False).train()
    before = {name: weight.clone() for name, weight in student.backbone.named_parameters()}
    parameters = lora.adapter_parameters(student)
    starts = [parameter.clone() for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        student.embed(student.tokenize(TEXTS, "", 20)).square().mean().backward()
        optimizer.step()
    assert all(weight.grad is None for weight in student.backbone.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in student.backbone.named_parameters())
    assert not [i for i, (a, b) in enumerate(zip(parameters, starts, strict=True)) if torch.equal(a, b)]
    lora.remove_adapter(student)
    assert all(weight.requires_grad for weight in student.backbone.parameters())


def test_all_linear_layers_are_adapted(folder: Path) -> None:
    """Six a layer in BERT, seven in Qwen3, none outside of the layers."""
    student = adapted(folder)
    each = {"bert": 6, "qwen3": 7, "electra": 6}[student.config["model_type"]]
    assert len(lora.adapter_parameters(student)) == 2 * 2 * each


def test_disabled_and_removed(folder: Path) -> None:
    plain = embeddings(Student.load(StudentStart(model=str(folder))).eval())
    student = adapted(folder)
    with_adapter = embeddings(student)
    assert np.abs(with_adapter - plain).max() > 0.01
    with lora.disabled(student):
        np.testing.assert_array_equal(embeddings(student), plain)
    np.testing.assert_array_equal(embeddings(student), with_adapter)
    lora.remove_adapter(student)
    np.testing.assert_array_equal(embeddings(student), plain)
    with lora.disabled(student):
        np.testing.assert_array_equal(embeddings(student), plain)


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_dropout_leaves_out_a_share_and_keeps_the_mean(share: float, kind: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.ones(999, 333, dtype=kind)
    first, second = lora.dropped(x, share), lora.dropped(x, share)
    assert first.dtype == kind
    assert set(first.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - share), dtype=kind))}
    # Five standard deviations of the share of so many values.
    assert abs(float((first == 0).float().mean()) - share) < 5 * (share * (1 - share) / x.numel()) ** 0.5
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(lora.dropped(x, share), first)


def test_dropout_is_for_training(folder: Path) -> None:
    student = adapted(folder, dropout=0.5)
    np.testing.assert_array_equal(embeddings(student), embeddings(student))
    student.train()
    torch.manual_seed(0)
    first = embeddings(student)
    assert np.abs(first - embeddings(student)).max() > 0.01
    torch.manual_seed(0)
    np.testing.assert_array_equal(first, embeddings(student))


def test_files_are_those_of_peft(folder: Path, tmp_path: Path) -> None:
    """PEFT loads them over transformers, knows every tensor, and gives the same states."""
    from peft import PeftModel
    from transformers import AutoModel

    student = adapted(folder)
    lora.save_adapter(student, tmp_path)
    with warnings.catch_warnings():
        # Of keys that are missing or left over.
        warnings.simplefilter("error", UserWarning)
        model = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), tmp_path).eval()
    theirs = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert len(theirs) == len(lora.adapter_parameters(student))
    tokens = student.tokenize(TEXTS, "", student.max_tokens)
    with torch.no_grad():
        for text, row in zip(tokens, student.embed(tokens), strict=True):
            states = model(input_ids=torch.tensor([text])).last_hidden_state[0]
            torch.testing.assert_close(row, states.mean(0), atol=1e-5, rtol=1e-5)


def test_files_that_peft_writes_are_loaded(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    plain = Student.load(StudentStart(model=str(folder))).eval()
    names = list(plain.backbone.linears())
    config = LoraConfig(r=3, lora_alpha=5, target_modules=names, init_lora_weights=False, use_rslora=True)
    model: Any = get_peft_model(AutoModel.from_pretrained(folder), config).eval()
    model.save_pretrained(tmp_path)
    lora.load_adapter(plain, tmp_path)
    tokens = plain.tokenize(TEXTS[:1], "", 20)
    with torch.no_grad():
        states = model(input_ids=torch.tensor(tokens)).last_hidden_state[0]
        torch.testing.assert_close(plain.embed(tokens)[0], states.mean(0), atol=1e-5, rtol=1e-5)


def test_encoders_and_students_read_them(folder: Path, tmp_path: Path) -> None:
    student = adapted(folder, alpha=6.5, dropout=0.1)
    student.save(tmp_path)
    lora.save_adapter(student, tmp_path / "adapters" / "clustering")
    expected = embeddings(student)
    for backend in ("native", "torch") if student.config["model_type"] != "electra" else ("torch",):
        encoder = Encoder.from_pretrained(tmp_path, backend=backend, dtype="float32")
        np.testing.assert_allclose(encoder.encode(TEXTS, task="clustering"), expected, atol=2e-5)
    again = Student.load(StudentStart(model=str(tmp_path))).eval()
    lora.load_adapter(again, tmp_path / "adapters" / "clustering")
    np.testing.assert_array_equal(embeddings(again), expected)
    assert again.adapter is not None
    assert (again.adapter.rank, again.adapter.alpha, again.adapter.dropout) == (4, 6.5, 0.1)


def test_what_cannot_be_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    student = Student.load(StudentStart(model=str(tiny_model)))
    for call in (lora.adapter_parameters, lora.remove_adapter, lambda s: lora.save_adapter(s, tmp_path)):
        with pytest.raises(InputError, match="the student has no adapter"):
            call(student)
    for rank, alpha, dropout in ((0, 1, 0.0), (4, 0, 0.0), (4, 1, 1.0), (4, 1, -0.1)):
        with pytest.raises(InputError, match=f"rank={rank}, alpha={alpha}, dropout={dropout}"):
            lora.add_adapter(student, rank, alpha, dropout, seed=0)
    lora.add_adapter(student, 4, 4, 0.0, seed=0)
    with pytest.raises(InputError, match="has an adapter; remove it"):
        lora.add_adapter(student, 4, 4, 0.0, seed=0)


def test_an_adapter_of_another_model_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    lora.save_adapter(adapted(models.qwen3(tmp_path / "other")), tmp_path / "adapter")
    student = Student.load(StudentStart(model=str(tiny_model)))
    with pytest.raises(ModelNotFoundError, match="was made for another model"):
        lora.load_adapter(student, tmp_path / "adapter")
    assert student.adapter is None
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        lora.load_adapter(student, tmp_path / "adapter")
