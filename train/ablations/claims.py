"""The paper's claims, and the runs that try them: each a set of settings over those of train/pico.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Start = Literal["teacher", "stage 1"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A run.

    Attributes:
        claim: what it is for.
        name: of the variant.
        start: the teacher's layers, for a run of stage 1; or what stage 1 made, for an adapter.
        settings: over the recipe's, table in table.
        seed: of everything that is drawn.
        rows: of the work folder, that it is trained on.
    """

    claim: str
    name: str
    start: Start
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    rows: str = "mined"

    @property
    def key(self) -> str:
        """What distinguishes it from all others."""
        return f"{self.claim}/{self.name}/{self.seed}"

    @property
    def phase(self) -> str:
        """The phase that is run."""
        return "distill" if self.start == "teacher" else "retrieval"


LOSSES = {
    "NCE": {"infonce": 1.0, "distill": 0.0, "gor": 0.0},
    "distill": {"infonce": 0.0, "distill": 2.0, "gor": 0.0},
    "NCE + distill": {"infonce": 1.0, "distill": 2.0, "gor": 0.0},
    "NCE + GOR": {"infonce": 1.0, "distill": 0.0, "gor": 1.0},
    "distill + GOR": {"infonce": 0.0, "distill": 2.0, "gor": 1.0},
    "NCE + distill + GOR": {"infonce": 1.0, "distill": 2.0, "gor": 1.0},
    "NCE + distill + GOR + signs": {"infonce": 1.0, "distill": 2.0, "gor": 1.0, "sign": 0.5},
}
SEEDED = ("NCE + distill", "NCE + distill + GOR")
"""What the first claim compares: the effect is small, so that one seed says nothing."""

RATES = (1e-5, 3e-5, 1e-4, 3e-4)
OBJECTIVES = {"embeddings": "distill", "scores": "score", "InfoNCE": "infonce"}
PLACES = ("student", "student-frozen", "teacher-frozen", "teacher")

_PLAIN: dict[str, Any] = {"student": {"turn": False}, "teacher": {"rotate": False}}
"""Targets as the teacher gives them, so that nothing but what is compared differs."""


def trials() -> Iterator[Trial]:
    """All runs, claim by claim."""
    for name, weights in LOSSES.items():
        for seed in range(3 if name in SEEDED else 1):
            yield Trial("losses", name, "stage 1", {"retrieval": {"sign": 0.0} | weights}, seed)
    for name, objective in OBJECTIVES.items():
        for rate in RATES:
            distill = {"objective": objective, "similarity": 0.0, "learning_rate": rate}
            yield Trial("objectives", f"{name}, {rate:g}", "teacher", _PLAIN | {"distill": distill})
    for place in PLACES:
        distill = {"projection": place, "projection_start": "orthogonal", "similarity": 0.0, "learning_rate": 3e-4}
        yield Trial("projection", place, "teacher", _PLAIN | {"distill": distill})
    yield Trial("average", "last weights", "stage 1", {"retrieval": {"average": False}})
    yield Trial("average", "mean of two", "stage 1", {"retrieval": {"average": True}})
    for rotated in (False, True):
        for nested in (False, True):
            student: dict[str, Any] = {"turn": rotated} | ({} if nested else {"dims": [384]})
            name = f"{'Matryoshka' if nested else 'whole'}, {'rotated' if rotated else 'as it is'}"
            settings = {"student": student, "teacher": {"rotate": rotated}}
            yield Trial("dimensions", name, "teacher", settings, rows="spans")
