"""A batch in passes has the gradients that it has in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from jv5kit.training.passes import Passes, groups

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [2, 2], [7], [3, 1, 2, 9]]


class Model(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 8)
        self.layer = nn.Linear(8, 5)
        self.dropout = nn.Dropout(dropout)
        self.seen: list[Tensor] = []

    def embed(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        rows = [self.layer(self.dropout(self.table(torch.tensor(text)))).tanh().mean(0) for text in tokens]
        self.seen.append(torch.stack(rows).detach())
        return torch.stack(rows)


def gradients(model: Model, tokens: int) -> tuple[Tensor, dict[str, Tensor]]:
    # Lists, where any sequences would do.
    passes = Passes(model.embed, TEXTS, tokens)
    embeddings = passes.forward()
    loss = (embeddings @ embeddings.T).softmax(-1).diagonal().log().sum()
    loss.backward()
    passes.backward()
    return embeddings.detach(), {name: own.grad for name, own in model.named_parameters() if own.grad is not None}


@pytest.mark.parametrize("tokens", [1, 4, 7, 16])
def test_gradients_are_those_of_one_pass(tokens: int) -> None:
    one, several = gradients(Model(), 1000), gradients(Model(), tokens)
    torch.testing.assert_close(one[0], several[0])
    assert one[1].keys() == several[1].keys() == {"table.weight", "layer.weight", "layer.bias"}
    for name, gradient in one[1].items():
        torch.testing.assert_close(several[1][name], gradient)


def test_the_second_time_has_the_dropout_of_the_first() -> None:
    model = Model(dropout=0.5)
    before = torch.get_rng_state()
    gradients(model, 7)
    first, second = model.seen[: len(model.seen) // 2], model.seen[len(model.seen) // 2 :]
    assert len(first) > 1
    for there, again in zip(first, second, strict=True):
        torch.testing.assert_close(there, again, rtol=0, atol=0)
    # What is drawn next is what would have been drawn: dropout was drawn once.
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    with torch.no_grad():
        for group in groups(TEXTS, 7):
            model.embed([TEXTS[i] for i in group])
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("texts", [TEXTS, []])
def test_passes_beyond_those_of_the_texts_change_nothing(texts: list[list[int]]) -> None:
    """They are made where other processes have more texts, and leave a gradient of 0."""
    model, once = Model(), Model()
    # Lists, where any sequences would do.
    passes = Passes(model.embed, texts, 1000, agree=lambda count: count + 2)
    embeddings = passes.forward()
    (embeddings.square().sum() + 0 * embeddings.sum()).backward()
    passes.backward()
    if texts:
        once.embed(texts).square().sum().backward()
    assert len(embeddings) == len(texts)
    assert len(model.seen) == 2 * 3
    for name, own in model.named_parameters():
        expected = once.get_parameter(name).grad
        assert own.grad is not None
        torch.testing.assert_close(own.grad, torch.zeros_like(own) if expected is None else expected, msg=name)


def test_every_text_is_in_one_pass() -> None:
    for tokens in (1, 4, 7, 16, 1000):
        made = groups(TEXTS, tokens)
        assert sorted(i for group in made for i in group) == list(range(len(TEXTS)))
        assert all(len(group) == 1 or sum(len(TEXTS[i]) for i in group) <= tokens for group in made)
