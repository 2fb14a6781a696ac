"""What a run will take, before it is begun: parameters, tokens, time, memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.logs import logger
from jv5kit.pretrained import load_checkpoint, read_config
from jv5kit.training.hardware import fast_bfloat16
from jv5kit.training.memory import Machine, Memory, Work, memory
from jv5kit.training.packed import PackedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.training.phases import Phase
    from jv5kit.training.sizes import RunSettings, StudentSettings

KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-0.6B-Base": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_theta": 1e6,
    },
    "Qwen/Qwen3-Embedding-4B": {
        "model_type": "qwen3",
        "vocab_size": 151_665,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_theta": 1e6,
    },
    "EuroBERT/EuroBERT-210m": {
        "model_type": "eurobert",
        "vocab_size": 128_256,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 2.5e5,
    },
}
"""Shapes of the sizes' backbones and of their teacher, so that an estimate needs no network."""

PRODUCT_SHARE = 0.6
"""Of a measured product's speed, what a step reaches: norms, attention and the optimizer take the rest."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a phase will take.

    Attributes:
        phase: its name.
        trained: parameters that are learned.
        tokens: of a step, at most, over all processes.
        seconds: of the phase, if each text is as long as may be.
        memory: of each process, here.
        on_gpu: of each process, on a GPU.
    """

    phase: str
    trained: int
    tokens: int
    seconds: float
    memory: Memory
    on_gpu: Memory


@dataclass(frozen=True, slots=True)
class Estimates:
    """What a run will take.

    Attributes:
        parameters: of the backbone.
        matrices: of those, what each token is multiplied with.
        phases: each by itself.
        flops: a second, measured.
        device: where.
        processes: that share a batch, each on a device of its own.
    """

    parameters: int
    matrices: int
    phases: list[Estimate]
    flops: float
    device: str
    processes: int


def estimate(settings: RunSettings, phases: Sequence[Phase], processes: int = 1) -> Estimates:
    """Estimate a run.

    Args:
        settings: of the run.
        phases: of it, those that are gone through.
        processes: that share a batch.

    Raises:
        ModelNotFoundError: the backbone is no model that can be found, and none that is known.
        InputError: the backbone is of an architecture that cannot be counted.
    """
    config = config_of(settings.student)
    with torch.device("meta"):
        model = PackedModel(config)
    teacher = _size_of(settings.teacher.model)
    bfloat16 = settings.optimizer.bfloat16
    here = Machine(torch.cuda.is_available(), bfloat16 and fast_bfloat16())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    linears = model.linears().values()
    matrices = sum(linear.weight.numel() for linear in linears)
    adapter = sum(linear.in_features + linear.out_features for linear in linears)
    flops, device = measured_flops()
    made = []
    for phase in phases:
        rank = getattr(phase.settings, "rank", 0)
        trained = rank * adapter if phase.task else parameters
        texts = 2 + (getattr(phase.settings, "negatives", 0) if phase.task != "text-matching" else 0)
        tokens = phase.settings.batch * texts * phase.settings.length
        again = tokens > processes * settings.optimizer.pass_tokens
        # Forward and backward: twice for the inputs' gradients, and once more for the weights' where they are learned.
        work = tokens * 2 * matrices * (2 + (phase.task is None) + again)
        seconds = phase.settings.steps * work / (flops * PRODUCT_SHARE * processes)
        step = Work(settings, phase, phase.settings.batch * texts, teacher, processes)
        held, on_gpu = (memory(model, step, machine) for machine in (here, Machine(True, bfloat16)))
        made.append(Estimate(phase.name, trained, tokens, seconds, held, on_gpu))
    return Estimates(parameters, matrices, made, flops, device, processes)


def measured_flops(size: int = 1024) -> tuple[float, str]:
    """Floating-point operations a second of a matrix product in the type of a run, and where."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.bfloat16 if fast_bfloat16() else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=kind)
    done, start = 0, 0.0
    for turn in range(12):
        if turn == 2:
            start = time.perf_counter()
        # To read a value is to wait for it.
        float((matrix @ matrix)[0, 0])
        done = turn
    return 2 * size**3 * (done - 1) / (time.perf_counter() - start), str(device)


def _size_of(teacher: str) -> tuple[int, int]:
    """Dimensions and parameters of a teacher; 0 of one that cannot be found or counted."""
    if not teacher:
        return 0, 0
    try:
        with torch.device("meta"):
            model = PackedModel(KNOWN.get(teacher) or read_config(load_checkpoint(teacher)))
    except InputError as error:
        logger.warning("the teacher's memory is left out: %s", error)
        return 0, 0
    return model.dim, sum(parameter.numel() for parameter in model.parameters())


def config_of(student: StudentSettings) -> dict[str, Any]:
    """The content of ``config.json`` of a student that is not made yet.

    Raises:
        ModelNotFoundError: what it starts from cannot be found, and is none of the known ones.
        InputError: a width is set without ``scratch``.
    """
    if (student.hidden_size or student.heads) and not student.scratch:
        raise InputError("student.hidden_size and student.heads are for scratch = true: weights have their width")
    config = KNOWN.get(student.model)
    if config is None or student.scratch:
        try:
            config = read_config(load_checkpoint(student.model))
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"the student's size is not known: {error}") from None
    changes = {
        "num_hidden_layers": len(student.layers),
        "intermediate_size": student.feed_forward,
        "hidden_size": student.hidden_size,
        "num_attention_heads": student.heads,
    }
    return config | {name: value for name, value in changes.items() if value}
