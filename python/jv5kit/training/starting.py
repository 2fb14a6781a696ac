"""What a student starts from: a checkpoint's tensors, some of its layers and neurons, or weights drawn at random."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.pretrained import load_checkpoint
from jv5kit.training.architectures import own_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from jv5kit.pretrained import Checkpoint, Pooling
    from jv5kit.training.architectures import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentStart:
    """What a student is made from.

    Attributes:
        model: a folder or a hub id (sentence-transformers or transformers); None to start from scratch.
        config: from scratch, the content of a ``config.json``; ``vocab_size`` may be left out.
        layers: numbers of the layers to keep, in their new order; none for all.
        feed_forward: neurons of each feed-forward block to keep, those with the largest norms; None for all.
        pooling: in place of the model's own; from scratch ``"mean"`` by default.
        prompts: in place of the model's own.
        max_tokens: in place of the model's own context.
        tokenizer: a folder or a hub id whose tokenizer it is; None for the model's own.
        seed: of weights that are drawn.
        rope_theta: base of the rotary positions of inference, saved with the model; None for the model's own.
        training_rope_theta: base of the rotary positions in training, saved as well; None for the model's own.
    """

    model: str | None = None
    config: Mapping[str, Any] | None = None
    layers: tuple[int, ...] = ()
    feed_forward: int | None = None
    pooling: Pooling | None = None
    prompts: Mapping[str, str] | None = None
    max_tokens: int | None = None
    tokenizer: str | None = None
    seed: int = 0
    rope_theta: float | None = None
    training_rope_theta: float | None = None

    def __post_init__(self) -> None:
        """Find out what contradicts itself.

        Raises:
            InputError: it is neither or both of a model and a configuration, or a number is out of its range.
        """
        if (self.model is None) == (self.config is None):
            raise InputError("a student starts from a model or, from scratch, from a config; give one of the two")
        if self.config is not None and self.tokenizer is None:
            raise InputError("a student from scratch needs a tokenizer; name a folder or a hub id that has one")
        if self.config is not None and (self.layers or self.feed_forward is not None):
            raise InputError("layers and feed_forward choose from a model's weights; from scratch, set them in config")
        for name in ("feed_forward", "max_tokens", "rope_theta", "training_rope_theta"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name}={value}; it must be above 0")


@dataclass(slots=True)
class Weights:
    """A model's settings and tensors.

    Attributes:
        config: the content of its ``config.json``.
        tensors: float32, under transformers' names.
        unused: tensors that an embedding does not need but transformers' class of the model has, such as a pooler.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, Tensor] = field(default_factory=dict)


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """A model's tensors in float32; int8 rows times their scales.

    Raises:
        ModelNotFoundError: a file cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for path in sorted(checkpoint.folder.glob("*.safetensors")):
        try:
            tensors |= load_file(path)
        # The library has classes of its own for a damaged file.
        except Exception as error:
            raise ModelNotFoundError(f"model {checkpoint.name!r} cannot be loaded: {path}: {error}") from None
    for name in [name for name in tensors if f"{name}_scale" in tensors]:
        tensors[name] = tensors[name].float() * tensors.pop(f"{name}_scale").float().unsqueeze(-1)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def own_tensors(row: Architecture, config: dict[str, Any], tensors: dict[str, Tensor]) -> Weights:
    """The tensors by the names of the model without a head, and apart from them what an embedding does not need."""
    weights = Weights(config)
    for name, own in own_names(row, tensors).items():
        tensor = tensors[name]
        if not own.startswith(row.ignored):
            weights.tensors[own] = tensor
        elif own.startswith("pooler."):
            weights.unused[own] = tensor
    return weights


def keep_layers(row: Architecture, weights: Weights, layers: tuple[int, ...]) -> None:
    """Keep some of the layers, in the order given; embeddings and what comes after the layers stay as they are.

    Raises:
        InputError: there is no such layer, or one is named twice.
    """
    count = weights.config["num_hidden_layers"]
    wrong = [number for number in layers if not 0 <= number < count]
    if wrong or len(set(layers)) < len(layers):
        raise InputError(f"layers={list(layers)}; each must be one of the model's, 0 to {count - 1}, and named once")
    kept = {}
    for name, tensor in weights.tensors.items():
        found = re.fullmatch(re.escape(row.names.layer) + r"(\d+)(\..*)", name)
        if found is None:
            kept[name] = tensor
        elif int(found[1]) in layers:
            kept[f"{row.names.layer}{layers.index(int(found[1]))}{found[2]}"] = tensor
    weights.tensors = kept
    weights.config = weights.config | {"num_hidden_layers": len(layers)}
    types = weights.config.get("layer_types")
    if types is not None:
        weights.config["layer_types"] = [types[number] for number in layers]


def prune_feed_forward(row: Architecture, weights: Weights, width: int) -> None:
    """Keep those neurons of each feed-forward block whose incoming and outgoing weights have the largest norms.

    A neuron's importance is the product of the norms of its row (in a gated block: of both its rows) and its column.

    Raises:
        InputError: the blocks have fewer neurons.
    """
    before = weights.config["intermediate_size"]
    if width > before:
        raise InputError(f"feed_forward={width}; the model's feed-forward blocks have {before} neurons")
    names = row.names
    into = [name for name in (names.gate, names.up) if name is not None]
    for number in range(weights.config["num_hidden_layers"]):
        layer = f"{names.layer}{number}."
        importance = weights.tensors[f"{layer}{names.down}.weight"].norm(dim=0)
        for name in into:
            importance = importance * weights.tensors[f"{layer}{name}.weight"].norm(dim=1)
        kept = importance.topk(width).indices.sort().values
        for name in into:
            for part in ("weight", "bias"):
                tensor = weights.tensors.get(f"{layer}{name}.{part}")
                if tensor is not None:
                    weights.tensors[f"{layer}{name}.{part}"] = tensor[kept].contiguous()
        down = f"{layer}{names.down}.weight"
        weights.tensors[down] = weights.tensors[down][:, kept].contiguous()
    weights.config = weights.config | {"intermediate_size": width}


def tokenizer_folder(name: str) -> Path:
    """The folder with a tokenizer: that folder itself, or a model's.

    Raises:
        ModelNotFoundError: there is none.
    """
    folder = Path(name).expanduser()
    return folder.resolve() if (folder / "tokenizer.json").is_file() else load_checkpoint(name).folder


def load_into(model: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Load tensors, all that the model has and no other.

    Raises:
        ModelNotFoundError: one is missing, left over or of another shape.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    for keys, problem in (
        (missing, "lack"),
        (extra, "have what belongs to no layer:"),
        (sorted(shapes), "have another shape than config.json says for"),
    ):
        if keys:
            others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ModelNotFoundError(f"model {name!r} cannot be loaded: its weights {problem} {keys[0]}{others}")
    model.load_state_dict(tensors)
