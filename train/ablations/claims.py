"""The paper's claims, and the runs that try them: each a set of settings over those of train/pico.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Start = Literal["teacher", "stage 1"]
PhaseName = Literal["distill", "retrieval", "text_matching", "clustering", "classification"]


def key_of(claim: str, name: str, seed: int) -> str:
    """What distinguishes a run from all others."""
    return f"{claim}/{name}/{seed}"


@dataclass(frozen=True, slots=True)
class Trial:
    """A run.

    Attributes:
        claim: what it is for.
        name: of the variant.
        start: the teacher's layers; or what stage 1 made, for an adapter or to go on with.
        phase: what is run; None measures the start as it is.
        settings: over the recipe's, table in table.
        seed: of everything that is drawn.
        rows: of the work folder, that it is trained on.
        kinds: of evaluation sets, that it is measured on.
    """

    claim: str
    name: str
    start: Start
    phase: PhaseName | None
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    rows: str = "mined"
    kinds: tuple[str, ...] = ("retrieval",)

    @property
    def key(self) -> str:
        """What distinguishes it from all others."""
        return key_of(self.claim, self.name, self.seed)


LOSSES = {
    "NCE": {"infonce": 1.0, "distill": 0.0, "gor": 0.0},
    "distill": {"infonce": 0.0, "distill": 2.0, "gor": 0.0},
    "NCE + distill": {"infonce": 1.0, "distill": 2.0, "gor": 0.0},
    "NCE + GOR": {"infonce": 1.0, "distill": 0.0, "gor": 1.0},
    "distill + GOR": {"infonce": 0.0, "distill": 2.0, "gor": 1.0},
    "NCE + distill + GOR": {"infonce": 1.0, "distill": 2.0, "gor": 1.0},
    "NCE + distill + GOR + signs": {"infonce": 1.0, "distill": 2.0, "gor": 1.0, "sign": 0.5},
    "distill + ranking": {"infonce": 0.0, "distill": 2.0, "gor": 0.0, "ranking": 1.0, "ranking_sign": 1.0},
}
"""The paper's six, the sign view on top of all, and the teacher's ranking in the place of InfoNCE."""

SEEDED = ("NCE + distill", "NCE + distill + GOR")
"""What the first claim compares: the effect is small, so that one seed says nothing."""

AVERAGED = "NCE + distill + GOR"
"""Of which the mean of two checkpoints is tried."""

RATES = (1e-5, 3e-5, 1e-4, 3e-4)
OBJECTIVES = {"embeddings": "distill", "scores": "score", "InfoNCE": "infonce"}
PLACES = ("student", "student-frozen", "teacher-frozen", "teacher")

ADAPTERS: dict[PhaseName, tuple[str, str]] = {
    "retrieval": ("mined", "retrieval"),
    "text_matching": ("scored", "sts"),
    "clustering": ("spans", "clustering"),
    "classification": ("labeled", "classification"),
}
"""For each adapter its rows, and the kind of sets that it is for, all by the recipe; the paper's losses are LOSSES."""

ALONE = "stage 1 alone"
LONGER = "stage 1 goes on"
"""Without an adapter, but with as many tokens more as an adapter is given."""

LONG = "long"
"""The claim whose runs are in long_context.py; the students that it compares, and the bases of their positions."""
BEFORE, AFTER, SHORT = "before the long phase", "after the long phase", "after as much of short texts"
TRAINED, RAISED = "as trained", "raised"

SEEDS = 3
"""Of what has a small effect."""

_PLAIN: dict[str, Any] = {"student": {"turn": False}, "teacher": {"rotate": False}}
"""Targets as the teacher gives them."""

_CONTRASTIVE: dict[str, Any] = {
    "batch": 64,
    "learning_rate": 1e-4,
    "ranking": 0.0,
    "ranking_sign": 0.0,
    "sign": 0.0,
    "average": False,
}
"""The paper's losses alone, and the same steps for all, whatever the recipe has."""


def trials() -> Iterator[Trial]:
    """All runs but those of the long context (long_context.py), claim by claim."""
    for name, weights in LOSSES.items():
        for seed in range(SEEDS if name in SEEDED else 1):
            yield Trial("losses", name, "stage 1", "retrieval", {"retrieval": _CONTRASTIVE | weights}, seed)
    for name, objective in OBJECTIVES.items():
        for rate in RATES:
            distill = {"objective": objective, "similarity": 0.0, "learning_rate": rate}
            yield Trial("objectives", f"{name}, {rate:g}", "teacher", "distill", _PLAIN | {"distill": distill})
    for place in PLACES:
        distill = {"projection": place, "projection_start": "orthogonal", "similarity": 0.0, "learning_rate": 3e-4}
        # All values alone: a prefix is compared with the whole target at one side, with a part of it at the other.
        whole = {"student": {"turn": False, "dims": [384]}, "teacher": {"rotate": False}, "distill": distill}
        yield Trial("projection", place, "teacher", "distill", whole)
    every = tuple(kind for _, kind in ADAPTERS.values())
    yield Trial("adapters", ALONE, "stage 1", None, kinds=every)
    longer = {"distill": {"learning_rate": 1e-4}}
    for seed in range(SEEDS):
        yield Trial("adapters", LONGER, "stage 1", "distill", longer, seed, rows="spans", kinds=every)
    for phase, (rows, kind) in ADAPTERS.items():
        # The recipe's own for retrieval is beside the paper's, which has its seeds among the losses.
        for seed in range(1 if phase == "retrieval" else SEEDS):
            yield Trial("adapters", phase.replace("_", "-"), "stage 1", phase, seed=seed, rows=rows, kinds=(kind,))
    # The last weights alone are the first seed of the losses' run.
    averaged = _CONTRASTIVE | LOSSES[AVERAGED] | {"average": True}
    yield Trial("average", "mean of two", "stage 1", "retrieval", {"retrieval": averaged})
    for rotated in (False, True):
        for nested in (False, True):
            # By weights: the rotation is fitted to the dimensions, and is to be the same.
            student: dict[str, Any] = {"turn": rotated} | ({} if nested else {"dim_weights": [1.0, 0.0, 0.0, 0.0, 0.0]})
            name = f"{'Matryoshka' if nested else 'whole'}, {'rotated' if rotated else 'as it is'}"
            settings = {"student": student, "teacher": {"rotate": rotated}}
            for seed in range(SEEDS):
                yield Trial("dimensions", name, "teacher", "distill", settings, seed, rows="spans")
