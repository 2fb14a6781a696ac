"""The packed forward pass against transformers': states and gradients."""

import json
import math
import weakref
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from jv5kit.errors import InputError
from jv5kit.training import attention, blocks
from jv5kit.training.attention import Layout
from jv5kit.training.packed import ROUND, PackedModel

LENGTHS = [7, 1, 33, 7, 7, 96, 2, 33]
"""Alike and not, as neighbors and not, one of a single token and one that fills the context."""

KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "bert-relu": {"hidden_act": "relu", "layer_norm_eps": 1e-3, "type_vocab_size": 1},
    "roberta": {"max_position_embeddings": models.CONTEXT + 2, "type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": {"max_position_embeddings": models.CONTEXT + 4, "type_vocab_size": 1, "pad_token_id": 3},
    "eurobert": {"pad_token_id": 0, "num_key_value_heads": 4, "rope_theta": 250_000.0},
    "eurobert-shared": {"pad_token_id": 0, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 48},
    "qwen3-own": {"num_key_value_heads": 4, "head_dim": 16, "attention_bias": True, "hidden_act": "gelu_new"},
}
VOCABULARY = 120


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PackedModel, Any]:
    """A packed model, and transformers' of the same weights."""
    folder = tmp_path_factory.mktemp("packed")
    kind = request.param.partition("-")[0] if request.param not in ("xlm-roberta",) else request.param
    models.random_model(folder, kind, vocab_size=VOCABULARY, **KINDS[request.param])
    return packed(folder), theirs(folder)


def packed(folder: Path) -> PackedModel:
    model = PackedModel(json.loads((folder / "config.json").read_text()))
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")})
    return model


def theirs(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


def some_tokens(lengths: list[int] = LENGTHS) -> Tensor:
    # From 4 on: none is a padding token, which RoBERTa would not count.
    return torch.randint(4, VOCABULARY, (sum(lengths),), generator=torch.Generator().manual_seed(0))


def one_by_one(model: Any, tokens: Tensor, lengths: list[int]) -> Tensor:
    return torch.cat([model(input_ids=text[None]).last_hidden_state[0] for text in tokens.split(lengths)])


def test_states_are_those_of_transformers(pair: tuple[PackedModel, Any]) -> None:
    ours, reference = pair
    tokens = some_tokens()
    with torch.no_grad():
        states, expected = ours(tokens, LENGTHS), one_by_one(reference, tokens, LENGTHS)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_transformers(pair: tuple[PackedModel, Any]) -> None:
    """Of every tensor, relative to its largest value; that of a bias of keys is 0 but for rounding."""
    ours, reference = pair
    tokens = some_tokens()
    weights = torch.randn(len(tokens), models.DIM, generator=torch.Generator().manual_seed(1))
    for model, states in ((ours, ours(tokens, LENGTHS)), (reference, one_by_one(reference, tokens, LENGTHS))):
        model.zero_grad()
        (states * weights).sum().backward()
    named = dict(reference.named_parameters())
    noise = 1e-6 * max(
        float(parameter.grad.abs().max()) for parameter in ours.parameters() if parameter.grad is not None
    )
    assert {name for name in named if not name.startswith("pooler.")} == {name for name, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        expected = named[name].grad
        assert parameter.grad is not None
        assert expected.abs().max() > 0, f"{name} has a gradient"
        within = max(1e-4 * float(expected.abs().max()), noise)
        torch.testing.assert_close(parameter.grad, expected, atol=within, rtol=1e-4)


def test_a_text_does_not_see_its_neighbors(pair: tuple[PackedModel, Any]) -> None:
    ours, _ = pair
    tokens = some_tokens()
    with torch.no_grad():
        states = ours(tokens, LENGTHS)
        changed = tokens.clone()
        changed[: LENGTHS[0]] = 5
        others = ours(changed, LENGTHS)
    assert not torch.equal(states[: LENGTHS[0]], others[: LENGTHS[0]])
    torch.testing.assert_close(states[LENGTHS[0] :], others[LENGTHS[0] :], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_bfloat16_by_autocast_is_near(tmp_path: Path, kind: str) -> None:
    models.random_model(tmp_path, kind, vocab_size=VOCABULARY, **KINDS[kind])
    model = packed(tmp_path)
    tokens = some_tokens()
    states = model(tokens, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(tokens, LENGTHS)
    low.float().square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not torch.equal(states, low.float())
    assert torch.cosine_similarity(states, low.float()).min() > 0.99


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_tokens_that_fill_up_a_round_number_change_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.random_model(tmp_path, kind, vocab_size=VOCABULARY, **KINDS[kind])
    found = []
    for number in (ROUND, 1):
        monkeypatch.setattr("jv5kit.training.packed.ROUND", number)
        model = packed(tmp_path)
        with torch.autocast("cpu", torch.bfloat16):
            states = model(some_tokens(), LENGTHS)
        assert states.shape == (sum(LENGTHS), model.dim)
        (states * torch.linspace(-1, 1, model.dim)).sum().backward()
        found.append((states.detach(), {name: one.grad for name, one in model.named_parameters()}))
    (states, gradients), (others, other_gradients) = found
    torch.testing.assert_close(states, others, atol=0.02, rtol=0.02)
    for name, gradient in gradients.items():
        other = other_gradients[name]
        assert gradient is not None and other is not None
        assert torch.linalg.norm(gradient - other) <= 0.02 * torch.linalg.norm(other), name


def test_attention_of_a_cpu_is_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> Tensor:
        seen.append((query.dtype, torch.is_autocast_enabled("cpu")))
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", spy)
    heads = torch.randn(10, 2, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        attended = attention.attend(heads, heads, heads, Layout([4, 6], heads.device), causal=False)
    assert seen == [(torch.float32, False)] * 2
    assert attended.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_wide_tensors_are_kept_once(
    pair: tuple[PackedModel, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes into the activation is kept for the gradient; what comes out of it is made again."""
    model, _ = pair
    wide: dict[int, Tensor] = {}
    count = sum(LENGTHS) if dtype == torch.float32 else math.ceil(sum(LENGTHS) / ROUND) * ROUND

    def keep(kept: Any) -> Any:
        if isinstance(kept, Tensor) and kept.shape == (count, model.shape.intermediate):
            wide[kept.data_ptr()] = kept
        return kept

    def hooks(pack: Any, unpack: Any) -> saved_tensors_hooks:
        return saved_tensors_hooks(lambda tensor: keep(pack(tensor)), unpack)

    monkeypatch.setattr(blocks, "saved_tensors_hooks", hooks)
    with (
        saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        model(some_tokens(), LENGTHS)
    gated = model.architecture.names.gate is not None
    assert len(wide) == model.shape.layers * (2 if gated else 1)
    assert {tensor.dtype for tensor in wide.values()} == {dtype}


def test_what_is_made_again_is_let_go() -> None:
    read = torch.linspace(-1, 1, 12).requires_grad_()
    wide = read.exp()
    with blocks.made_again(wide, lambda: read.detach().exp()):
        written = wide.square()
    kept = weakref.ref(wide)
    del wide
    assert kept() is None
    written.sum().backward()
    torch.testing.assert_close(read.grad, 2 * (2 * read.detach()).exp())


def test_the_kernel_for_gpus_takes_what_it_is_given() -> None:
    """As far as can be seen without a GPU: its names and shapes, forward and backward, on tensors without values."""
    fused = attention._varlen()
    if fused is None:
        pytest.skip("this torch has no attention over texts of any lengths")
    layout = Layout([3, 4, 4, 9], torch.device("cpu"))
    with FakeTensorMode():
        query = torch.empty(20, 4, 32, dtype=torch.bfloat16, requires_grad=True)
        key = torch.empty(20, 2, 32, dtype=torch.bfloat16, requires_grad=True)
        attended = fused(query, key, key, layout, True)
        assert attended.shape == query.shape
        attended.sum().backward()
        assert query.grad is not None
        assert key.grad is not None
        assert (query.grad.shape, key.grad.shape) == (query.shape, key.shape)


def test_weights_are_drawn_by_seed() -> None:
    config = {
        "model_type": "bert",
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 16,
    }
    first, same, other = (PackedModel(config) for _ in range(3))
    for model, seed in ((first, 0), (same, 0), (other, 1)):
        model.initialize(seed)
    for (name, a), b, c in zip(first.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        if a.ndim == 2:
            assert not torch.equal(a, c)
            assert 0.015 < a.std().item() < 0.025, name
    assert torch.isfinite(first(torch.arange(10), [4, 6])).all()


def test_the_base_of_rotary_positions_can_be_set(tmp_path: Path) -> None:
    models.random_model(tmp_path, "qwen3", vocab_size=VOCABULARY, rope_theta=500.0, **KINDS["qwen3"])
    model, reference = packed(tmp_path), theirs(tmp_path)
    assert model.theta == 500.0
    tokens = some_tokens()
    with torch.no_grad():
        expected = one_by_one(reference, tokens, LENGTHS)
        model.set_rope_theta(20.0)
        assert (model(tokens, LENGTHS) - expected).abs().max() > 0.01
        model.set_rope_theta(500.0)
        torch.testing.assert_close(model(tokens, LENGTHS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mystery"}, "has the model_type 'mystery'; the packed forward pass knows bert, "),
        ({"is_decoder": True}, "has is_decoder True in config.json"),
        ({"hidden_act": "tanh"}, "has hidden_act 'tanh'"),
        ({"num_attention_heads": 3}, "has 3 attention heads .* do not divide"),
        ({"hidden_size": None}, "has hidden_size None"),
        ({"layer_norm_eps": 0}, "has layer_norm_eps 0 in config.json; it must be a number above 0"),
        ({"model_type": "qwen3", "rope_parameters": {"rope_type": "yarn"}}, "has rope_parameters.rope_type 'yarn'"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "has use_sliding_window True"),
    ],
)
def test_what_cannot_run_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    models.random_model(tmp_path, "bert", vocab_size=VOCABULARY)
    config = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(InputError, match=message):
        PackedModel(config | change)


def test_wrong_lengths_are_an_error(pair: tuple[PackedModel, Any]) -> None:
    ours, _ = pair
    with pytest.raises(InputError, match="lengths sum to 3 for 4 tokens"):
        ours(some_tokens([4]), [3])
    with pytest.raises(InputError, match="each must be at least 1"):
        ours(some_tokens([4]), [4, 0])
    if ours.shape.positions:
        room = ours.shape.positions - ours.shape.first_position
        with pytest.raises(InputError, match=f"a text has {room + 1} tokens; the model has positions for {room}"):
            ours(some_tokens([room + 1]), [room + 1])
    with pytest.raises(InputError, match="rope theta 10 is set for a bert"):
        PackedModel(_tiny_bert()).set_rope_theta(10)


def _tiny_bert() -> dict[str, Any]:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return {"model_type": "bert", "vocab_size": 9, "max_position_embeddings": 8, **sizes}
