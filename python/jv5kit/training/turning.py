"""Turning a model's states, so that its embeddings begin where rotated targets are.

A student that keeps layers of its teacher would have to learn the rotation of the targets first, and unlearn most of
what it has on the way. Norms after the residual sum let the rotation go into the weights instead: a matrix ``R`` with
``R 1 = 1`` commutes with taking off the mean and dividing by the deviation, so all that reads and all that writes the
states is turned with them. Only the norms' gains stand in the way, one a dimension. What reads a norm's result takes
its gains over exactly; in the residual sum they are replaced by their root mean square, which is near: a norm's gains
differ by a tenth or two in models of this kind. Training mends the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jv5kit.errors import InputError
from jv5kit.training.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from jv5kit.training.student import Student


def turn_states(student: Student, matrix: Tensor) -> None:
    """Turn a student's states so that it gives about ``embedding @ matrix`` where it gave ``embedding``; in place.

    Args:
        student: of an architecture with norms after the residual sum.
        matrix: orthogonal, ``(dim, dim)``.

    Raises:
        InputError: the architecture is another, or the matrix has another shape.
    """
    row = ARCHITECTURES.get(str(student.config.get("model_type")))
    if row is None or not row.post_norm:
        kinds = ", ".join(name for name, known in ARCHITECTURES.items() if known.post_norm)
        raise InputError(
            f"student.turn is set, and a {student.config.get('model_type')} cannot be turned: only {kinds} can; "
            "leave it out"
        )
    if matrix.shape != (student.dim, student.dim):
        raise InputError(
            f"student.turn is set, and the targets have {matrix.shape[0]} dimensions where the student has "
            f"{student.dim}: leave it out"
        )
    names, tensors = row.names, student.backbone.named.state_dict()
    turn = keeping_ones(matrix.T.double()).to(student.device)

    def write(name: str, value: Tensor) -> None:
        tensors[name].copy_(value)

    def norm(name: str, readers: list[str]) -> None:
        gain, shift = tensors[f"{name}.weight"].double(), tensors[f"{name}.bias"].double()
        scale = gain.square().mean().sqrt()
        for reader in readers:
            weight = tensors[f"{reader}.weight"].double()
            own = weight * (gain / scale)
            write(f"{reader}.bias", tensors[f"{reader}.bias"].double() + (weight - own) @ shift)
            write(f"{reader}.weight", own @ turn.T)
        write(f"{name}.weight", scale.expand_as(gain))
        write(f"{name}.bias", turn @ shift)

    with torch.no_grad():
        for table in filter(None, (names.tokens, names.positions, names.types)):
            write(f"{table}.weight", tensors[f"{table}.weight"].double() @ turn.T)
        assert names.embedding_norm is not None
        before = names.embedding_norm
        for number in range(student.config["num_hidden_layers"]):
            layer = f"{names.layer}{number}."
            norm(before, [layer + name for name in (names.query, names.key, names.value)])
            norm(layer + names.attention_norm, [layer + names.up])
            for writer in (layer + names.attention_output, layer + names.down):
                write(f"{writer}.weight", turn @ tensors[f"{writer}.weight"].double())
                write(f"{writer}.bias", turn @ tensors[f"{writer}.bias"].double())
            before = layer + names.feed_forward_norm
        norm(before, [])


def keeping_ones(turn: Tensor) -> Tensor:
    """An orthogonal matrix near another one that leaves the vector of ones where it is.

    A reflection takes ``turn @ 1`` back to ``1``; it changes what any other vector becomes along one direction alone.
    """
    ones = torch.full((len(turn),), len(turn) ** -0.5, dtype=turn.dtype)
    away = turn @ ones - ones
    length = away.norm()
    if length < 1e-9:
        return turn
    away = away / length
    return turn - 2 * torch.outer(away, away @ turn)
