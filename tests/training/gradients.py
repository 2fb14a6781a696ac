"""Run by torchrun, and without: the gradients of a batch for each objective, written by the first process.

``python gradients.py MODEL FOLDER``; those of ``detached`` are gathered without gradient, which must show.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from jv5kit import Encoder
from jv5kit.training import gathering, loop, lora
from jv5kit.training.hardware import accelerator_of
from jv5kit.training.objectives import ClassificationObjective, Objective, RetrievalObjective
from jv5kit.training.projection import Distillation
from jv5kit.training.rows import Pair
from jv5kit.training.sizes import ClassificationSettings, OptimizerSettings, RetrievalSettings
from jv5kit.training.student import Student, StudentStart
from jv5kit.training.teacher import Teacher

if TYPE_CHECKING:
    from accelerate import Accelerator

WORDS = ["penguin", "bird", "sea", "ice", "warm", "the", "a"]


class Batch:
    """A batch of rows that have from none to two negatives, so that the processes' shares differ."""

    number = 0
    positions = tuple(range(7))

    def __init__(self) -> None:
        self.source: Any = self
        self.name, self.length = "rows", None
        self.rows = [
            Pair(
                f"{WORDS[i]} {WORDS[(i + 2) % 7]} {i}",
                f"the {WORDS[i]} of {WORDS[(i + 3) % 7]}" if i != 3 else "the penguin of ice",
                tuple(f"{WORDS[(i + j) % 7]} {j}" for j in range(i % 3)),
            )
            for i in range(7)
        ]

    def origin(self, position: int) -> str:
        return f"rows:{position}"


def objective_of(name: str, student: Student) -> Objective:
    nested = [(student.dim, 1.0), (16, 0.5)]
    if name == "classification":
        return ClassificationObjective(ClassificationSettings(learn_temperature=True), nested)
    projection = Distillation(
        student.dim, student.dim, "student", "orthogonal", dims=[64, 16], weights=[1.0, 0.5], rotated=False
    )
    settings = RetrievalSettings(learn_temperature=True, sign=0.3, ranking=0.5, ranking_sign=0.2, sign_dim=32)
    return RetrievalObjective(settings, projection, nested)


def gradients(accelerator: Accelerator, model: str, name: str, folder: Path) -> dict[str, torch.Tensor]:
    student = Student.load(StudentStart(model=model))
    lora.add_adapter(student, 4, 8.0, 0.0, seed=1)
    for parameter in student.parameters():
        if parameter.requires_grad and not parameter.any():
            # Where lora_B is 0 nothing reaches lora_A.
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    objective = objective_of(name, student)
    targets = None
    if objective.asks_teacher:
        encoder = Encoder.from_pretrained(model, dtype="float32")
        targets = loop.Targets(Teacher(encoder, folder), {"query": "", "document": ""})
    coming: Any = None
    optimizer = OptimizerSettings(pass_tokens=40)
    one = loop.Loop(accelerator, student, objective, coming, RetrievalSettings(length=64), optimizer, targets)
    batch: Any = Batch()
    one.backward(batch)
    return {name: own.grad for name, own in one.trained_parameters.items() if own.grad is not None}


def main(model: str, folder: str) -> None:
    torch.set_num_threads(1)
    accelerator = accelerator_of(bfloat16=False)
    cache = Path(folder) / f"teacher-{accelerator.process_index}"
    found = {name: gradients(accelerator, model, name, cache) for name in ("retrieval", "classification")}
    gather = gathering.gather
    vars(loop)["gather"] = lambda rows, counts: gather(rows, counts).detach().requires_grad_()
    found["detached"] = gradients(accelerator, model, "retrieval", cache)
    if accelerator.is_main_process:
        for name, own in found.items():
            save_file(own, Path(folder) / f"{name}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
