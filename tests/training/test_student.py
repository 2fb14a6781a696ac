"""The student: what it starts from, what it makes of texts, and what is saved of it."""

import json
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from models import TEXTS

from jv5kit import Encoder
from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.pretrained import Pooling
from jv5kit.training.student import Student, StudentStart

PROMPTS = {"query": "Query: ", "document": "Document: "}


def embeddings(student: Student, texts: list[str] = TEXTS, prompt: str = "") -> models.Array:
    """Of unit length, as an encoder gives them."""
    with torch.no_grad():
        embedded = student.embed(student.tokenize(texts, prompt, student.max_tokens))
    unit: models.Array = torch.nn.functional.normalize(embedded, dim=1).numpy()
    return unit


def load(model: Path, **options: Any) -> Student:
    return Student.load(StudentStart(model=str(model), **options)).eval()


@pytest.fixture(scope="module", params=["bert", "qwen3", "eurobert", "xlm-roberta", "electra"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each architecture, ELECTRA through transformers; Qwen3's texts have no special token."""
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param == "bert":
        return models.bert(folder)
    if request.param == "qwen3":
        return models.qwen3(folder, end="")
    vocabulary = models.write_tokenizer(folder, template="[CLS] $A [SEP]")
    settings: dict[str, Any] = {
        "eurobert": {"num_key_value_heads": 4, "pad_token_id": 0},
        "xlm-roberta": {"max_position_embeddings": models.CONTEXT + 2, "pad_token_id": 0, "type_vocab_size": 1},
        "electra": {"embedding_size": models.DIM},
    }[request.param]
    return models.random_model(folder, request.param, vocab_size=vocabulary, **settings)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_embeddings_are_the_encoder_s(folder: Path, pooling: Pooling, tmp_path: Path) -> None:
    student = load(folder, pooling=pooling, prompts=PROMPTS)
    student.save(tmp_path / "saved")
    encoder = Encoder.from_pretrained(tmp_path / "saved", dtype="float32")
    assert encoder.checkpoint.pooling == pooling
    assert (encoder.checkpoint.prompts, encoder.checkpoint.default_prompt_name) == (PROMPTS, "document")
    np.testing.assert_allclose(embeddings(student, prompt="Query: "), encoder.encode_query(TEXTS), atol=1e-5)
    again = load(tmp_path / "saved")
    np.testing.assert_array_equal(embeddings(again), embeddings(student))


def test_what_is_saved_loads_in_sentence_transformers(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    student = load(folder, pooling="lasttoken", prompts=PROMPTS)
    student.save(tmp_path)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    assert model.max_seq_length == models.CONTEXT
    texts = [text for text in TEXTS if text.strip()]
    encoded = model.encode(texts, prompt_name="query")
    # What is left of the difference is its padding on the left.
    np.testing.assert_allclose(embeddings(student, texts, "Query: "), encoded, atol=1e-5)


def test_a_gradient_reaches_every_weight(folder: Path) -> None:
    student = load(folder)
    embedded = student.embed(student.tokenize(TEXTS, "", 50))
    assert (embedded.dtype, tuple(embedded.shape)) == (torch.float32, (len(TEXTS), models.DIM))
    embedded.square().sum().backward()
    lacking = [name for name, weight in student.backbone.named.named_parameters() if weight.grad is None]
    assert not [name for name in lacking if not name.startswith("pooler.")]
    assert student.embed([]).shape == (0, models.DIM)


def test_the_order_of_the_texts_does_not_matter(tiny_model: Path) -> None:
    student = load(tiny_model)
    forward, backward = embeddings(student), embeddings(student, TEXTS[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-6)


def test_texts_are_cut(tiny_model: Path) -> None:
    student = load(tiny_model)
    tokens = student.tokenize(TEXTS, "Query: ", 10)
    assert max(map(len, tokens)) == 10
    assert tokens[0][-1] == tokens[2][-1], "the closing token stays"
    assert max(map(len, student.tokenize(TEXTS, "", models.CONTEXT))) == models.CONTEXT
    with pytest.raises(InputError, match=f"length=97; the student reads 1 to {models.CONTEXT} tokens"):
        student.tokenize(TEXTS, "", 97)


def test_a_token_beyond_the_vocabulary_is_an_error(tiny_model: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="gives the token 9999, but its vocabulary ends at"):
        load(tiny_model).embed([[1, 9999]])


# Starts


def test_chosen_layers(tmp_path: Path) -> None:
    """The first and the last of four, in either order, are those of the whole model."""
    vocabulary = models.write_tokenizer(tmp_path / "whole", template="[CLS] $A [SEP]")
    models.random_model(tmp_path / "whole", "bert", vocab_size=vocabulary, num_hidden_layers=4)
    whole, student = load(tmp_path / "whole"), load(tmp_path / "whole", layers=(3, 0))
    assert student.config["num_hidden_layers"] == 2
    theirs, ours = (dict(model.backbone.named_parameters()) for model in (whole, student))
    for name, weight in ours.items():
        name = name.replace("layer.0.", "layer.x.").replace("layer.1.", "layer.0.").replace("layer.x.", "layer.3.")
        assert torch.equal(weight, theirs[name]), name
    student.save(tmp_path / "saved")
    np.testing.assert_allclose(
        Encoder.from_pretrained(tmp_path / "saved", dtype="float32").encode(TEXTS), embeddings(student), atol=1e-5
    )
    for wrong in ((0, 4), (-1,), (1, 1)):
        with pytest.raises(InputError, match=r"layers=\[.*\]; each must be one of the model's, 0 to 3, and named once"):
            load(tmp_path / "whole", layers=wrong)


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_a_pruned_feed_forward_keeps_what_counts(tmp_path: Path, kind: str) -> None:
    """Neurons that add nothing, because nothing comes out of them, are those that go."""
    folder = (models.bert if kind == "bert" else models.qwen3)(tmp_path / "whole")
    down = "output.dense.weight" if kind == "bert" else "mlp.down_proj.weight"
    tensors = models.tensors_of(folder)
    rng = np.random.default_rng(0)
    for name, tensor in tensors.items():
        if name.endswith(down) and "attention" not in name:
            tensor[:, rng.choice(128, 78, replace=False)] = 0
    models.write_tensors(folder / "model.safetensors", tensors)
    whole, student = load(folder), load(folder, feed_forward=50)
    assert student.config["intermediate_size"] == 50
    count = [sum(p.numel() for p in model.backbone.parameters()) for model in (whole, student)]
    assert count[1] < count[0]
    np.testing.assert_allclose(embeddings(student), embeddings(whole), atol=1e-5)
    # One neuron fewer, and one that counts goes.
    assert np.abs(embeddings(load(folder, feed_forward=49)) - embeddings(whole)).max() > 1e-4
    with pytest.raises(InputError, match="feed_forward=129; the model's feed-forward blocks have 128 neurons"):
        load(folder, feed_forward=129)


@pytest.mark.parametrize("kind", ["bert", "qwen3", "eurobert", "electra"])
def test_from_scratch(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    config = {
        "model_type": kind,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "embedding_size": 32,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    options: dict[str, Any] = {"config": config, "tokenizer": str(tiny_model), "prompts": PROMPTS}
    first, same, other = (Student.load(StudentStart(**options, seed=seed)).eval() for seed in (0, 0, 1))
    assert (first.dim, first.max_tokens, first.pooling) == (32, 64, "mean")
    np.testing.assert_array_equal(embeddings(first), embeddings(same))
    assert np.abs(embeddings(first) - embeddings(other)).max() > 0.01
    first.save(tmp_path)
    encoder = Encoder.from_pretrained(tmp_path, dtype="float32")
    np.testing.assert_allclose(embeddings(first, prompt="Query: "), encoder.encode_query(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a student starts from a model or, from scratch, from a config; give one of the two"),
        ({"model": "x", "config": {}}, "give one of the two"),
        ({"config": {"model_type": "bert"}}, "a student from scratch needs a tokenizer"),
        ({"config": {}, "tokenizer": "x", "layers": (1,)}, "layers and feed_forward choose from a model's weights"),
        ({"model": "x", "max_tokens": 0}, "max_tokens=0; it must be above 0"),
        ({"model": "x", "rope_theta": -1.0}, r"rope_theta=-1.0; it must be above 0"),
    ],
)
def test_a_start_that_contradicts_itself_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudentStart(**options)


def test_what_a_model_does_not_have_is_named(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="max_tokens=97; the model has positions for 96"):
        load(tiny_model, max_tokens=97)
    with pytest.raises(InputError, match="rope theta is set for a bert, which has no rotary positions"):
        load(tiny_model, rope_theta=10.0)
    with pytest.raises(InputError, match="rope theta 10 is set for a bert"):
        load(tiny_model).set_rope_theta(10)


@pytest.mark.parametrize("change", ["lack", "extra", "shape"])
def test_weights_that_do_not_fit_are_named(model_copy: Path, change: str) -> None:
    tensors = models.tensors_of(model_copy)
    name = "encoder.layer.0.output.dense.bias"
    if change == "lack":
        del tensors[name]
    elif change == "extra":
        tensors["encoder.layer.7.output.dense.bias"] = tensors[name]
    else:
        tensors[name] = tensors[name][:-1].copy()
    models.write_tensors(model_copy / "model.safetensors", tensors)
    problem = {
        "lack": "lack encoder",
        "extra": "belongs to no layer: encoder.layer.7",
        "shape": "another shape .* encoder",
    }
    with pytest.raises(ModelNotFoundError, match=problem[change]):
        load(model_copy)


# Rotary positions


@pytest.fixture(params=["qwen3", "eurobert"])
def rotary(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "qwen3":
        return models.qwen3(tmp_path / "model")
    vocabulary = models.write_tokenizer(tmp_path / "model", template="$A [SEP]")
    return models.random_model(
        tmp_path / "model", "eurobert", vocab_size=vocabulary, num_key_value_heads=4, pad_token_id=0
    )


def test_the_base_is_low_in_training_and_high_after_it(rotary: Path, tmp_path: Path) -> None:
    """Both are saved and honoured: by this package in both modes, by every other library at inference."""
    from sentence_transformers import SentenceTransformer
    from transformers import AutoConfig

    plain = load(rotary, pooling="mean")
    student = load(rotary, pooling="mean", rope_theta=500.0, training_rope_theta=20.0, max_tokens=300)
    inference, training = embeddings(student), embeddings(student.train())
    apart = [np.abs(a - b).max() for a, b in ((inference, training), (inference, embeddings(plain)))]
    assert min(apart) > 1e-3
    saved = tmp_path / "saved"
    student.save(saved)
    assert json.loads((saved / "config.json").read_text())["training_rope_theta"] == 20.0
    assert AutoConfig.from_pretrained(saved).rope_parameters["rope_theta"] == 500.0
    again = load(saved)
    assert (again.max_tokens, again.training_theta) == (300, 20.0)
    np.testing.assert_array_equal(embeddings(again), inference)
    np.testing.assert_array_equal(embeddings(again.train()), training)
    for backend in ("native", "torch"):
        encoder = Encoder.from_pretrained(saved, backend=backend, dtype="float32")
        assert encoder.checkpoint.max_tokens == 300
        np.testing.assert_allclose(encoder.encode(TEXTS), inference, atol=1e-5)
    encoded = SentenceTransformer(str(saved), device="cpu").encode(["penguin " * 250])
    np.testing.assert_allclose(encoded, embeddings(again.eval(), ["penguin " * 250]), atol=1e-5)


def test_the_base_of_training_may_change_in_a_run(rotary: Path, tmp_path: Path) -> None:
    student = load(rotary)
    before = embeddings(student)
    student.set_rope_theta(20.0)
    np.testing.assert_array_equal(embeddings(student), before)
    after = embeddings(student.train())
    assert np.abs(after - before).max() > 1e-3
    student.save(tmp_path / "saved")
    np.testing.assert_array_equal(embeddings(load(tmp_path / "saved").train()), after)
