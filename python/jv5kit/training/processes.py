"""Several processes of one run: what they agree on, and how an error of one becomes the end of all.

torchrun starts them, and ends them when one has failed; it may then start the same command again.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from jv5kit.errors import Jv5kitError

if TYPE_CHECKING:
    from collections.abc import Iterator


def processes() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def restarts() -> int:
    """How often torchrun has started this process again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


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
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # torchrun's own, by which the processes find each other.
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
        return bool(store.add(key, 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return True
