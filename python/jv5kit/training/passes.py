"""A batch through the model in passes, so that it may be larger than what memory holds of one.

Gradient caching (Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021): the
embeddings are made pass by pass without a graph, the loss gives each embedding its gradient, and each pass is made
again to carry it on. The gradients are those of a single pass, up to the order of their sums.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Tokens = Sequence[Sequence[int]]
    Embed = Callable[[Tokens], Tensor]

STAND_IN = [0]
"""The tokens of a pass that has no text: its embedding is left out, but the model is gone through."""


class Passes:
    """Embeddings of texts, and the way of their gradients back.

    Args:
        embed: token ids of texts to their embeddings, ``(n, dim)``.
        texts: token ids of each text.
        tokens: of a pass; a longer text has one of its own.
        autocast: what each pass runs in.
        agree: from how many passes there are to how many are made; None where that is the same.
    """

    def __init__(
        self,
        embed: Embed,
        texts: Tokens,
        tokens: int,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        agree: Callable[[int], int] | None = None,
    ) -> None:
        self._embed = embed
        self._texts = texts
        self._autocast = autocast
        self._groups = groups(texts, tokens)
        if agree is not None:
            self._groups += [[] for _ in range(agree(len(self._groups)) - len(self._groups))]
        self._states: list[Tensor | None] = []

    def forward(self) -> Tensor:
        """The embeddings, in the order of the texts."""
        if len(self._groups) == 1:
            return self._run(range(len(self._texts)))
        parts = []
        with torch.no_grad():
            for group in self._groups:
                self._states.append(_random_state())
                parts.append(self._run(group))
        places = [i for group in self._groups for i in group]
        order = torch.tensor(places, dtype=torch.int64, device=parts[0].device)
        joined = torch.cat(parts)
        self._embeddings = torch.empty_like(joined)
        self._embeddings[order] = joined
        return self._embeddings.requires_grad_()

    def backward(self) -> None:
        """Carry on the gradients that a loss left at the embeddings."""
        if len(self._groups) == 1:
            return
        gradient = self._embeddings.grad
        if gradient is None:
            return
        after = _random_state()
        for group, state in zip(self._groups, self._states, strict=True):
            # The same dropout as the first time.
            _set_random_state(state)
            embeddings = self._run(group)
            embeddings.backward(gradient[list(group)])
        _set_random_state(after)

    def _run(self, group: Sequence[int]) -> Tensor:
        with self._autocast():
            if not group:
                # With a gradient of 0 for every weight, where other processes have one to add to it.
                return self._embed([STAND_IN])[:0]
            return self._embed([self._texts[i] for i in group])


def groups(texts: Tokens, tokens: int) -> list[list[int]]:
    """Positions of the texts of each pass: of like length, at most so many tokens, each text in one of them."""
    made: list[list[int]] = [[]]
    filled = 0
    for i in sorted(range(len(texts)), key=lambda i: len(texts[i])):
        if made[-1] and filled + len(texts[i]) > tokens:
            made.append([])
            filled = 0
        made[-1].append(i)
        filled += len(texts[i])
    return made


def _random_state() -> Tensor:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.get_rng_state()
    return torch.get_rng_state()


def _set_random_state(state: Tensor | None) -> None:
    assert state is not None
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state)
    else:
        torch.set_rng_state(state)
