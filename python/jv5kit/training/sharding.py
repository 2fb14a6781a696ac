"""A student's weights spread over the processes (FSDP2, Zhao et al., arXiv 2304.11277).

Each process keeps a part of every tensor, of its gradient and of its moments. A layer's weights are brought together
when it computes and let go after it; its gradients are summed, each part where it belongs, as each pass ends. What is
small and beside the backbone, adapter and projection, every process has whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grad_norm_

from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from jv5kit.training.packed import PackedModel
    from jv5kit.training.padded import PaddedModel


def spread(backbone: PackedModel | PaddedModel) -> None:
    """Spread the weights over the processes, in place; what of them is to be learned must be settled.

    Raises:
        InputError: this torch has no FSDP2.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise InputError(
            f"optimizer.shard is set, and torch {torch.__version__} has no fully_shard: pip install 'torch>=2.6', or "
            "leave it out"
        ) from None
    for module in [*backbone.layer_modules(), backbone]:
        # Between two passes nothing is whole: what is changed there, by an optimizer or by hand, is what counts.
        fully_shard(module, reshard_after_forward=True)


def is_spread(tensor: Tensor) -> bool:
    """Whether a process has a part of it alone."""
    # Its type is not asked for: torch before 2.5 has none that could be.
    return hasattr(tensor, "full_tensor")


def of_each_kind(parameters: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Those that are spread, and those that are not: torch takes no mixture of the two."""
    every = list(parameters)
    return [one for one in every if is_spread(one)], [one for one in every if not is_spread(one)]


def whole(tensors: Mapping[str, Tensor], *, here: bool = True) -> dict[str, Tensor]:
    """What tensors are when brought together, on the CPU; every process takes part.

    Args:
        tensors: the same in every process.
        here: whether this process is given them; else it has an empty dict.
    """
    made = {}
    for name, tensor in tensors.items():
        joined = _joined(tensor.detach())
        if here:
            made[name] = joined.cpu()
    return made


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """This process's part of a value of a parameter's shape; the value, where the parameter is not spread."""
    if not is_spread(parameter) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # Only its type would say that it has a mesh.
    one: Any = parameter
    return distribute_tensor(value.to(one.device), one.device_mesh, one.placements, src_data_rank=None)


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale gradients so that the norm of all together is at most ``limit``; returns what it was."""
    # The norm of no gradients would be on the CPU.
    kinds = [kind for kind in of_each_kind(parameters) if _gradients(kind)]
    if not kinds:
        return 0.0
    if not any(map(is_spread, kinds[0])):
        return float(clip_grad_norm_(kinds[0], limit))
    from torch.nn.utils import clip_grads_with_norm_, get_total_norm

    norms = [_joined(get_total_norm(_gradients(kind))) for kind in kinds]
    norm = torch.stack(norms).norm()
    for kind in kinds:
        clip_grads_with_norm_(kind, limit, norm)
    return float(norm)


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _joined(tensor: Tensor) -> Tensor:
    """As it is on one process."""
    # Only its type would say that it can be joined.
    one: Any = tensor
    joined: Tensor = one.full_tensor() if is_spread(tensor) else tensor
    return joined
