"""A student as an ONNX file: token ids in, pooled embeddings of unit length out."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from jv5kit.errors import InputError, MissingExtraError
from jv5kit.training.packed import PackedModel

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from jv5kit.training.student import Student


def check_onnx() -> None:
    """Find that ONNX files can be written.

    Raises:
        MissingExtraError: a library that writes them is not installed.
    """
    for name in ("onnx", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"an ONNX file needs {name}: pip install 'jv5kit[onnx]'")


def write_onnx(student: Student, path: Path) -> None:
    """Write the forward pass, its weights in float32, pooling and norm included.

    Inputs are ``input_ids`` and ``attention_mask``, int64 ``(batch, tokens)`` of any size, padded on either side;
    ``sentence_embedding``, float32 ``(batch, dim)``, is the only output.

    Raises:
        InputError: the architecture runs through transformers only.
        MissingExtraError: as :func:`check_onnx`.
        OSError: the file cannot be written.
    """
    check_onnx()
    if not isinstance(student.backbone, PackedModel):
        kind = student.config.get("model_type")
        raise InputError(f"a {kind} has no ONNX file here; there is one for the architectures that run packed")
    graph = _Graph(student.backbone, student).eval()
    ids = torch.ones(2, 5, dtype=torch.int64)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # It says what it does and what it would rather have.
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (ids, torch.ones_like(ids)),
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                dynamic_shapes=(sizes, sizes),
                dynamo=True,
                verbose=False,
            )
            if program is None:
                raise InputError(f"torch {torch.__version__} gave no ONNX program; it is from 2.5 on that it does")
            program.save(str(path), external_data=_is_large(student))
    finally:
        logger.setLevel(level)


class _Graph(nn.Module):
    """The backbone over padded texts, for a graph has no lists of lengths."""

    def __init__(self, backbone: PackedModel, student: Student) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = student.pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings of unit length, ``(batch, dim)``."""
        batch, tokens = input_ids.shape
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        seen = attention_mask.bool()[:, None, None, :]
        if self.backbone.architecture.causal:
            order = torch.arange(tokens, device=input_ids.device)
            seen = seen & (order[None, :] <= order[:, None])
        # Not minus infinity: padding before a text sees nothing at all, which must not become what is no number.
        bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)

        def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            heads = [part.reshape(batch, tokens, part.shape[1], -1).transpose(1, 2) for part in (query, key, value)]
            shared = heads[0].shape[1] // heads[1].shape[1]
            if shared > 1:
                heads[1:] = [part.repeat_interleave(shared, dim=1) for part in heads[1:]]
            attended = scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=bias)
            return attended.transpose(1, 2).reshape(batch * tokens, -1)

        states = self.backbone.run(input_ids.flatten(), positions.flatten(), attention)
        return normalize(self._pool(states.reshape(batch, tokens, -1), attention_mask), dim=1)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "mean":
            return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        chosen = mask * torch.arange(mask.shape[1], device=mask.device) if self.pooling == "lasttoken" else mask
        place = chosen.argmax(1)[:, None, None].expand(-1, 1, states.shape[-1])
        return states.gather(1, place).squeeze(1)


def _is_large(student: Student) -> bool:
    """Whether the weights would burst the 2 GiB of one file of protocol buffers."""
    return sum(weight.numel() * weight.element_size() for weight in student.backbone.parameters()) > 2_000_000_000
