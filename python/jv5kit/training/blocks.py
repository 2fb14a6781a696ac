"""What the packed forward pass is made of beside linear layers and attention."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor


def made_again(tensor: Tensor, make: Callable[[], Tensor]) -> AbstractContextManager[object]:
    """Inside, keep a tensor for the gradient by what makes it again: it is wide, and costs little to make."""
    if not torch.is_grad_enabled():
        return nullcontext()
    # Not the tensor: as long as its gradient is to come, torch keeps what the functions know.
    address, shape = tensor.data_ptr(), tensor.shape

    def pack(kept: Tensor) -> Tensor | Callable[[], Tensor]:
        return make if kept.data_ptr() == address and kept.shape == shape else kept

    def unpack(kept: Tensor | Callable[[], Tensor]) -> Tensor:
        return kept if isinstance(kept, torch.Tensor) else kept()

    return saved_tensors_hooks(pack, unpack)


class RMSNorm(nn.RMSNorm):
    """Scale to a root of the mean square of 1 (Zhang and Sennrich, arXiv 1910.07467)."""

    def forward(self, x: Tensor) -> Tensor:
        """Norm the last dimension."""
        # Of one type, input and weight go through one kernel.
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of values ``(i, i + width / 2)`` of a head by its angle (Su et al., arXiv 2104.09864)."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)


def _gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "silu": functional.silu,
    "swish": functional.silu,
    "relu": functional.relu,
}
