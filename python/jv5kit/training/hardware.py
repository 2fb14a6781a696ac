"""Where a run computes, and in what type."""

from __future__ import annotations

import atexit

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState, is_initialized

from jv5kit.training.processes import PATIENCE, meet, part


def accelerator_of(*, bfloat16: bool) -> Accelerator:
    """Device, type and processes of a run: a GPU if there is one, and as many processes as torchrun started.

    Args:
        bfloat16: multiply in bfloat16 where that is faster than float32.
    """
    meet()
    precision = "bf16" if bfloat16 and fast_bfloat16() else "no"
    if is_initialized() and AcceleratorState().mixed_precision != precision:
        # A process has one type at a time, and accelerate no other way to let a later run have another.
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=precision,
        # Of processes that have not met.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if accelerator.num_processes > 1:
        atexit.register(part)
    return accelerator


def fast_bfloat16() -> bool:
    """Whether bfloat16 has instructions of its own here; without them torch is slower in it than in float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Newer than the least torch that we take.
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in known if hasattr(torch.cpu, name))
