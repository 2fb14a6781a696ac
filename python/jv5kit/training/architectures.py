"""The architectures of the packed forward pass, as rows of one table: the twin of rust/model/architecture.rs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names of a model's tensors, without ``.weight`` and ``.bias``; those of a layer without its number."""

    tokens: str
    positions: str | None = None
    types: str | None = None
    embedding_norm: str | None = None
    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    head_norms: tuple[str, str] | None = None
    attention_norm: str
    gate: str | None = None
    up: str
    down: str
    feed_forward_norm: str
    final_norm: str | None = None

    @property
    def linears(self) -> tuple[str, ...]:
        """The linear layers of a layer: what an adapter adapts."""
        names = (self.query, self.key, self.value, self.attention_output, self.gate, self.up, self.down)
        return tuple(name for name in names if name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How a model reads its texts, where its tensors are and what its ``config.json`` calls things.

    Attributes:
        name: ``model_type`` in ``config.json``.
        model_class: transformers' class of the model without a head.
        prefixes: what may stand before the names of the tensors.
        ignored: beginnings of the names of tensors that an embedding does not need.
        epsilon: the setting with the norms' epsilon, and what it is where ``config.json`` names none.
        post_norm: norms (with mean and bias) after each block, on its sum with the residual; else norms of the root of
            the mean square before it.
        causal: a token sees only those up to itself.
        theta: rotary positions, and their base where ``config.json`` names none; None for a table of positions.
        positions_after_padding: the first position is the padding token's id + 1.
        bias: every linear layer has a bias; else ``attention_bias`` and ``mlp_bias`` say so.
        activation: ``hidden_act`` where ``config.json`` names none.
        requires: settings that would change the result in ways not known here, and the value that does not.
        names: of its tensors.
    """

    name: str
    model_class: str
    prefixes: tuple[str, ...]
    ignored: tuple[str, ...]
    epsilon: tuple[str, float]
    post_norm: bool
    causal: bool = False
    theta: float | None = None
    positions_after_padding: bool = False
    bias: bool
    activation: str
    requires: Mapping[str, Any] = field(default_factory=dict)
    names: Names


BERT = Architecture(
    name="bert",
    model_class="BertModel",
    prefixes=("bert.",),
    ignored=("pooler.", "cls.", "embeddings.position_ids"),
    epsilon=("layer_norm_eps", 1e-12),
    post_norm=True,
    bias=True,
    activation="gelu",
    requires={"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False},
    names=Names(
        tokens="embeddings.word_embeddings",
        positions="embeddings.position_embeddings",
        types="embeddings.token_type_embeddings",
        embedding_norm="embeddings.LayerNorm",
        layer="encoder.layer.",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        up="intermediate.dense",
        down="output.dense",
        feed_forward_norm="output.LayerNorm",
    ),
)
"""MiniLM, bge, e5 and gte are made so."""

ROBERTA = replace(
    BERT,
    name="roberta",
    model_class="RobertaModel",
    prefixes=("roberta.",),
    ignored=("pooler.", "lm_head.", "embeddings.position_ids"),
    positions_after_padding=True,
)

XLM_ROBERTA = replace(ROBERTA, name="xlm-roberta", model_class="XLMRobertaModel")
"""RoBERTa of many languages: multilingual e5, bge-m3."""

EUROBERT = Architecture(
    name="eurobert",
    model_class="EuroBertModel",
    prefixes=("model.",),
    ignored=("lm_head.",),
    epsilon=("rms_norm_eps", 1e-5),
    post_norm=False,
    theta=10_000.0,
    bias=False,
    activation="silu",
    requires={
        "rope_scaling.rope_type": "default",
        "rope_scaling.type": "default",
        "rope_parameters.rope_type": "default",
        "rope_parameters.partial_rotary_factor": 1.0,
    },
    names=Names(
        tokens="embed_tokens",
        layer="layers.",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        attention_output="self_attn.o_proj",
        attention_norm="input_layernorm",
        gate="mlp.gate_proj",
        up="mlp.up_proj",
        down="mlp.down_proj",
        feed_forward_norm="post_attention_layernorm",
        final_norm="norm",
    ),
)

QWEN3 = replace(
    EUROBERT,
    name="qwen3",
    model_class="Qwen3Model",
    epsilon=("rms_norm_eps", 1e-6),
    causal=True,
    requires={**EUROBERT.requires, "use_sliding_window": False, "is_causal": True},
    names=replace(EUROBERT.names, head_norms=("self_attn.q_norm", "self_attn.k_norm")),
)

ARCHITECTURES = {row.name: row for row in (BERT, ROBERTA, XLM_ROBERTA, EUROBERT, QWEN3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's numbers.

    Attributes:
        positions: rows of the table of positions, 0 if there is none.
        first_position: the first of them that is used.
        types: rows of the table of token types, 0 if there is none.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int
    epsilon: float
    activation: str
    theta: float | None
    positions: int
    first_position: int
    types: int
    attention_bias: bool
    feed_forward_bias: bool
    deviation: float


KNOWN_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "swish", "relu")


def why_not_packed(config: Mapping[str, Any]) -> str | None:
    """Why a model cannot run packed, as the end of a sentence that begins with the model; None if it can."""
    row = ARCHITECTURES.get(str(config.get("model_type")))
    if row is None:
        return (
            f"has the model_type {config.get('model_type')!r}; the packed forward pass knows {', '.join(ARCHITECTURES)}"
        )
    for name, required in row.requires.items():
        value = _setting(config, name)
        if value is not None and value != required:
            return f"has {name} {value!r} in config.json, which the packed forward pass cannot run"
    activation = config.get("hidden_act", row.activation)
    if activation not in KNOWN_ACTIVATIONS:
        return f"has hidden_act {activation!r} in config.json, which the packed forward pass does not know"
    return None


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The row of a ``config.json``.

    Raises:
        InputError: there is none, or a setting is not known here.
    """
    reason = why_not_packed(config)
    if reason is not None:
        raise InputError(f"the model {reason}")
    return ARCHITECTURES[config["model_type"]]


def own_names(row: Architecture, names: Iterable[str]) -> dict[str, str]:
    """The names of a file's tensors, each with that in the model without a head."""
    names = list(names)
    prefix = next((prefix for prefix in row.prefixes if f"{prefix}{row.names.tokens}.weight" in names), "")
    return {name: name.removeprefix(prefix) for name in names}


def shape_of(row: Architecture, config: Mapping[str, Any]) -> Shape:
    """The numbers of a model.

    Raises:
        InputError: one is missing, is no number, or they do not fit together.
    """
    rotary = row.theta is not None
    hidden, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    kv_heads = _whole(config, "num_key_value_heads", heads) if rotary else heads
    head_width = _whole(config, "head_dim", max(hidden // heads, 1)) if rotary else hidden // heads
    if heads % kv_heads or (not rotary and hidden % heads) or (rotary and head_width % 2):
        raise InputError(
            f"the model has {heads} attention heads of {head_width} dimensions, {kv_heads} for keys and values, in "
            f"{hidden} dimensions; these do not divide"
        )
    first = _whole(config, "pad_token_id", 1, least=0) + 1 if row.positions_after_padding else 0
    return Shape(
        vocabulary=_whole(config, "vocab_size"),
        hidden=hidden,
        layers=_whole(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        intermediate=_whole(config, "intermediate_size"),
        epsilon=_real(config, row.epsilon[0], row.epsilon[1]),
        activation=config.get("hidden_act", row.activation),
        theta=rope_theta(config, row.theta) if row.theta is not None else None,
        positions=_whole(config, "max_position_embeddings") if row.names.positions else 0,
        first_position=first,
        types=_whole(config, "type_vocab_size", 2) if row.names.types else 0,
        attention_bias=row.bias or bool(config.get("attention_bias")),
        feed_forward_bias=row.bias or bool(config.get("mlp_bias")),
        deviation=_real(config, "initializer_range", 0.02),
    )


def rope_theta(config: Mapping[str, Any], default: float) -> float:
    """The base of the rotary positions: transformers 5 keeps it in an object of its own, 4 beside the rest."""
    return _real(config, "rope_parameters.rope_theta", _real(config, "rope_theta", default))


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """A setting, ``object.setting`` being one of an object; None if it is not there."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) or value is config else None
    return value


def _whole(config: Mapping[str, Any], name: str, default: int | None = None, least: int = 1) -> int:
    value = config.get(name)
    value = default if value is None else value
    if type(value) is not int or value < least:
        raise InputError(f"the model has {name} {value!r} in config.json; it must be a whole number from {least} on")
    return value


def _real(config: Mapping[str, Any], name: str, default: float) -> float:
    value = _setting(config, name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"the model has {name} {value!r} in config.json; it must be a number above 0")
    return float(value)
