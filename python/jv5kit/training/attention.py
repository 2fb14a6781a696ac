"""Attention of texts that lie one after the other: each token sees its own text, nothing is padded."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


class Layout:
    """Where the texts of a batch are among its tokens.

    Attributes:
        lengths: tokens of each text.
        runs: neighbors of the same length: how many, and that length.
        positions: int64 ``(T,)``, of each token in its text.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.device = device
        self.runs = [(len(list(run)), length) for length, run in groupby(self.lengths)]
        counts = torch.tensor(self.lengths)
        starts = counts.cumsum(0) - counts
        self.positions = (torch.arange(sum(self.lengths)) - starts.repeat_interleave(counts)).to(device)

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(self.lengths)

    @property
    def bounds(self) -> Tensor:
        """Int32 ``(n + 1,)``: where each text begins, and where the last one ends."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self.device)


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, causal: bool) -> Tensor:
    """Attention inside each text.

    On a GPU, in half precision, one kernel takes all texts; else texts of the same length that are neighbors go
    through :func:`torch.nn.functional.scaled_dot_product_attention` together, which stores no matrix of weights.
    Measured on one thread (AVX2), forward and backward, 4,000 tokens in texts of 15 to 25: 34 ms so, 70 ms text by
    text, 52 to 60 ms in buckets of near lengths with a mask. At 5 to 400 tokens text by text costs up to a tenth more,
    buckets from a tenth less to a quarter more, and all are a fifth of what the linear layers take.

    On a CPU it is in float32 whatever the linear layers are in: the gradient of torch's kernel takes seven times as
    long in bfloat16 (texts of 5 to 160 tokens, a machine with AMX), which is more than all else of a step.

    Args:
        query: ``(T, heads, width)``.
        key: ``(T, kv_heads, width)``; ``heads`` is a multiple of ``kv_heads``.
        value: as ``key``.
        layout: of the T tokens.
        causal: whether a token sees only those up to itself.

    Returns:
        ``(T, heads * width)``.
    """
    fused = _varlen() if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) else None
    if fused is not None:
        return fused(query, key, value, layout, causal).flatten(1)
    if not query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        with torch.autocast(query.device.type, enabled=False):
            attended = _attend_by_runs(query.float(), key.float(), value.float(), layout, causal=causal)
        return attended.to(query.dtype)
    return _attend_by_runs(query, key, value, layout, causal=causal)


def _attend_by_runs(query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, causal: bool) -> Tensor:
    """Neighbors of the same length together."""
    sizes = [count * length for count, length in layout.runs]
    pieces = []
    # One split, whose gradient is one concatenation; a slice a text would have a gradient of all tokens each.
    for (count, _), *parts in zip(layout.runs, *(x.split(sizes) for x in (query, key, value)), strict=True):
        heads = [part.unflatten(0, (count, -1)).transpose(1, 2) for part in parts]
        shared = heads[0].shape[1] // heads[1].shape[1]
        if shared > 1:
            heads[1:] = (part.repeat_interleave(shared, dim=1) for part in heads[1:])
        attended = scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=causal)
        pieces.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


@cache
def _varlen() -> Callable[[Tensor, Tensor, Tensor, Layout, bool], Tensor] | None:
    """Attention over texts of any lengths by one kernel, if this torch has it (from 2.10 on)."""
    try:
        kernel: Any = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError):
        return None
    known = inspect.signature(kernel).parameters
    if not {"window_size", "enable_gqa"} <= set(known):
        return None

    def fused(query: Tensor, key: Tensor, value: Tensor, layout: Layout, causal: bool) -> Tensor:
        window = (-1, 0) if causal else (-1, -1)
        bounds, longest = layout.bounds, layout.longest
        attended: Tensor = kernel(
            query, key, value, bounds, bounds, longest, longest, window_size=window, enable_gqa=True
        )
        return attended

    return fused
