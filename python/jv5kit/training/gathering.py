"""Several processes, one batch: each has a share of the rows, and the losses see them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from jv5kit.training.processes import processes
from jv5kit.training.sharding import is_spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALONE_BYTES = 2**20
"""Gradients from this size on are exchanged each by itself, where it lies; smaller ones are joined first."""


def share(count: int, process: int, processes: int) -> slice:
    """The rows of a process: consecutive ones, so that what is gathered in order of the processes is in order."""
    return slice(count * process // processes, count * (process + 1) // processes)


class _Gather(torch.autograd.Function):
    """All shares joined. Every process computes the same loss of them, so the gradient of a share is there already.

    torch's own gathering with gradient would exchange these gradients once more, and takes shares of one size alone.

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
    """The mean of each gradient over all processes, in its place; spread weights have it already.

    Every process has gradients of the same parameters: it goes the same way, with a share of the rows or without one.
    """
    count = processes()
    if count == 1:
        return
    gradients = [own.grad for own in parameters if own.grad is not None and not is_spread(own)]
    large = [gradient for gradient in gradients if gradient.nbytes >= ALONE_BYTES]
    small = [gradient for gradient in gradients if gradient.nbytes < ALONE_BYTES]
    if small:
        large.append(torch.cat([gradient.flatten() for gradient in small]))
    for work in [dist.all_reduce(gradient, async_op=True) for gradient in large]:
        work.wait()
    for gradient in large:
        gradient /= count
    if small:
        parts = large[-1].split([gradient.numel() for gradient in small])
        for gradient, part in zip(small, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
