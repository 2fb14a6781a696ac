"""Run by torchrun, and called without: the gradients of a batch in many ways, clipped, written by the first process.

``python gradients.py MODEL PADDED FOLDER``, two models of which the second runs padded.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from jv5kit import Encoder
from jv5kit.errors import InputError
from jv5kit.training import gathering, loop, lora
from jv5kit.training.hardware import accelerator_of
from jv5kit.training.objectives import ClassificationObjective, DistillObjective, Objective, RetrievalObjective
from jv5kit.training.processes import processes, together
from jv5kit.training.projection import Distillation
from jv5kit.training.rows import Pair
from jv5kit.training.sharding import clip_gradients, spread, whole
from jv5kit.training.sizes import ClassificationSettings, DistillSettings, OptimizerSettings, RetrievalSettings
from jv5kit.training.student import Student, StudentStart
from jv5kit.training.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

WORDS = ["penguin", "bird", "sea", "ice", "warm", "the", "a"]


@dataclass(frozen=True)
class Case:
    """A way to a gradient.

    Attributes:
        objective: what is minimized: distilled into the whole student, else into an adapter.
        rows: of the batch, of which a process may have none.
        tokens: of a pass.
        shard: whether the weights are spread, where there are several processes.
        padded: whether the student runs padded.
        detached: whether embeddings are gathered without gradient, which must show.
        bfloat16: whether matrices are multiplied in it.
    """

    objective: str
    rows: int = 7
    tokens: int = 40
    shard: bool = False
    padded: bool = False
    detached: bool = False
    bfloat16: bool = False


PLAIN: dict[str, Case] = {
    "retrieval": Case("retrieval"),
    "classification": Case("classification"),
    "distill": Case("distill"),
    "one pass": Case("distill", tokens=1000),
    "one row": Case("distill", rows=1),
    "one row in passes": Case("distill", rows=1, tokens=3),
    "padded": Case("distill", padded=True),
    "bfloat16": Case("retrieval", bfloat16=True),
}
SHARDED = {f"{name}, sharded": Case(**vars(case) | {"shard": True}) for name, case in PLAIN.items()}
DETACHED = {"detached": Case("retrieval", detached=True)}


class Batch:
    """A batch of rows that have from none to two negatives, so that the processes' shares differ."""

    number = 0

    def __init__(self, rows: int) -> None:
        self.source: Any = self
        self.name, self.length, self.positions = "rows", None, tuple(range(rows))
        self.rows = [
            Pair(
                f"{WORDS[i]} {WORDS[(i + 2) % 7]} {i}",
                f"the {WORDS[i]} of {WORDS[(i + 3) % 7]}" if i != 3 else "the penguin of ice",
                tuple(f"{WORDS[(i + j) % 7]} {j}" for j in range(i % 3)),
            )
            for i in range(rows)
        ]

    def origin(self, position: int) -> str:
        return f"rows:{position}"


def objective_of(name: str, student: Student) -> Objective:
    nested = [(student.dim, 1.0), (16, 0.5)]
    if name == "classification":
        return ClassificationObjective(ClassificationSettings(learn_temperature=True), nested)
    projection = Distillation(
        student.dim, 64, "student", "orthogonal", dims=[64, 16], weights=[1.0, 0.5], rotated=False
    )
    if name == "distill":
        return DistillObjective(DistillSettings(), projection, nested)
    settings = RetrievalSettings(learn_temperature=True, sign=0.3, ranking=0.5, ranking_sign=0.2, sign_dim=32)
    return RetrievalObjective(settings, projection, nested)


def student_of(case: Case, model: str) -> Student:
    student = Student.load(StudentStart(model=model))
    if case.objective != "distill":
        lora.add_adapter(student, 4, 8.0, 0.0, seed=1)
        for parameter in student.parameters():
            if parameter.requires_grad and not parameter.any():
                # Where lora_B is 0 nothing reaches lora_A.
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    if case.shard and processes() > 1:
        spread(student.backbone)
    return student


@contextmanager
def detached() -> Iterator[None]:
    gather = gathering.gather
    vars(loop)["gather"] = lambda rows, counts: gather(rows, counts).detach().requires_grad_()
    yield
    vars(loop)["gather"] = gather


class Coming:
    """No batches, at a position."""

    def position(self) -> dict[str, Any]:
        return {}

    def go_to(self, position: dict[str, Any]) -> None:
        pass


def loop_of(case: Case, model: str, padded: str, folder: Path) -> loop.Loop:
    accelerator = accelerator_of(bfloat16=False)
    if case.bfloat16:
        # Accelerators of one process are of one type.
        vars(accelerator)["autocast"] = partial(torch.autocast, "cpu", torch.bfloat16)
    student = student_of(case, padded if case.padded else model)
    objective = objective_of(case.objective, student)
    targets = None
    if case.objective != "classification":
        encoder = Encoder.from_pretrained(model, dtype="float32")
        teacher = Teacher(encoder, folder / f"teacher-{accelerator.process_index}")
        targets = loop.Targets(teacher, {"query": "", "document": ""})
    coming: Any = Coming()
    optimizer = OptimizerSettings(pass_tokens=case.tokens)
    return loop.Loop(accelerator, student, objective, coming, RetrievalSettings(length=64), optimizer, targets)


def gradients(case: Case, model: str, padded: str, folder: Path) -> dict[str, Tensor]:
    """The gradients of what is learned, clipped, and the norm that they had."""
    one = loop_of(case, model, padded, folder)
    batch: Any = Batch(case.rows)
    if case.detached:
        with detached():
            one.backward(batch)
    else:
        one.backward(batch)
    norm = clip_gradients(one.trained_parameters.values(), 0.5)
    found = {name: own.grad for name, own in one.trained_parameters.items() if own.grad is not None}
    return whole(found) | {"norm": torch.tensor(norm)}


def draws(one: loop.Loop) -> dict[str, Tensor]:
    """What each process draws: in a new phase, taken up, taken up once more, and where one process has written it."""
    checkpoint = one.checkpoint()
    drawn = {"new": torch.rand(5)}
    alone = replace(checkpoint, random={"0": checkpoint.random["0"]})
    for name, taken in (("taken up", checkpoint), ("again", checkpoint), ("of one", alone)):
        one.go_on(replace(taken, trained=one.trained(), optimizer={}))
        drawn[name] = torch.rand(5)
    every: list[Any] = [None] * processes()
    torch.distributed.all_gather_object(every, drawn)
    return {f"{name} {process}": values for process, own in enumerate(every) for name, values in own.items()}


def failures() -> dict[str, Tensor]:
    """What each process has of an error that the last one has."""
    process, message = torch.distributed.get_rank(), ""
    try:
        with together():
            if process == processes() - 1:
                raise InputError("the last one cannot go on")
    except InputError as error:
        message = str(error)
    said: list[str] = [""] * processes()
    torch.distributed.all_gather_object(said, message)
    return {f"{i} {message}": torch.ones(()) for i, message in enumerate(said)}


def note_parting(folder: Path, process: int) -> None:
    """Write whether this process has let go of the others by now."""
    parted = torch.tensor(not torch.distributed.is_initialized())
    save_file({"parted": parted}, folder / f"end of {process}.safetensors")


def main(model: str, padded: str, folder: str) -> None:
    # Called after what is registered later.
    atexit.register(note_parting, Path(folder), int(os.environ["RANK"]))
    torch.set_num_threads(1)
    found = {name: gradients(case, model, padded, Path(folder)) for name, case in (PLAIN | SHARDED | DETACHED).items()}
    torch.manual_seed(5)
    found["draws"] = draws(loop_of(PLAIN["retrieval"], model, padded, Path(folder)))
    found["failures"] = failures()
    if accelerator_of(bfloat16=False).is_main_process:
        for name, own in found.items():
            save_file(own, Path(folder) / f"{name}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
