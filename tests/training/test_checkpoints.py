"""Checkpoints: whole or not there, and never a damaged one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import torch

from jv5kit.errors import Jv5kitError
from jv5kit.training import checkpoints
from jv5kit.training.checkpoints import Checkpoint, flattened, read_checkpoint, restore, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def made(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(
        step,
        {"weight": torch.randn(3, 2, generator=generator)},
        {"0.exp_avg": torch.randn(3, 2, generator=generator)},
        {"0": torch.get_rng_state()},
        {"state": {"epoch": step}, "taken": 2},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "none") is None
    for step in (1, 20, 3000):
        write_checkpoint(tmp_path, made(step))
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.data) == (3000, {"state": {"epoch": 3000}, "taken": 2})
    assert torch.equal(found.trained["weight"], made(3000).trained["weight"])
    # The newest, and the one before it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000020", "step-003000"]


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str) -> None:
    write_checkpoint(tmp_path, made(1))
    write_checkpoint(tmp_path, made(2))
    path = tmp_path / "step-000002" / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-2] ^= 4
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-3])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING, "jv5kit"):
        found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "step-000002 is damaged" in caplog.text


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, made(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(Jv5kitError, match=r"step-000002 cannot be written: .*No space.*the last one is step-000001"):
        write_checkpoint(tmp_path, made(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_an_optimizer_goes_on_as_it_was() -> None:
    def steps(optimizer: torch.optim.Optimizer, weight: torch.Tensor, count: int) -> None:
        for _ in range(count):
            weight.grad = weight.detach().sin()
            optimizer.step()

    one = torch.linspace(-1, 1, 6).requires_grad_()
    whole = torch.optim.AdamW([one], lr=0.1)
    steps(whole, one, 7)
    two = torch.linspace(-1, 1, 6).requires_grad_()
    first = torch.optim.AdamW([two], lr=0.1)
    steps(first, two, 3)
    second = torch.optim.AdamW([two], lr=0.1)
    restore(second, flattened(first))
    steps(second, two, 4)
    assert torch.equal(one, two)
