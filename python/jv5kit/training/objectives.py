"""What each phase minimizes: which texts of a batch are encoded, and the terms of the loss over their embeddings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from jv5kit.training import losses
from jv5kit.training.encoded import joined, negatives, never_negatives, of_teacher, two_columns
from jv5kit.training.projection import Distillation, over_dims
from jv5kit.training.rows import Scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.training.columns import Kind
    from jv5kit.training.encoded import Column, Encoded
    from jv5kit.training.rows import Row
    from jv5kit.training.sizes import (
        ClassificationSettings,
        ClusteringSettings,
        DistillSettings,
        RetrievalSettings,
        TextMatchingSettings,
    )

Nested = list[tuple[int, float]]
"""Matryoshka dimensions, each with its weight."""


Terms = dict[str, Tensor]


class Objective(Protocol):
    """What a phase minimizes.

    Attributes:
        kinds: of the rows that it takes.
        weights: of its terms; those of weight 0 are not computed.
        asks_base: whether it compares with the student without its adapter.
        module: what is learned beside the student: a projection, a temperature.
    """

    kinds: tuple[Kind, ...]
    weights: dict[str, float]
    asks_base: bool
    module: nn.Module

    def columns(self, rows: Sequence[Row]) -> list[Column]:
        """The texts of rows, all of one kind."""

    def terms(self, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Terms:
        """The terms of the loss of a batch, not weighted yet."""


class Temperature(nn.Module):
    """What cosines are divided by, fixed or learned: its logarithm is, within [0.001, 1]."""

    def __init__(self, value: float, *, learned: bool) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(value)), requires_grad=learned)

    def forward(self) -> Tensor:
        """The value."""
        return self.log.exp().clamp(1e-3, 1.0)


class DistillObjective:
    """Stage 1 (section 2 of the paper; of the ablations, score-based distillation and InfoNCE too)."""

    kinds: tuple[Kind, ...] = ("pairs", "texts", "scored")
    asks_base = False

    def __init__(self, settings: DistillSettings, projection: Distillation | None, nested: Nested) -> None:
        self.weights = {settings.objective: 1.0} | ({"similarity": settings.similarity} if settings.similarity else {})
        self.module: nn.Module = projection or nn.Module()
        self._projection = projection
        self._settings = settings
        self._nested = nested

    def columns(self, rows: Sequence[Row]) -> list[Column]:
        """See :class:`Objective`."""
        return two_columns(rows, "query")

    def terms(self, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Terms:  # noqa: ARG002 - others need the rows.
        """See :class:`Objective`."""
        compute = {
            "infonce": self._infonce,
            "distill": self._distances,
            # Queries beside queries, documents beside documents.
            "score": lambda encoded: torch.stack([self._scores(one) for one in encoded]).sum(),
            "similarity": self._similarities,
        }
        return {name: compute[name](encoded) for name in self.weights}

    def _distances(self, encoded: Sequence[Encoded]) -> Tensor:
        assert self._projection is not None
        return self._projection.distances(*joined(encoded))

    def _infonce(self, encoded: Sequence[Encoded]) -> Tensor:
        first, second = encoded
        never = never_negatives(first.column, second.column, None).to(first.student.device)
        return over_dims(
            lambda dim: losses.infonce(
                first.student[:, :dim], second.student[:, :dim], self._settings.temperature, never
            ),
            self._nested,
        )

    def _similarities(self, encoded: Sequence[Encoded]) -> Tensor:
        mine, theirs = joined(encoded)
        return over_dims(lambda dim: losses.similarity_distillation(mine[:, :dim], theirs), self._nested)

    def _scores(self, one: Encoded) -> Tensor:
        return over_dims(
            lambda dim: losses.score_distillation(one.student[:, :dim], of_teacher(one), self._settings.temperature),
            self._nested,
        )


class RetrievalObjective:
    """Stage 2, retrieval: InfoNCE, distillation and orthogonality (equation 4), and InfoNCE over bits.

    Not of the paper: the teacher's ranking of the candidates, by the values and by the bits.
    """

    kinds: tuple[Kind, ...] = ("pairs",)
    asks_base = False

    def __init__(self, settings: RetrievalSettings, projection: Distillation | None, nested: Nested) -> None:
        self._temperature = Temperature(settings.temperature, learned=settings.learn_temperature)
        self.module: nn.Module = nn.ModuleList([self._temperature, *([projection] if projection else [])])
        self.weights = _used(
            infonce=settings.infonce,
            distill=settings.distill,
            gor=settings.gor,
            sign=settings.sign,
            ranking=settings.ranking,
            ranking_sign=settings.ranking_sign,
        )
        self._ranks = bool({"ranking", "ranking_sign"} & self.weights.keys())
        self._settings = settings
        self._projection = projection
        self._nested = nested

    def columns(self, rows: Sequence[Row]) -> list[Column]:
        """See :class:`Objective`."""
        return [*two_columns(rows, "query"), negatives(rows, self._settings.negatives, taught=self._ranks)]

    def terms(self, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Terms:  # noqa: ARG002 - others need the rows.
        """See :class:`Objective`."""
        queries, positives, mined = encoded
        candidates = torch.cat([positives.student, mined.student])
        never = never_negatives(queries.column, positives.column, mined.column, shared=self._settings.share_negatives)
        never = never.to(candidates.device)
        terms: Terms = {}
        if "infonce" in self.weights:
            terms["infonce"] = over_dims(
                lambda dim: losses.infonce(queries.student[:, :dim], candidates[:, :dim], self._temperature(), never),
                self._nested,
            )
        if "distill" in self.weights:
            assert self._projection is not None
            terms["distill"] = self._projection.distances(*joined([queries, positives]))
        if "gor" in self.weights:
            terms["gor"] = over_dims(
                lambda dim: (
                    losses.orthogonality(queries.student[:, :dim]) + losses.orthogonality(positives.student[:, :dim])
                ),
                self._nested,
            )
        if "sign" in self.weights:
            own, others = (losses.signs(side, self._settings.sign_dim) for side in (queries.student, candidates))
            terms["sign"] = losses.infonce(own, others, self._temperature(), never)
        if self._ranks:
            itself = losses.repeats(queries.column.texts, positives.column.texts + mined.column.texts)
            itself = itself.to(candidates.device)
            asked, (_, every) = of_teacher(queries), joined([positives, mined])
            target = losses.cosines(asked, every)

            def compare(scores: Tensor) -> Tensor:
                return losses.ranking(scores, target, self._temperature(), itself)

            if "ranking" in self.weights:
                terms["ranking"] = over_dims(
                    lambda dim: compare(losses.cosines(queries.student[:, :dim], candidates[:, :dim])), self._nested
                )
            if "ranking_sign" in self.weights:
                views = losses.cosines_of_bits(queries.student, candidates, self._settings.sign_dim)
                terms["ranking_sign"] = torch.stack([compare(view) for view in views]).mean()
        return terms


class TextMatchingObjective:
    """Stage 2, text-matching: CoSENT of rows with a score (equation 5), InfoNCE and distillation of pairs (6)."""

    kinds: tuple[Kind, ...] = ("scored", "pairs")
    asks_base = False

    def __init__(self, settings: TextMatchingSettings, projection: Distillation | None, nested: Nested) -> None:
        self._temperature = Temperature(settings.temperature, learned=settings.learn_temperature)
        self.module: nn.Module = nn.ModuleList([self._temperature, *([projection] if projection else [])])
        self.weights = _used(cosent=settings.cosent, infonce=settings.infonce, distill=settings.distill)
        self._settings = settings
        self._projection = projection
        self._nested = nested

    def columns(self, rows: Sequence[Row]) -> list[Column]:
        """See :class:`Objective`."""
        first, second = two_columns(rows, "document")
        if isinstance(rows[0], Scored):
            return [first, second]
        return [first, second, negatives(rows, self._settings.negatives)]

    def terms(self, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Terms:
        """See :class:`Objective`."""
        terms: Terms = {}
        first, second = encoded[0], encoded[1]
        if isinstance(rows[0], Scored):
            scores = torch.tensor([row.score for row in rows if isinstance(row, Scored)], device=first.student.device)
            if "cosent" in self.weights:
                terms["cosent"] = over_dims(
                    lambda dim: losses.cosent(
                        first.student[:, :dim], second.student[:, :dim], scores, self._settings.cosent_temperature
                    ),
                    self._nested,
                )
            return terms
        candidates = torch.cat([second.student, encoded[2].student])
        never = never_negatives(first.column, second.column, encoded[2].column, shared=True).to(candidates.device)
        if "infonce" in self.weights:
            terms["infonce"] = over_dims(
                lambda dim: losses.infonce(first.student[:, :dim], candidates[:, :dim], self._temperature(), never),
                self._nested,
            )
        if "distill" in self.weights:
            assert self._projection is not None
            terms["distill"] = self._projection.distances(*joined([first, second]))
        return terms


class ClusteringObjective:
    """Stage 2, clustering: equation 1, of a teacher that was asked for topics."""

    kinds: tuple[Kind, ...] = ("pairs", "texts", "labeled")
    asks_base = False

    def __init__(self, settings: ClusteringSettings, projection: Distillation) -> None:
        self.module: nn.Module = projection
        self.weights = {"distill": settings.distill}
        self._projection = projection

    def columns(self, rows: Sequence[Row]) -> list[Column]:
        """See :class:`Objective`."""
        return two_columns(rows, "document")

    def terms(self, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Terms:  # noqa: ARG002 - others need the rows.
        """See :class:`Objective`."""
        return {"distill": self._projection.distances(*joined(encoded))}


class ClassificationObjective:
    """Stage 2, classification: InfoNCE in both directions (equation 7), and the distances of the base kept (8)."""

    kinds: tuple[Kind, ...] = ("labeled",)

    def __init__(self, settings: ClassificationSettings, nested: Nested) -> None:
        self._temperature = Temperature(settings.temperature, learned=settings.learn_temperature)
        self.module: nn.Module = self._temperature
        self.weights = _used(infonce=settings.infonce, relational=settings.relational)
        self.asks_base = "relational" in self.weights
        self._settings = settings
        self._nested = nested

    def columns(self, rows: Sequence[Row]) -> list[Column]:
        """See :class:`Objective`."""
        return [*two_columns(rows, "document"), negatives(rows, self._settings.negatives)]

    def terms(self, rows: Sequence[Row], encoded: Sequence[Encoded]) -> Terms:  # noqa: ARG002 - others need the rows.
        """See :class:`Objective`."""
        anchors, positives, others = encoded
        candidates = torch.cat([positives.student, others.student])
        never = never_negatives(anchors.column, positives.column, others.column, shared=True).to(candidates.device)
        back = never[:, : len(positives.student)].T
        terms: Terms = {}
        if "infonce" in self.weights:

            def both_ways(dim: int) -> Tensor:
                anchor, every = anchors.student[:, :dim], candidates[:, :dim]
                there = losses.infonce(anchor, every, self._temperature(), never)
                return there + losses.infonce(every[: len(anchor)], anchor, self._temperature(), back)

            terms["infonce"] = over_dims(both_ways, self._nested)
        if "relational" in self.weights:
            mine, bases = (torch.cat([getattr(one, side) for one in encoded]) for side in ("student", "base"))
            terms["relational"] = over_dims(lambda dim: losses.relational(mine[:, :dim], bases), self._nested)
        return terms


def _used(**weights: float) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight}
