"""The forward passes beside those of sentence-transformers and transformers: every layout, architecture and shape."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import models
import numpy as np
import pytest
from layouts import FOLDERS
from models import TEXTS
from references import assert_same_direction, cosines, embed, pooled, sentence_transformer, token_states
from safetensors.numpy import load_file, save_file

from jv5kit import Encoder, _native
from jv5kit.backends import BackendName, DType, load_backend
from jv5kit.errors import ModelNotFoundError
from jv5kit.pretrained import Pooling, load_checkpoint

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module", params=list(FOLDERS))
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder, and sentence-transformers' model of it."""
    folder = FOLDERS[request.param](tmp_path_factory.mktemp("layouts") / "model")
    return folder, sentence_transformer(folder)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_every_layout_equals_sentence_transformers(layout: tuple[Path, Any], backend: BackendName) -> None:
    folder, theirs = layout
    ours = Encoder.from_pretrained(folder, backend=backend, device="cpu", dtype="float32")
    assert (ours.backend.name, ours.backend.dtype, ours.backend.device) == (backend, "float32", "cpu")
    embeddings = ours.encode(TEXTS)
    assert embeddings.dtype == np.float32
    assert_same_direction(embeddings, theirs.encode(TEXTS, normalize_embeddings=True))
    # The texts are well apart, so that a wrong pooling, cut or order could not pass.
    distinct = [i for i, text in enumerate(TEXTS) if text.strip()]
    assert np.median(embeddings[distinct] @ embeddings[distinct].T) < 0.95

    raw = ours.encode(TEXTS, normalize_embeddings=False)
    np.testing.assert_allclose(raw, theirs.encode(TEXTS), rtol=1e-3, atol=1e-5)
    prompt = "QUERY: a penguin "
    assert_same_direction(ours.encode(TEXTS, prompt=prompt), theirs.encode(TEXTS, prompt=prompt))


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_every_layout_in_bfloat16_is_near(layout: tuple[Path, Any], backend: BackendName) -> None:
    folder, theirs = layout
    ours = Encoder.from_pretrained(folder, backend=backend, device="cpu", dtype="bfloat16")
    assert ours.backend.dtype == "bfloat16"
    embeddings = ours.encode(TEXTS)
    found = cosines(embeddings, theirs.encode(TEXTS, normalize_embeddings=True))
    # Torch rounds queries, keys and values too; instructions for bfloat16 round what they multiply on both sides.
    least, least_mean = (0.999, 0.9999) if backend == "native" else (0.998, 0.9995)
    if backend == "native" and _native.simd_tier()[0] in ("avx512bf16", "amx"):
        least, least_mean = 0.997, 0.9995
    assert found.min() >= least, found
    assert found.mean() >= least_mean, found
    assert not np.array_equal(
        embeddings, Encoder.from_pretrained(folder, backend=backend, dtype="float32").encode(TEXTS)
    )


def test_the_default_model_in_bfloat16_keeps_each_embedding() -> None:
    """What README says of the dtype that is taken where none is named."""
    ours = Encoder.from_pretrained(backend="native", device="cpu")
    if ours.backend.dtype == "float32":
        pytest.skip("the default dtype on this processor is float32")
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if len(line) > 30][:100]
    assert len(lines) == 100
    theirs = Encoder.from_pretrained(backend="native", device="cpu", dtype="float32")
    found = cosines(ours.encode(lines), theirs.encode(lines))
    assert found.min() >= 0.9999, found
    assert found.max() < 1


# Architectures and shapes

SHAPES: dict[str, dict[str, Any]] = {
    "bert": {},
    "bert, heads of 128": {"hidden_size": 128, "num_attention_heads": 1, "intermediate_size": 512},
    "bert, heads of 64": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 260},
    "bert, heads of 32": {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 96},
    "bert, heads of 12": {"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 50, "num_hidden_layers": 3},
    "bert, heads of 13": {"hidden_size": 52, "num_attention_heads": 4, "intermediate_size": 37},
    "bert, heads of 1": {"hidden_size": 7, "num_attention_heads": 7, "intermediate_size": 1, "num_hidden_layers": 1},
    "bert, gelu_new": {"hidden_act": "gelu_new"},
    "bert, relu": {"hidden_act": "relu"},
    "bert, silu": {"hidden_act": "silu", "layer_norm_eps": 1e-3},
    "roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "roberta, padding 3": {"pad_token_id": 3, "hidden_act": "gelu_pytorch_tanh"},
    "xlm-roberta": {"pad_token_id": 1, "layer_norm_eps": 1e-5, "type_vocab_size": 1},
    "eurobert": {},
    "eurobert, heads of 32": {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32},
    "eurobert, heads of 64": {"hidden_size": 100, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64},
    "eurobert, biases": {"attention_bias": True, "mlp_bias": True, "intermediate_size": 100},
    "eurobert, rotary base": {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}, "rms_norm_eps": 1e-3},
    "qwen3": {"head_dim": 16, "num_key_value_heads": 2},
    "qwen3, heads of 32": {"hidden_size": 40, "head_dim": 32, "num_key_value_heads": 4, "intermediate_size": 77},
    "qwen3, heads of 64": {"hidden_size": 128, "head_dim": 64, "num_key_value_heads": 1, "attention_bias": True},
    "qwen3, heads of 128": {"hidden_size": 72, "head_dim": 128, "num_key_value_heads": 2, "hidden_act": "gelu"},
}


def make(folder: Path, name: str, context: int = 96, **settings: Any) -> Path:
    """A model of one of the shapes; its tokenizer is not used."""
    vocabulary = models.write_tokenizer(folder, template="$A", context=context)
    settings = SHAPES[name] | settings
    # RoBERTa's first positions are nobody's.
    positions = context + settings["pad_token_id"] + 1 if "roberta" in name else context
    given = {"vocab_size": vocabulary, "max_position_embeddings": positions, "pad_token_id": 0}
    return models.random_model(folder, name.partition(",")[0], **given | settings)


def tokens_of(lengths: list[int]) -> list[list[int]]:
    """Random tokens, none of them special in any of the models."""
    rng = np.random.default_rng(1)
    return [rng.integers(4, 100, length).tolist() for length in lengths]


def assert_equal_to_transformers(folder: Path, lengths: list[int], dtype: DType = "float32") -> None:
    """Texts of so many tokens in one batch, beside transformers' one after the other."""
    texts = tokens_of(lengths)
    checkpoint = load_checkpoint(folder)
    states = token_states(folder, texts)
    for pooling in get_args(Pooling):
        backend = load_backend(replace(checkpoint, pooling=pooling), "native", dtype=dtype)
        ours, theirs = embed(backend, texts, checkpoint.dim), pooled(states, pooling)
        assert_same_direction(ours, theirs, dtype)
        if dtype == "float32":
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_equals_transformers(tmp_path: Path, name: str) -> None:
    assert_equal_to_transformers(make(tmp_path, name), [1, 2, 90, 7, 31, 32, 33, 64, 3, 1, 95])


@pytest.mark.parametrize("name", ["bert", "roberta", "eurobert", "qwen3"])
def test_lengths_beside_those_of_blocks_equal_transformers(tmp_path: Path, name: str) -> None:
    assert_equal_to_transformers(make(tmp_path, name, context=520), [1, 511, 512, 513, 383, 384, 385, 95, 96, 97, 2])


@pytest.mark.parametrize("name", ["eurobert", "qwen3"])
@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_a_long_text_equals_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, threads: str
) -> None:
    """Longer than what one thread takes alone."""
    monkeypatch.setenv("JV5KIT_THREADS", threads)
    assert_equal_to_transformers(make(tmp_path, name, context=4096), [5, 3000, 5])


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "eurobert", "qwen3"])
def test_bfloat16_is_near_transformers(tmp_path: Path, name: str) -> None:
    # Weights as small as those that are trained.
    folder = make(tmp_path, name, context=520, initializer_range=0.1)
    assert_equal_to_transformers(folder, [1, 2, 90, 7, 31, 32, 33, 64, 512, 3], "bfloat16")


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "eurobert", "qwen3", "qwen3, heads of 128"])
def test_what_the_configuration_leaves_out_is_as_in_transformers(tmp_path: Path, name: str) -> None:
    """A `config.json` may have sizes alone."""
    sizes = "hidden_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size vocab_size"
    kept = {"model_type", "max_position_embeddings", *sizes.split()}
    # Where they are not those that are left out.
    kept |= {"eurobert": {"pad_token_id"}, "qwen3": {"head_dim"}}.get(name, set())
    folder = make(tmp_path, name, type_vocab_size=2)
    config = json.loads((folder / "config.json").read_text())
    models.write_json(folder / "config.json", {key: config[key] for key in kept & set(config)})
    assert_equal_to_transformers(folder, [1, 2, 90, 7])


@pytest.mark.parametrize(("name", "prefix"), [("bert", "bert."), ("roberta", "roberta."), ("qwen3", "model.")])
def test_tensors_may_be_named_as_in_a_model_with_a_head(tmp_path: Path, name: str, prefix: str) -> None:
    folder = make(tmp_path, name)
    texts = tokens_of([1, 20, 3])
    before = embed(load_backend(load_checkpoint(folder), "native"), texts, 64)
    tensors = load_file(folder / "model.safetensors")
    renamed = {prefix + key: tensor for key, tensor in tensors.items()}
    head = "cls.predictions.bias" if name == "bert" else "lm_head.weight"
    save_file(renamed | {head: np.zeros(3, np.float32)}, folder / "model.safetensors")
    np.testing.assert_array_equal(embed(load_backend(load_checkpoint(folder), "native"), texts, 64), before)


def test_a_text_of_more_tokens_than_positions_is_refused(tmp_path: Path) -> None:
    """The encoder cuts; what comes past it must not read past the table."""
    for name, most in (("bert", 96), ("roberta", 96)):
        folder = make(tmp_path / name, name)
        backend = load_backend(load_checkpoint(folder), "native")
        embed(backend, tokens_of([most]), 64)
        with pytest.raises(ModelNotFoundError, match=f"a text has {most + 1} tokens, more than .* positions, {most}"):
            embed(backend, tokens_of([2, most + 1]), 64)
