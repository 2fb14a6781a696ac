"""The linear map between a student's embeddings and its teacher's: there in training, and left behind by the model.

The paper compares its places (section 6.2): at the student it may be learned or not; at the teacher it may only be
frozen, for one that is learned there can make every target alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from jv5kit.training.losses import distillation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jv5kit.training.sizes import Projection, ProjectionStart


class Distillation(nn.Module):
    """The distance of a student's embeddings, and of their first so many values, from their teacher's.

    What the first ``d`` values of a student are compared with depends on the teacher. Where its targets are rotated,
    so that what matters comes first, it is their first ``d`` values; else the first ``d`` are to tell the whole target.

    Args:
        dim: of the student.
        teacher_dim: of the teacher.
        place: at whose side the projection is, and whether it is learned.
        start: what it begins as: ones on its diagonal, orthogonal rows or columns, or random values.
        dims: dimensions of the student that are compared, each by itself.
        weights: of these, in the same order; their sum does not count.
        rotated: whether the targets are.
        seed: of what is random.
    """

    def __init__(
        self,
        dim: int,
        teacher_dim: int,
        place: Projection,
        start: ProjectionStart,
        *,
        dims: Sequence[int],
        weights: Sequence[float],
        rotated: bool,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.at_teacher = place.startswith("teacher")
        self._nested = list(zip(dims, weights, strict=True))
        self._prefixes = rotated
        ins, outs = (teacher_dim, dim) if self.at_teacher else (dim, teacher_dim)
        self.weight = nn.Parameter(_start(outs, ins, start, seed))
        self.bias = nn.Parameter(torch.zeros(outs))
        self.requires_grad_(not place.endswith("frozen"))

    def targets(self, teacher: Tensor) -> Tensor:
        """What embeddings are compared with: unit rows, of the teacher's ``(n, teacher_dim)`` or projected ones."""
        return normalize(linear(teacher, self.weight, self.bias) if self.at_teacher else teacher)

    def projected(self, student: Tensor, dim: int) -> Tensor:
        """The first ``dim`` values of the student's embeddings in the space of the targets."""
        prefix = student[:, :dim]
        if self.at_teacher:
            return prefix
        outs = min(dim, len(self.weight)) if self._prefixes else len(self.weight)
        return linear(prefix, self.weight[:outs, :dim], self.bias[:outs])

    def distances(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean over the dimensions of :func:`~jv5kit.training.losses.distillation`."""
        targets = self.targets(teacher)

        def distance(dim: int) -> Tensor:
            own = self.projected(student, dim)
            return distillation(own, targets[:, : own.shape[1]])

        return over_dims(distance, self._nested)


def over_dims(loss: Callable[[int], Tensor], nested: Sequence[tuple[int, float]]) -> Tensor:
    """Weighted mean of a loss over Matryoshka dimensions, each with its weight."""
    total = sum(weight for _, weight in nested)
    values = [loss(dim) * (weight / total) for dim, weight in nested]
    return torch.stack(values).sum()


def _start(rows: int, columns: int, start: ProjectionStart, seed: int) -> Tensor:
    match start:
        case "identity":
            return torch.eye(rows, columns)
        case "orthogonal":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                drawn = torch.empty(rows, columns)
                nn.init.orthogonal_(drawn)
                return drawn
        case "random":
            generator = torch.Generator().manual_seed(seed)
            return torch.randn(rows, columns, generator=generator).mul_(columns**-0.5)
