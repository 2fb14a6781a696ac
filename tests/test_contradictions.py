"""Native models whose weights and configuration do not agree, or hold what is no number: named, never run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from models import TEXTS, Array, tensors_of, write_tensors
from test_backends import configure

from jv5kit import Encoder
from jv5kit.backends import BackendName
from jv5kit.errors import ModelNotFoundError


def load(folder: Path) -> Encoder:
    return Encoder.from_pretrained(folder, backend="native")


WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"
QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    "name",
    [WORDS, POSITIONS, TYPES, "embeddings.LayerNorm.bias", QUERY, "encoder.layer.0.output.LayerNorm.weight"],
)
def test_a_tensor_that_is_missing_is_named(model_copy: Path, name: str) -> None:
    tensors = tensors_of(model_copy)
    del tensors[name]
    write_tensors(model_copy / "model.safetensors", tensors)
    with pytest.raises(ModelNotFoundError, match=f"cannot be loaded: its weights lack {name}$"):
        load(model_copy)


@pytest.mark.parametrize(
    "name",
    ["embeddings.extra.weight", "encoder.layer.2.output.dense.weight", "encoder.layer.0.attention.self.query.lora"],
)
def test_a_tensor_too_many_is_named(model_copy: Path, name: str) -> None:
    write_tensors(model_copy / "model.safetensors", tensors_of(model_copy) | {name: np.zeros(3, np.float32)})
    with pytest.raises(ModelNotFoundError, match=f"its weights have {name}, which config.json knows nothing of"):
        load(model_copy)


@pytest.mark.parametrize(
    ("name", "change", "shapes"),
    [
        (WORDS, lambda t: t[:7], r"\[7, 64\], where config.json asks for \[\d+, 64\]"),
        (POSITIONS, lambda t: t[:, :63], r"\[96, 63\], where config.json asks for \[96, 64\]"),
        (QUERY, lambda t: t.reshape(-1), r"\[4096\], where config.json asks for \[64, 64\]"),
        (QUERY, lambda t: t[None], r"\[1, 64, 64\], where config.json asks for \[64, 64\]"),
        ("encoder.layer.1.output.dense.weight", lambda t: t.T, r"\[128, 64\], where config.json asks for \[64, 128\]"),
        ("encoder.layer.1.output.dense.bias", lambda t: t[:1], r"\[1\], where config.json asks for \[64\]"),
        ("encoder.layer.1.output.LayerNorm.bias", lambda t: t[:0], r"\[0\], where config.json asks for \[64\]"),
    ],
)
def test_a_tensor_of_another_shape_is_named(
    model_copy: Path, name: str, change: Callable[[Array], Array], shapes: str
) -> None:
    tensors = tensors_of(model_copy)
    write_tensors(model_copy / "model.safetensors", tensors | {name: np.ascontiguousarray(change(tensors[name]))})
    with pytest.raises(ModelNotFoundError, match=f"{name} has the shape {shapes}"):
        load(model_copy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_hidden_layers": 3}, r"its weights lack encoder\.layer\.2\.attention\.self\.query\.weight"),
        ({"num_hidden_layers": 16_000_000}, r"its weights lack encoder\.layer\.2\.attention\.self\.query\.weight"),
        ({"num_hidden_layers": 1}, r"its weights have encoder\.layer\.1\.\S+, which config\.json knows nothing of"),
        ({"hidden_size": 32}, rf"{WORDS} has the shape \[\d+, 64\], where config\.json asks for \[\d+, 32\]"),
        ({"intermediate_size": 96}, r"encoder\.layer\.0\.intermediate\.dense\.weight has the shape \[128, 64\]"),
        ({"vocab_size": 30_000}, rf"{WORDS} has the shape .* where config\.json asks for \[30000, 64\]"),
        ({"max_position_embeddings": 512}, rf"{POSITIONS} has the shape \[96, 64\]"),
        ({"type_vocab_size": 1}, rf"{TYPES} has the shape \[2, 64\]"),
    ],
)
def test_a_configuration_of_another_model_is_named(model_copy: Path, settings: dict[str, object], message: str) -> None:
    configure(model_copy, **settings)
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        load(model_copy)
    assert str(caught.value).startswith(f"model '{model_copy}' cannot be loaded: ")


# What is no number


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "row"),
    [
        (QUERY, 5),
        ("encoder.layer.0.intermediate.dense.weight", 127),
        ("encoder.layer.1.output.dense.weight", 63),
        ("encoder.layer.0.attention.self.value.bias", 0),
        ("encoder.layer.1.output.LayerNorm.weight", 0),
        ("embeddings.LayerNorm.bias", 0),
        (TYPES, 0),
    ],
)
def test_a_value_that_is_no_number_is_named(model_copy: Path, name: str, row: int, value: float) -> None:
    tensors = tensors_of(model_copy)
    tensors[name][row if tensors[name].ndim == 2 else 3, ...] = value
    write_tensors(model_copy / "model.safetensors", tensors)
    shown = "NaN" if np.isnan(value) else str(value)
    with pytest.raises(ModelNotFoundError, match=f"{name} has the value {shown} in row {row}"):
        load(model_copy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_in_the_row_of_a_token_is_found_when_a_text_has_it(model_copy: Path, value: float) -> None:
    whole = load(model_copy).encode(["a bird", "the sea"])
    tensors = tensors_of(model_copy)
    token = load(model_copy)._tokenizer.token_to_id("penguin")
    tensors[WORDS][token, 17] = value
    # The last position that a text may have.
    tensors[POSITIONS][-1] = value
    write_tensors(model_copy / "model.safetensors", tensors)
    encoder = load(model_copy)
    np.testing.assert_array_equal(encoder.encode(["a bird", "the sea"]), whole)
    message = "the embedding of a text of 4 tokens has values that are no numbers; so have its weights"
    for options in ({}, {"precision": "ubinary"}, {"truncate_dim": 5}, {"normalize_embeddings": False}):
        with pytest.raises(ModelNotFoundError, match=message):
            encoder.encode(["a bird", "a penguin"], **options)
    with pytest.raises(ModelNotFoundError, match="the embedding of a text of 96 tokens"):
        encoder.encode(["a bird", "sea " * 94])
    np.testing.assert_array_equal(encoder.encode(["a bird", "the sea"]), whole)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_weights_whose_products_overflow_are_found(model_copy: Path, backend: BackendName) -> None:
    tensors = tensors_of(model_copy)
    tensors[QUERY] *= np.float32(1e38 / np.abs(tensors[QUERY]).max())
    tensors["encoder.layer.1.attention.self.key.weight"] *= np.float32(1e36)
    write_tensors(model_copy / "model.safetensors", tensors)
    with pytest.raises(ModelNotFoundError, match="values that are no numbers"):
        Encoder.from_pretrained(model_copy, backend=backend).encode(TEXTS)
