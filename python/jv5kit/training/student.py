"""The model that is trained: a backbone, its tokenizer, its pooling and its prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from jv5kit.encoder import load_tokenizer
from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.pretrained import Checkpoint, load_checkpoint, read_config
from jv5kit.training.architectures import ARCHITECTURES, rope_theta, why_not_packed
from jv5kit.training.layout import copy_tokenizer, write_layout
from jv5kit.training.packed import PackedModel
from jv5kit.training.padded import PaddedModel
from jv5kit.training.sharding import whole
from jv5kit.training.starting import (
    StudentStart,
    Weights,
    keep_layers,
    load_into,
    own_tensors,
    prune_feed_forward,
    read_tensors,
    tokenizer_folder,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from jv5kit.pretrained import Pooling
    from jv5kit.training.lora import Adapter

__all__ = ["Student", "StudentStart"]

TRAINING_THETA = "training_rope_theta"
"""The setting of ``config.json`` with the base of the rotary positions in training, where it is not inference's."""


class Student(nn.Module):
    """A model that is trained. Make one with :meth:`load`.

    In training mode (``student.train()``) rotary positions have the base of training, else that of inference.

    Attributes:
        backbone: the forward pass: packed where the architecture is known, else transformers', padded.
        checkpoint: where the tokenizer is, and how it is used.
        config: the content of ``config.json``, as it will be saved.
        dim: values of an embedding.
        max_tokens: context, special tokens included.
        pooling: how token states become one embedding.
        prompts: by name.
        default_prompt_name: the prompt of texts for which none is named.
        adapter: what lora.py adds, None for none.
    """

    def __init__(self, backbone: PackedModel | PaddedModel, config: dict[str, Any], checkpoint: Checkpoint) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.checkpoint = checkpoint
        self.dim = backbone.dim
        self.max_tokens = checkpoint.max_tokens
        self.pooling: Pooling = checkpoint.pooling
        self.prompts = dict(checkpoint.prompts)
        self.default_prompt_name = checkpoint.default_prompt_name
        self.adapter: Adapter | None = None
        self._tokenizer = load_tokenizer(checkpoint)
        self._length = checkpoint.max_tokens
        self._unused: dict[str, Tensor] = {}
        self._thetas: dict[bool, float] = {}
        """Bases of the rotary positions: in training, and not."""
        if isinstance(backbone, PackedModel) and backbone.theta is not None:
            self._thetas = {False: backbone.theta, True: float(config.get(TRAINING_THETA) or backbone.theta)}

    @classmethod
    def load(cls, start: StudentStart) -> Self:
        """Make a student.

        Raises:
            InputError: the start asks for what the model does not have.
            ModelNotFoundError: there is no such model or tokenizer, or its files cannot be read.
        """
        if start.model is not None:
            checkpoint = load_checkpoint(start.model)
            weights = _read(checkpoint, start)
        else:
            checkpoint, weights = _from_scratch(start)
        checkpoint, weights.config = _settled(checkpoint, weights.config, start)
        backbone = (PackedModel if why_not_packed(weights.config) is None else PaddedModel)(weights.config)
        if isinstance(backbone, PackedModel) and backbone.room is not None and checkpoint.max_tokens > backbone.room:
            if start.max_tokens is not None:
                raise InputError(f"max_tokens={start.max_tokens}; the model has positions for {backbone.room}")
            checkpoint = replace(checkpoint, max_tokens=backbone.room)
        if start.model is None:
            backbone.initialize(start.seed)
        else:
            load_into(backbone.named, weights.tensors, checkpoint.name)
        student = cls(backbone, weights.config, checkpoint)
        student._unused = weights.unused
        return student

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    @property
    def training_theta(self) -> float | None:
        """Base of the rotary positions in training; None for a model without any."""
        return self._thetas.get(True)

    @property
    def inference_theta(self) -> float | None:
        """Base of the rotary positions at inference; None for a model without any."""
        return self._thetas.get(False)

    def set_rope_theta(self, theta: float) -> None:
        """Set the base of the rotary positions in training; that of inference stays.

        Raises:
            InputError: the model has no rotary positions that are known here.
        """
        self.backbone.set_rope_theta(theta)
        self._thetas[True] = theta
        self.config[TRAINING_THETA] = theta

    def tokenize(self, texts: Sequence[str], prompt: str, length: int) -> list[list[int]]:
        """Token ids of each text after its prompt, cut to ``length``; at least one a text.

        Raises:
            InputError: the length is beyond the model's context.
        """
        if not 1 <= length <= self.max_tokens:
            raise InputError(f"length={length}; the student reads 1 to {self.max_tokens} tokens")
        if length != self._length:
            self._tokenizer.enable_truncation(length)
            self._length = length
        encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts] if prompt else list(texts))
        # A tokenizer without special tokens makes nothing of an empty text; a model needs one token at least.
        return [encoding.ids or [self.checkpoint.pad_token_id] for encoding in encodings]

    def embed(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Embed token sequences, none of them empty.

        Returns:
            float32 ``(n, dim)``, in their order, pooled and of any length; the gradient flows.

        Raises:
            ModelNotFoundError: a token is beyond the vocabulary.
        """
        if not tokens:
            return torch.zeros(0, self.dim, device=self.device)
        # Texts of the same length as neighbors: attention takes them together.
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        lengths = [len(tokens[i]) for i in order]
        flat = torch.tensor([token for i in order for token in tokens[i]])
        if int(flat.max()) >= self.backbone.vocabulary:
            raise ModelNotFoundError(
                f"model {self.checkpoint.name!r}: its tokenizer gives the token {int(flat.max())}, but its vocabulary "
                f"ends at {self.backbone.vocabulary - 1}; the two do not belong together"
            )
        if self._thetas:
            self.backbone.set_rope_theta(self._thetas[self.training])
        device = self.device
        states = self.backbone(flat.to(device, non_blocking=True), lengths)
        pooled = pool(states.float(), torch.tensor(lengths, device=device), self.pooling)
        back = torch.empty(len(order), dtype=torch.int64)
        back[torch.tensor(order)] = torch.arange(len(order))
        return pooled[back.to(device)]

    def forward(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """As :meth:`embed`: what a wrapper for several processes calls."""
        return self.embed(tokens)

    def weights(self, *, here: bool = True) -> dict[str, Tensor]:
        """The backbone's tensors on the CPU; see :func:`jv5kit.training.sharding.whole`."""
        return whole(self.backbone.named.state_dict(), here=here)

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the backbone in the layout of sentence-transformers; an adapter is saved apart (lora.py).

        Args:
            folder: is made if it is not there.
            weights: what :meth:`weights` gave; None asks it.

        Raises:
            OSError: a file cannot be written.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: tensor.contiguous() for name, tensor in (self.weights() if weights is None else weights).items()
        }
        save_file(tensors | self._unused, folder / "model.safetensors", metadata={"format": "pt"})
        copy_tokenizer(self.checkpoint.folder, folder, self.max_tokens)
        write_layout(
            folder,
            self.config,
            dim=self.dim,
            pooling=self.pooling,
            prompts=self.prompts,
            default_prompt_name=self.default_prompt_name,
            max_tokens=self.max_tokens,
            lower_case=self.checkpoint.lower_case,
        )


def pool(states: Tensor, lengths: Tensor, pooling: Pooling) -> Tensor:
    """One embedding of the token states ``(T, dim)`` of each text, which lie one after the other: ``(n, dim)``."""
    if pooling == "mean":
        return torch.segment_reduce(states, "mean", lengths=lengths, unsafe=True)
    ends = lengths.cumsum(0)
    return states[ends - 1 if pooling == "lasttoken" else ends - lengths]


def _read(checkpoint: Checkpoint, start: StudentStart) -> Weights:
    """A model's settings and tensors, or those that the start keeps."""
    config = read_config(checkpoint)
    reason = why_not_packed(config)
    if reason is not None:
        if start.layers or start.feed_forward is not None:
            raise InputError(f"layers and feed_forward cannot be chosen: model {checkpoint.name!r} {reason}")
        return Weights(config, read_tensors(checkpoint))
    row = ARCHITECTURES[config["model_type"]]
    weights = own_tensors(row, config, read_tensors(checkpoint))
    if start.layers:
        keep_layers(row, weights, start.layers)
    if start.feed_forward is not None:
        prune_feed_forward(row, weights, start.feed_forward)
    return weights


def _from_scratch(start: StudentStart) -> tuple[Checkpoint, Weights]:
    """The settings of a new model, and where its tokenizer is."""
    config = dict(start.config or {})
    folder = tokenizer_folder(start.tokenizer or "")
    checkpoint = Checkpoint(
        name=str(config.get("model_type")),
        folder=folder,
        dim=config.get("hidden_size", 0),
        max_tokens=start.max_tokens or config.get("max_position_embeddings") or 512,
        pooling=start.pooling or "mean",
        normalize=True,
        pad_token_id=config.get("pad_token_id") or 0,
    )
    config.setdefault("vocab_size", load_tokenizer(checkpoint).get_vocab_size())
    return checkpoint, Weights(config)


def _settled(checkpoint: Checkpoint, config: dict[str, Any], start: StudentStart) -> tuple[Checkpoint, dict[str, Any]]:
    """The checkpoint and the settings, with what the start has in place of theirs."""
    row = ARCHITECTURES.get(str(config.get("model_type")))
    config = {
        name: value for name, value in config.items() if name not in ("auto_map", "torch_dtype", "quantization_config")
    }
    config |= {"dtype": "float32"}
    if row is not None:
        config["architectures"] = [row.model_class]
    if start.rope_theta is not None or start.training_rope_theta is not None:
        if row is None or row.theta is None:
            raise InputError(
                f"rope theta is set for a {config.get('model_type')}, which has no rotary positions known here"
            )
        config |= _thetas(config, row.theta, start)
    changes: dict[str, Any] = {}
    if start.tokenizer is not None:
        changes["folder"] = tokenizer_folder(start.tokenizer)
    if start.pooling is not None:
        changes["pooling"] = start.pooling
    if start.prompts is not None:
        prompts = dict(start.prompts)
        changes |= {"prompts": prompts, "default_prompt_name": "document" if "document" in prompts else None}
    if start.max_tokens is not None:
        changes["max_tokens"] = start.max_tokens
        if row is not None and row.theta is not None:
            config["max_position_embeddings"] = max(start.max_tokens, config.get("max_position_embeddings") or 0)
    return replace(checkpoint, **changes), config


def _thetas(config: dict[str, Any], default: float, start: StudentStart) -> dict[str, Any]:
    """The bases of the rotary positions, as transformers 4 and 5 and this package read them."""
    theta = start.rope_theta or rope_theta(config, default)
    parameters = {"rope_type": "default"} | (config.get("rope_parameters") or {}) | {"rope_theta": theta}
    training = start.training_rope_theta or config.get(TRAINING_THETA)
    return {"rope_theta": theta, "rope_parameters": parameters} | ({TRAINING_THETA: training} if training else {})
