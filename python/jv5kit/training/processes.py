"""Several processes of one run: how they meet, what they agree on, and how an error of one becomes the end of all.

torchrun starts them, and ends them when one has failed; it may then start the same command again.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from jv5kit.errors import Jv5kitError
from jv5kit.logs import logger

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: for one that reads all rows, or writes a large checkpoint."""

_c10d: Any = dist
"""Of the same module, what it does not say that it exports."""


def processes() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def restarts() -> int:
    """How often torchrun has started this process again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def meet() -> None:
    """Let the processes that torchrun started find each other, and none of those that it had started before.

    torchrun keeps one store through its restarts, in which new processes may find the addresses of those that are gone,
    and wait for them (https://github.com/pytorch/pytorch/issues/135712). So each start has a part of the store to
    itself. On several boxes a start has no number that all know: there torchrun is to make a store for each.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not launched() or not shared or dist.is_initialized() or os.environ["WORLD_SIZE"] == "1":
        return
    if os.environ["GROUP_WORLD_SIZE"] == "1":
        store = _c10d.PrefixStore(f"jv5kit/start/{restarts()}", _torchruns_store(_c10d.default_pg_timeout))
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    elif os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        logger.warning("a restart may hang: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun, on each box")


def part() -> None:
    """Let go of the others, at the end of the process.

    Threads of gloo may hold tensors for a moment after a message is through, and one that is let go of while Python
    ends takes the process down with it, when all its work is done (https://github.com/pytorch/pytorch/pull/179291).
    nccl would wait here for processes that have failed, and ends by itself.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


def most(value: int) -> int:
    """The greatest of the values that the processes have."""
    if processes() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    greatest = torch.tensor(value, device=device)
    dist.all_reduce(greatest, dist.ReduceOp.MAX)
    return int(greatest)


@contextmanager
def together() -> Iterator[None]:
    """A part that no process leaves before all are through it, and an error of one is the error of all.

    Nothing inside may wait for other processes.

    Raises:
        Jv5kitError: what the first process that failed has raised.
        OSError: as above.
    """
    error: Exception | None = None
    try:
        yield
    except (Jv5kitError, OSError) as caught:
        error = caught
    except SafetensorError as caught:
        error = Jv5kitError(f"tensors cannot be written or read: {caught}")
    errors: list[Exception | None] = [error] * processes()
    if len(errors) > 1:
        dist.all_gather_object(errors, error)
    for one in errors:
        if one is not None:
            raise one


def is_first_to_say(message: str) -> bool:
    """Whether no other process has said this, so that an error of all is said once; True where nobody can tell."""
    if not launched():
        return True
    key = f"jv5kit/{restarts()}/{sha256(message.encode()).hexdigest()}"
    try:
        return bool(_torchruns_store(timedelta(seconds=5)).add(key, 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return True


def _torchruns_store(timeout: timedelta) -> Any:
    """What all processes read and write, from before they have met."""
    return _c10d.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout)
