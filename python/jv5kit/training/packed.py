"""The forward pass with gradient of the architectures in the table, over texts that lie one after the other.

Nothing is computed for padding: linear layers take the tokens of all texts at once, attention takes each text by itself
(attention.py). Tensors have transformers' own names, so that files load and save as they are. Dropout of the backbone
is left out: with a target for every row there is nothing that it regularizes, and adapters have their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import pad

from jv5kit.errors import InputError
from jv5kit.training.architectures import architecture_of, shape_of
from jv5kit.training.attention import Layout, attend
from jv5kit.training.layer import Layer, low_precision, new_norm, place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from jv5kit.training.architectures import Architecture, Shape
    from jv5kit.training.layer import Angles, Attention

ROUND = 128
"""Tokens that a CPU computes in bfloat16 are a multiple of this: oneDNN compiles a kernel for each number of rows that
it has not seen, which takes longer than the multiplication of 2,000."""


@dataclass(slots=True)
class _Ends:
    """What comes before the layers, and after them."""

    tokens: nn.Embedding
    positions: nn.Embedding | None
    types: nn.Embedding | None
    embedding_norm: nn.Module | None
    final_norm: nn.Module | None


class PackedModel(nn.Module):
    """A backbone, its weights not set; see :meth:`initialize` and ``load_state_dict``. On "meta", it has shapes alone.

    Attributes:
        architecture: the row of the table.
        shape: the model's numbers.
        theta: base of the rotary positions, None for a table of positions.

    Raises:
        InputError: the settings are those of no architecture of the table.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.architecture: Architecture = architecture_of(config)
        self.shape: Shape = shape_of(self.architecture, config)
        self.theta = self.shape.theta
        # Weights are loaded or drawn later; torch's own draw of each takes seconds on a large model.
        shapes_alone = torch.get_default_device().type == "meta"
        with torch.device("meta"):
            self._build()
        if not shapes_alone:
            self.to_empty(device="cpu")

    @property
    def dim(self) -> int:
        """Values of a token's state."""
        return self.shape.hidden

    @property
    def vocabulary(self) -> int:
        """Tokens that there are embeddings of."""
        return self.shape.vocabulary

    @property
    def room(self) -> int | None:
        """Tokens that the table of positions has room for, None for rotary positions."""
        return self.shape.positions - self.shape.first_position if self.shape.positions else None

    @property
    def named(self) -> nn.Module:
        """The module whose tensors have transformers' own names."""
        return self

    def linears(self) -> dict[str, nn.Linear]:
        """The linear layers of the layers, by name: what an adapter adapts."""
        return {name: module for name, module in self.named_modules() if isinstance(module, nn.Linear)}

    def layer_modules(self) -> list[nn.Module]:
        """The layers, which are called one after the other."""
        return list(self._layers)

    def set_rope_theta(self, theta: float) -> None:
        """Set the base of the rotary positions.

        Raises:
            InputError: the model has a table of positions instead.
        """
        if self.theta is None:
            raise InputError(
                f"rope theta {theta:g} is set for a {self.architecture.name}, which has no rotary positions"
            )
        self.theta = theta

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Draw the weights as transformers does: a normal distribution, biases 0, norms 1."""
        draw = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, self.shape.deviation, generator=draw)
            else:
                parameter.fill_(1.0 if name.endswith(".weight") else 0.0)

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """The states of tokens.

        Args:
            tokens: int64 ``(T,)``, the texts one after the other.
            lengths: tokens of each text, none of them 0; T together. Neighbors of the same length go through attention
                together, so that sorted lengths are the fastest.

        Returns:
            ``(T, dim)``.

        Raises:
            InputError: the lengths are not those of the tokens, or beyond the model's positions.
        """
        self._check(tokens, lengths)
        layout = Layout(lengths, tokens.device)
        count = len(tokens)
        spare = -count % ROUND if tokens.device.type == "cpu" and low_precision(tokens.device) else 0

        def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            attended = attend(query[:count], key[:count], value[:count], layout, causal=self.architecture.causal)
            return pad(attended, (0, 0, 0, spare))

        states = self.run(pad(tokens, (0, spare)), pad(layout.positions, (0, spare)), attention)
        return states[:count] if spare else states

    def run(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """The states of tokens, whatever attention makes of which tokens see each other.

        Args:
            tokens: int64 ``(T,)``.
            positions: int64 ``(T,)``, of each token in its text, from 0 on.
            attention: of queries ``(T, heads, width)``, keys and values ``(T, kv_heads, width)``, to
                ``(T, heads * width)``.

        Returns:
            ``(T, dim)``.
        """
        states = self._embed(tokens, positions)
        angles = self._angles(positions)
        for layer in self._layers:
            states = layer(states, angles, attention)
        return states if self._ends.final_norm is None else self._ends.final_norm(states)

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        ends = self._ends
        states: Tensor = ends.tokens(tokens)
        if ends.positions is not None:
            states = states + ends.positions(positions + self.shape.first_position)
        if ends.types is not None:
            # All tokens are of the first type.
            states = states + ends.types.weight[0]
        return states if ends.embedding_norm is None else ends.embedding_norm(states)

    def _angles(self, positions: Tensor) -> Angles | None:
        if self.theta is None:
            return None
        width = self.shape.head_width
        exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
        frequencies: Tensor = 1.0 / self.theta**exponents
        angles = positions[:, None, None] * frequencies
        return angles.cos(), angles.sin()

    def _check(self, tokens: Tensor, lengths: Sequence[int]) -> None:
        if sum(lengths) != len(tokens) or min(lengths, default=0) < 1:
            raise InputError(f"lengths sum to {sum(lengths)} for {len(tokens)} tokens; each must be at least 1")
        if self.room is not None and max(lengths) > self.room:
            raise InputError(f"a text has {max(lengths)} tokens; the model has positions for {self.room}")

    def _build(self) -> None:
        names, shape = self.architecture.names, self.shape
        # In plain objects: set as attributes, the modules would be registered under a second name.
        self._ends = _Ends(
            tokens=place(self, names.tokens, nn.Embedding(shape.vocabulary, shape.hidden)),
            positions=self._table(names.positions, shape.positions),
            types=self._table(names.types, shape.types),
            embedding_norm=self._norm(names.embedding_norm),
            final_norm=self._norm(names.final_norm),
        )
        self._layers = [
            place(self, f"{names.layer}{number}", Layer(self.architecture, shape)) for number in range(shape.layers)
        ]

    def _table(self, name: str | None, rows: int) -> nn.Embedding | None:
        return place(self, name, nn.Embedding(rows, self.shape.hidden)) if name is not None else None

    def _norm(self, name: str | None) -> nn.Module | None:
        if name is None:
            return None
        return place(self, name, new_norm(self.architecture, self.shape, self.shape.hidden))
