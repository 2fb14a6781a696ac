"""Checkpoints of a phase: all that the next step depends on, so that a run that goes on reaches the same weights.

::

    checkpoints/PHASE/step-000500/
        trained.safetensors     what is learned: the student's weights or its adapter's, projection, temperature
        optimizer.safetensors   AdamW's moments
        random.safetensors      states of the generators, of each process that there was
        state.json              step, position in the data, CRC32C of the other files

A checkpoint is written aside, synced and renamed. One that is damaged is passed over for the one before it. Tensors are
whole, whatever process had which part of them, so that a run may go on with another number of processes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from jv5kit import _native
from jv5kit.errors import Jv5kitError
from jv5kit.logs import logger
from jv5kit.storage.folder import fsync_path
from jv5kit.training.sharding import like

if TYPE_CHECKING:
    from pathlib import Path

KEPT = 2
"""Checkpoints of a phase that are kept: the newest, and one in case that is damaged."""

_FILES = ("trained", "optimizer", "random")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A phase after a step.

    Attributes:
        step: steps that are done.
        trained: what is learned, by name.
        optimizer: the optimizer's state, by parameter number and name.
        random: states of the generators, by process.
        data: the position in the data.
    """

    step: int
    trained: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]
    data: dict[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint to a phase's folder, and drop those that are too many.

    Raises:
        Jv5kitError: it cannot be written, for want of space maybe; the ones before it are still there.
    """
    path = folder / f"step-{checkpoint.step:06d}"
    aside = folder / f".{path.name}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        checksums = {}
        for name in _FILES:
            file = aside / f"{name}.safetensors"
            save_file(
                {key: value.detach().cpu().contiguous() for key, value in getattr(checkpoint, name).items()}, file
            )
            checksums[name] = _checksum(file)
            fsync_path(file)
        state = {"step": checkpoint.step, "data": checkpoint.data, "crc32c": checksums}
        (aside / "state.json").write_text(json.dumps(state), encoding="utf-8")
        fsync_path(aside / "state.json")
        fsync_path(aside)
        if path.exists():
            shutil.rmtree(path)
        aside.rename(path)
        fsync_path(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        left = [one.name for one in _written(folder)]
        before = f"the last one is {left[-1]}" if left else "there is none before it"
        raise Jv5kitError(
            f"the checkpoint {path} cannot be written: {error}; {before}: mend that and go on with --resume"
        ) from None
    for old in _written(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a phase that is sound, None if there is none."""
    for path in reversed(_written(folder)):
        try:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            files = {name: path / f"{name}.safetensors" for name in _FILES}
            for name, file in files.items():
                if _checksum(file) != state["crc32c"][name]:
                    raise ValueError(f"{file.name} is not what was written")
            tensors = {name: load_file(file) for name, file in files.items()}
            return Checkpoint(state["step"], **tensors, data=state["data"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            logger.warning("%s is damaged (%s): the checkpoint before it is taken", path, error)
    return None


def flattened(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as tensors by number and name."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": torch.as_tensor(value) for number, own in state.items() for name, value in own.items()}


def restore(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Give an optimizer the state that :func:`flattened` read."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = like(parameters[int(number)], value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _written(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _checksum(path: Path) -> str:
    return f"{_native.crc32c(path.read_bytes()):08x}"
