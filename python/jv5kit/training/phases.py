"""The phases of a run: which there are, in which order, and which rows each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from jv5kit.errors import InputError
from jv5kit.tasks import TASKS, Task
from jv5kit.training.objectives import (
    ClassificationObjective,
    ClusteringObjective,
    DistillObjective,
    RetrievalObjective,
    TextMatchingObjective,
)
from jv5kit.training.sizes import ClusteringSettings, DistillSettings, RetrievalSettings, TextMatchingSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.training.columns import Kind
    from jv5kit.training.objectives import Nested
    from jv5kit.training.sizes import PhaseSettings, RunSettings

Stage = Literal["distill", "long", "adapt"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run that has an optimizer and a schedule of its own.

    Attributes:
        name: ``"distill"``, ``"long"``, or the task whose adapter is trained.
        settings: of the phase.
        task: the task, None in stage 1.
        number: its place in a whole run, from which its random numbers follow.
    """

    name: str
    settings: PhaseSettings
    task: Task | None
    number: int


def phases_of(settings: RunSettings, stages: Sequence[str], tasks: Sequence[Task]) -> list[Phase]:
    """The phases of a run, in order; those of no step are left out."""
    every = [Phase("distill", settings.distill, None, 0), Phase("long", settings.long, None, 1)]
    every += [Phase(task, settings.adapter(task), task, 2 + number) for number, task in enumerate(TASKS)]
    wanted = {*stages} - {"adapt"} | ({*tasks} if "adapt" in stages else set())
    return [phase for phase in every if phase.name in wanted and phase.settings.steps > 0]


_KINDS: dict[str, tuple[Kind, ...]] = {
    "distill": DistillObjective.kinds,
    "long": DistillObjective.kinds,
    "retrieval": RetrievalObjective.kinds,
    "text-matching": TextMatchingObjective.kinds,
    "clustering": ClusteringObjective.kinds,
    "classification": ClassificationObjective.kinds,
}


def kinds_of(phase: Phase) -> tuple[Kind, ...]:
    """The kinds of rows that a phase takes."""
    match phase.settings:
        case DistillSettings(objective="infonce"):
            # A text alone has no positive, and of two that are scored the second need not be one.
            return ("pairs",)
    return _KINDS[phase.name]


def asks_teacher(phase: Phase) -> bool:
    """Whether a phase compares with the teacher."""
    match phase.settings:
        case DistillSettings(objective="infonce", similarity=0.0):
            return False
        case DistillSettings() | ClusteringSettings():
            return True
        case RetrievalSettings() as own:
            return max(own.distill, own.ranking, own.ranking_sign) > 0
        case TextMatchingSettings(distill=weight):
            return weight > 0
    return False


def nested_of(settings: RunSettings, dim: int) -> Nested:
    """The Matryoshka dimensions of a student, each with its weight.

    Raises:
        InputError: one of them is beyond the student's.
    """
    student = settings.student
    dims = student.dims or (dim,)
    if max(dims) > dim:
        raise InputError(f"student.dims has {max(dims)}; the student has {dim} dimensions")
    return list(zip(dims, student.dim_weights or (1.0,) * len(dims), strict=True))
