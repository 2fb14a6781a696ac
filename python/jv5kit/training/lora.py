"""Low-rank adapters (Hu et al., arXiv 2106.09685) on the frozen linear layers of a student, in PEFT's file layout."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.training.architectures import ARCHITECTURES
from jv5kit.weights import read_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

    from jv5kit.training.student import Student


class Lora(nn.Module):
    """What an adapter adds to a linear layer: ``scale * up(down(dropout(x)))``, 0 at the start.

    Attributes:
        lora_A: ``(rank, inputs)``.
        lora_B: ``(outputs, rank)``.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float, draw: torch.Generator) -> None:
        super().__init__()
        self.scale, self.dropout = scale, dropout
        down = torch.empty(rank, linear.in_features)
        # As a linear layer's own weights are drawn, and as PEFT draws these.
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=draw)
        device = linear.weight.device
        self.lora_A = nn.Parameter(down.to(device))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """What is added for inputs ``(T, inputs)``: ``(T, outputs)``."""
        if self.training and self.dropout:
            x = dropped(x, self.dropout)
        return functional.linear(functional.linear(x, self.lora_A), self.lora_B) * self.scale


def dropped(x: Tensor, share: float) -> Tensor:
    """``x`` with a share of its values, drawn at random, set to 0, and the others larger by what that takes away."""
    if x.device.type != "cpu":
        return functional.dropout(x, share)
    # On a CPU torch draws value by value, which is a quarter of a step. NumPy draws four of 16 bits at a time; the seed
    # is torch's, so that what a checkpoint keeps, or a second pass sets back, decides these too.
    draw = np.random.SFC64(int(torch.randint(1 << 62, ())))
    numbers = draw.random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
    kept = torch.empty(x.numel())
    np.multiply(numbers >= round(share * (1 << 16)), 1 / (1 - share), out=kept.numpy(), casting="same_kind")
    return x * kept.view(x.shape).to(x.dtype)


class Adapter(nn.Module):
    """The matrices of every linear layer of a student; see :func:`add_adapter`.

    Attributes:
        names: of the layers, as the model names them.
        rank: inner width of each pair of matrices.
        alpha: the scale, times the rank.
        dropout: share of the inputs that are left out in training.
        enabled: whether it adds anything now.
    """

    def __init__(self, student: Student, rank: int, alpha: float, dropout: float, seed: int) -> None:
        super().__init__()
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.enabled = True
        draw = torch.Generator().manual_seed(seed)
        linears = student.backbone.linears()
        self.names = tuple(linears)
        self.loras = nn.ModuleList(Lora(linear, rank, alpha / rank, dropout, draw) for linear in linears.values())
        # Those that were trainable before it, and are again after it.
        self.frozen = [parameter for parameter in student.backbone.parameters() if parameter.requires_grad]
        self._hooks = [self._hook(*pair) for pair in zip(linears.values(), self.loras, strict=True)]

    def _hook(self, linear: nn.Linear, lora: nn.Module) -> RemovableHandle:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> Tensor:
            if not self.enabled:
                return result
            added: Tensor = lora(inputs[0])
            return result + added

        return linear.register_forward_hook(add)

    def tensors(self) -> dict[str, Tensor]:
        """The matrices, under PEFT's names."""
        named: dict[str, Tensor] = {}
        for name, lora in zip(self.names, self.loras, strict=True):
            for part, matrix in lora.named_parameters():
                named[f"base_model.model.{name}.{part}.weight"] = matrix
        return named

    def detach(self) -> None:
        """Take the hooks off the layers."""
        for hook in self._hooks:
            hook.remove()


def add_adapter(student: Student, rank: int, alpha: float, dropout: float, seed: int) -> None:
    """Add an adapter to every linear layer, and freeze the backbone.

    Args:
        student: one without an adapter.
        rank: inner width.
        alpha: the scale, times the rank.
        dropout: share of a layer's inputs that the adapter does not see, in training.
        seed: of ``lora_A``; ``lora_B`` starts at 0, so that nothing is added at first.

    Raises:
        InputError: it has one, or an argument is out of its range.
    """
    if student.adapter is not None:
        raise InputError("the student has an adapter; remove it before another is added")
    if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise InputError(
            f"rank={rank}, alpha={alpha}, dropout={dropout}; rank and alpha must be above 0, dropout in 0..1"
        )
    student.adapter = Adapter(student, rank, alpha, dropout, seed)
    student.adapter.train(student.training)
    for parameter in student.adapter.frozen:
        parameter.requires_grad_(False)


def adapter_parameters(student: Student) -> list[nn.Parameter]:
    """What is trained of a student with an adapter.

    Raises:
        InputError: it has none.
    """
    return list(_adapter(student).parameters())


def remove_adapter(student: Student) -> None:
    """Take the adapter away; the backbone is trainable again as far as it was.

    Raises:
        InputError: it has none.
    """
    adapter = _adapter(student)
    adapter.detach()
    for parameter in adapter.frozen:
        parameter.requires_grad_(True)
    student.adapter = None


@contextmanager
def disabled(student: Student) -> Iterator[None]:
    """The student without what its adapter adds, inside; on a student without one nothing changes."""
    adapter = student.adapter
    before = adapter.enabled if adapter is not None else False
    try:
        if adapter is not None:
            adapter.enabled = False
        yield
    finally:
        if adapter is not None:
            adapter.enabled = before


def save_adapter(student: Student, folder: Path) -> None:
    """Write the adapter: ``adapter_config.json`` and ``adapter_model.safetensors``, as PEFT reads them.

    Raises:
        InputError: the student has none.
        OSError: a file cannot be written.
    """
    from safetensors.torch import save_file

    adapter = _adapter(student)
    row = ARCHITECTURES.get(str(student.config.get("model_type")))
    alpha = adapter.alpha
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        # The model whose folder it is in: a path of this machine is of no use on another.
        "base_model_name_or_path": None,
        "r": adapter.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": sorted(row.names.linears if row is not None else adapter.names),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: matrix.detach().cpu().contiguous() for name, matrix in adapter.tensors().items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(student: Student, folder: Path) -> None:
    """Add an adapter that was saved, with its rank, scale and dropout.

    Raises:
        InputError: the student has one.
        ModelNotFoundError: it cannot be read, or was made for other layers.
    """
    from safetensors.torch import load_file

    _, scale = read_adapter(folder)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    add_adapter(student, config["r"], scale * config["r"], config.get("lora_dropout") or 0.0, seed=0)
    own, saved = _adapter(student).tensors(), load_file(folder / "adapter_model.safetensors")
    wrong = sorted(own.keys() ^ saved.keys()) or [name for name in own if own[name].shape != saved[name].shape]
    if wrong:
        remove_adapter(student)
        raise ModelNotFoundError(f"{folder} was made for another model: {wrong[0]} is missing, left over or misshapen")
    with torch.no_grad():
        for name, matrix in own.items():
            matrix.copy_(saved[name])


def _adapter(student: Student) -> Adapter:
    if student.adapter is None:
        raise InputError("the student has no adapter; add one first")
    return student.adapter
