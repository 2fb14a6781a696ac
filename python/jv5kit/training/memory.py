"""What a process of training holds in memory at the peak of a step, by shapes alone.

The counts are of what torch keeps for the gradients of layer.py and losses.py; the tests compare them with steps that
are measured. The room that kernels take for themselves and the allocator's gaps come on top, and on a GPU about a
gigabyte of CUDA's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from torch import nn

from jv5kit.training.gathering import ALONE_BYTES
from jv5kit.training.phases import asks_teacher
from jv5kit.training.sizes import DistillSettings

if TYPE_CHECKING:
    from jv5kit.training.packed import PackedModel
    from jv5kit.training.phases import Phase
    from jv5kit.training.sizes import RunSettings

COMPARED = {
    "infonce": (5, 8),
    "sign": (0, 13),
    "ranking": (8, 30),
    "ranking_sign": (0, 54),
    "gor": (4, 0),
    "cosent": (3, 11),
    "relational": (8, 15),
    "score": (8, 6),
    "similarity": (4, 16),
}
"""Bytes of each pair of texts that a term compares: kept for the gradient, of each Matryoshka dimension; and made on
the way, of one dimension at a time."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it computes.

    Attributes:
        cuda: on a GPU, whose kernels keep less: of a norm its input, of dropout a byte for each value.
        bfloat16: whether matrices are multiplied in it.
    """

    cuda: bool
    bfloat16: bool

    @property
    def width(self) -> int:
        """Bytes of a value in a matrix product."""
        return 2 if self.bfloat16 else 4


@dataclass(frozen=True, slots=True)
class Work:
    """A step of a phase, as one of the processes has it.

    Attributes:
        settings: of the run.
        phase: of the step.
        texts: of the whole batch.
        teacher: dimensions and parameters of the teacher.
        processes: that share the batch.
    """

    settings: RunSettings
    phase: Phase
    texts: int
    teacher: tuple[int, int]
    processes: int

    @property
    def tokens(self) -> int:
        """Of the process's texts, at most."""
        return ceil(self.texts / self.processes) * self.phase.settings.length

    @property
    def pass_tokens(self) -> int:
        """Of a pass, at most."""
        return min(self.tokens, self.settings.optimizer.pass_tokens)

    @property
    def spread(self) -> bool:
        """Whether the student's weights are."""
        return self.settings.optimizer.shard and self.processes > 1


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a process.

    Attributes:
        peak: of what follows, what is there at once at most.
        weights: the student's and what is learned beside them, with the moments of AdamW.
        gradients: of what is learned.
        one_pass: what a pass keeps for its gradients, and makes on the way.
        loss: the embeddings of the whole batch, and what the loss makes of them.
        teacher: its weights.
    """

    peak: int
    weights: int
    gradients: int
    one_pass: int
    loss: int
    teacher: int


def memory(model: PackedModel, work: Work, machine: Machine) -> Memory:
    """What a process holds.

    Args:
        model: the student's, of which only shapes count.
        work: what it does.
        machine: where.
    """
    learned, asked = work.phase.task is None, asks_teacher(work.phase)
    layer = sum(parameter.numel() for parameter in model.layer_modules()[0].parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    ends = total - layer * model.shape.layers
    backbone = ceil(total / work.processes) if work.spread else total
    # The adapter and the projection are not spread.
    beside = sum(_adapter(model, work)) + (model.dim * work.teacher[0] if asked else 0)
    trained = beside + (backbone if learned else 0)
    weights, gradients = 4 * (backbone + beside) + 8 * trained, 4 * trained

    one_pass = work.pass_tokens * _of_token(model, work, machine)
    if machine.bfloat16:
        # Each matrix as it was multiplied with.
        one_pass += 2 * sum(linear.weight.numel() for linear in model.linears().values())
    if learned:
        # The gradient of the tokens' table is made anew by each pass, to be added to what is there.
        one_pass = max(one_pass, 4 * ends)
    if work.spread:
        # The ends and two layers are whole at a time, and the gradient of one of them, before and as it is summed.
        one_pass += 4 * (ends + 2 * layer) + (4 * 2 * max(ends, layer) if learned else 0)
    loss = _of_loss(model, work)
    exchanged = gradients + (_joined(model, work) if work.processes > 1 else 0)
    if work.tokens > work.pass_tokens:
        step = max(loss, gradients + one_pass, exchanged)
    else:
        # What the pass keeps waits for the loss.
        step = max(one_pass + loss, exchanged)
    teacher = work.teacher[1] * machine.width if asked else 0
    return Memory(weights + teacher + step, weights, gradients, one_pass, loss, teacher)


def _of_token(model: PackedModel, work: Work, machine: Machine) -> int:
    """Bytes that a pass keeps of each token in all layers, and makes on the way in one of them."""
    shape, architecture, width = model.shape, model.architecture, machine.width
    states, own, shared = shape.hidden, shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    learned = work.phase.task is None
    inner = (1 if architecture.names.gate is None else 2) * shape.intermediate
    # Norms read float32. On a CPU those without a mean are made of parts, which keep what the weights are learned by.
    parts = 2 if learned and not machine.cuda else 1
    kept = 4 * 2 * states * (1 if architecture.post_norm else parts)
    if architecture.names.head_norms is not None:
        kept += (own + shared) * width * parts
    # Queries, keys, values, and what becomes of them: in float32, keys and values repeated, but for a GPU's kernel.
    fused = machine.cuda and machine.bfloat16
    kept += 2 * width * (own + shared) if fused else 4 * 4 * own
    kept += inner * width
    if learned:
        # What linear layers read; the feed-forward's second one has its input made again.
        kept += (2 * states + (0 if fused else own)) * width
    else:
        kept += _of_adapter(model, work, machine)
    return shape.layers * kept + 4 * 2 * states + 2 * inner * width


def _of_adapter(model: PackedModel, work: Work, machine: Machine) -> int:
    """Bytes that an adapter keeps of each token in a layer."""
    assert work.phase.task is not None
    settings = work.settings.adapter(work.phase.task)
    linears = [module for module in model.layer_modules()[0].modules() if isinstance(module, nn.Linear)]
    kept = len(linears) * settings.rank * machine.width
    if settings.dropout:
        # Of the input of each, what is left and what was left out.
        inputs = sum(linear.in_features for linear in linears)
        return kept + inputs * (machine.width + (1 if machine.cuda else machine.width))
    return kept + (2 * model.shape.hidden + model.shape.heads * model.shape.head_width) * machine.width


def _of_loss(model: PackedModel, work: Work) -> int:
    """Bytes of the whole batch's embeddings and of what the loss makes of them, in every process alike."""
    own, student = work.phase.settings, work.settings.student
    dims = student.dims or (model.dim,)
    rows, candidates = own.batch, work.texts - own.batch
    pairs = {
        "infonce": rows * candidates + (rows**2 if work.phase.task == "classification" else 0),
        "gor": 2 * rows**2,
        "cosent": rows**2,
        "relational": work.texts**2,
        "score": 2 * rows**2,
        "similarity": (2 * rows) ** 2,
    }
    if isinstance(own, DistillSettings):
        terms = [own.objective, *(["similarity"] if own.similarity else [])]
    else:
        terms = [name for name in COMPARED if getattr(own, name, 0.0)]
    compared = [(pairs.get(name, rows * candidates), *COMPARED[name]) for name in terms if name in COMPARED]
    kept = sum(count * each for count, each, _ in compared) * len(dims)
    once = max((count * each for count, _, each in compared), default=0)
    values = work.texts * (4 * model.dim + (sum(dims) if compared else 0))
    if asks_teacher(work.phase):
        target = work.teacher[0]
        # Of rotated targets a dimension is compared with as many values, else with all.
        spaces = [min(dim, target) if work.settings.teacher.rotate else target for dim in dims]
        values += 2 * rows * (4 * target + 2 * sum(spaces))
    return kept + once + 4 * values


def _adapter(model: PackedModel, work: Work) -> list[int]:
    """Parameters of each matrix of the adapter that is trained."""
    if work.phase.task is None:
        return []
    rank = work.settings.adapter(work.phase.task).rank
    linears = model.linears().values()
    return [rank * side for linear in linears for side in (linear.in_features, linear.out_features)]


def _joined(model: PackedModel, work: Work) -> int:
    """Bytes of the gradients that are joined to be exchanged: the small ones of what is not spread."""
    learned = [] if work.phase.task or work.spread else [parameter.numel() for parameter in model.parameters()]
    return sum(4 * count for count in [*learned, *_adapter(model, work)] if 4 * count < ALONE_BYTES)
