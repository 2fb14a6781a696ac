"""Several processes, one batch: each has a share of the rows, and the losses see them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def share(count: int, process: int, processes: int) -> slice:
    """The rows of a process: consecutive ones, so that what is gathered in order of the processes is in order."""
    return slice(count * process // processes, count * (process + 1) // processes)


def processes() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """All shares joined. Every process computes the same loss of them, so the gradient of a share is there already.

    It is scaled by the number of processes, because :func:`average_gradients` takes the mean: of what belongs to one
    share the mean is then a sum, and of what every process has whole, such as a temperature, it is what it was.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int]) -> Tensor:
        ctx.counts = counts
        # Of one size, which every backend can gather.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        start = sum(ctx.counts[: dist.get_rank()])
        return gradients[0][start : start + ctx.counts[dist.get_rank()]] * len(ctx.counts), None


def gather(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all processes, with gradient.

    Args:
        rows: this process's, ``(n, dim)``.
        counts: how many each process has.
    """
    if len(counts) == 1:
        return rows
    # torch does not say what apply takes: that is what forward takes.
    joined: Tensor = _Gather.apply(rows, counts)  # type: ignore[no-untyped-call]
    return joined


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """The mean of each gradient over all processes, in its place."""
    if processes() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            # Another process may have one, and all must take part.
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= processes()
