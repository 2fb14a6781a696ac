"""A layer of the packed forward pass: attention and a feed-forward, each with its norm and its residual sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from jv5kit.training.blocks import ACTIVATIONS, RMSNorm, made_again, rotate

if TYPE_CHECKING:
    from torch import Tensor

    from jv5kit.training.architectures import Architecture, Shape

Attention = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
"""Queries, keys and values to what each token attends to; see :meth:`jv5kit.training.packed.PackedModel.run`."""

Angles = tuple["Tensor", "Tensor"]
"""Cosines and sines of the tokens' positions, ``(T, 1, width / 2)`` each."""

_M = TypeVar("_M", bound=nn.Module)


@dataclass(slots=True)
class _Parts:
    """The modules of a layer, under what they are for."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    query_norm: nn.Module | None
    key_norm: nn.Module | None
    attention_norm: nn.Module
    gate: nn.Linear | None
    up: nn.Linear
    down: nn.Linear
    feed_forward_norm: nn.Module


class Layer(nn.Module):
    """A layer, whose modules have transformers' own names under it.

    Args:
        architecture: the row of the table.
        shape: the model's numbers.
    """

    def __init__(self, architecture: Architecture, shape: Shape) -> None:
        super().__init__()
        self._post_norm = architecture.post_norm
        self._activate = ACTIVATIONS[shape.activation]
        self._width = shape.head_width
        # In a plain object: set as attributes, the modules would be registered under a second name.
        self._parts = self._build(architecture, shape)

    def forward(self, states: Tensor, angles: Angles | None, attention: Attention) -> Tensor:
        """The states of tokens, ``(T, dim)`` before and after."""
        parts = self._parts
        if self._post_norm:
            states = parts.attention_norm(self._attention(_cast(states), angles, attention) + states)
            normed: Tensor = parts.feed_forward_norm(self._feed_forward(_cast(states)) + states)
            return normed
        states = self._attention(_cast(parts.attention_norm(states)), angles, attention) + states
        return self._feed_forward(_cast(parts.feed_forward_norm(states))) + states

    def _attention(self, states: Tensor, angles: Angles | None, attention: Attention) -> Tensor:
        parts = self._parts
        query, key, value = (
            linear(states).unflatten(-1, (-1, self._width)) for linear in (parts.query, parts.key, parts.value)
        )
        if parts.query_norm is not None and parts.key_norm is not None:
            query, key = parts.query_norm(query), parts.key_norm(key)
        if angles is not None:
            query, key = rotate(query, *angles), rotate(key, *angles)
        attended = attention(query.to(value.dtype), key.to(value.dtype), value)
        output: Tensor = parts.attention_output(attended)
        return output

    def _feed_forward(self, states: Tensor) -> Tensor:
        parts, activate = self._parts, self._activate
        up: Tensor = parts.up(states)
        if parts.gate is None:
            hidden = activate(up)

            def make() -> Tensor:
                return activate(up.detach())

        else:
            gate: Tensor = parts.gate(states)
            opened = activate(gate)
            with made_again(opened, lambda: activate(gate.detach())):
                hidden = opened * up

            def make() -> Tensor:
                return activate(gate.detach()) * up.detach()

        with made_again(hidden, make):
            output: Tensor = parts.down(hidden)
        return output

    def _build(self, architecture: Architecture, shape: Shape) -> _Parts:
        names = architecture.names
        own, shared = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        hidden, inner, bias = shape.hidden, shape.intermediate, shape.attention_bias

        def linear(name: str, inputs: int, outputs: int, bias: bool) -> nn.Linear:
            return place(self, name, nn.Linear(inputs, outputs, bias=bias))

        def norm(name: str, width: int) -> nn.Module:
            return place(self, name, new_norm(architecture, shape, width))

        head_norms = names.head_norms
        return _Parts(
            query=linear(names.query, hidden, own, bias),
            key=linear(names.key, hidden, shared, bias),
            value=linear(names.value, hidden, shared, bias),
            attention_output=linear(names.attention_output, own, hidden, bias),
            query_norm=norm(head_norms[0], shape.head_width) if head_norms else None,
            key_norm=norm(head_norms[1], shape.head_width) if head_norms else None,
            attention_norm=norm(names.attention_norm, hidden),
            gate=linear(names.gate, hidden, inner, shape.feed_forward_bias) if names.gate else None,
            up=linear(names.up, hidden, inner, shape.feed_forward_bias),
            down=linear(names.down, inner, hidden, shape.feed_forward_bias),
            feed_forward_norm=norm(names.feed_forward_norm, hidden),
        )


def new_norm(architecture: Architecture, shape: Shape, width: int) -> nn.Module:
    """A norm of an architecture's kind."""
    kind = nn.LayerNorm if architecture.post_norm else RMSNorm
    return kind(width, eps=shape.epsilon)


def place(parent: nn.Module, name: str, module: _M) -> _M:
    """Register a module under a dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    parent.add_module(last, module)
    return module


def low_precision(device: torch.device) -> torch.dtype | None:
    """What autocast multiplies in, None where it is off."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def _cast(states: Tensor) -> Tensor:
    """The states as three linear layers read them: cast, and kept for the gradient, once instead of by each."""
    dtype = low_precision(states.device)
    return states if dtype is None else states.to(dtype)
