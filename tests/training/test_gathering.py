"""Two processes have the gradients of one that has the whole batch, their weights spread or not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import models
import pytest
import torch
from gradients import PLAIN, SHARDED, gradients, loop_of
from runs import environment
from safetensors.torch import load_file

from jv5kit.training.gathering import share
from jv5kit.training.sharding import clip_gradients

SCRIPT = Path(__file__).with_name("gradients.py")

Gradients = dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of no architecture of the table."""
    folder = tmp_path_factory.mktemp("models") / "padded"
    vocabulary = models.write_tokenizer(folder, template="[CLS] $A [SEP]")
    return models.random_model(folder, "electra", vocab_size=vocabulary, embedding_size=models.DIM)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, padded: Path) -> Gradients:
    """Of one process."""
    folder = tmp_path_factory.mktemp("one")
    return {name: gradients(case, str(tiny_model), str(padded), folder) for name, case in PLAIN.items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, padded: Path) -> Gradients:
    """Of two."""
    folder = tmp_path_factory.mktemp("two")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, str(SCRIPT), str(tiny_model), str(padded), str(folder)]
    outcome = subprocess.run(command, env=environment(), check=False, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return {path.stem: load_file(path) for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("name", [*PLAIN, *SHARDED])
def test_gradients_are_those_of_one_process(one: Gradients, two: Gradients, name: str) -> None:
    alone, shared = one[name.removesuffix(", sharded")], two[name]
    assert alone.keys() == shared.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in alone.values())
    # Sums in another order: of 24 bits, or of 8.
    tolerance = 3e-3 if "bfloat16" in name else 1e-5
    for parameter, gradient in alone.items():
        torch.testing.assert_close(shared[parameter], gradient, rtol=tolerance, atol=tolerance, msg=parameter)


def test_a_gather_that_loses_the_gradient_is_seen(one: Gradients, two: Gradients) -> None:
    lost, zero = two["detached"], torch.zeros(())
    assert max((lost.get(name, zero) - gradient).abs().max() for name, gradient in one["retrieval"].items()) > 1e-3


def test_each_process_draws_for_itself(two: Gradients) -> None:
    drawn = two["draws"]
    for name in ("new", "taken up", "of one"):
        assert not torch.equal(drawn[f"{name} 0"], drawn[f"{name} 1"]), name
    for process in range(2):
        for name in ("taken up", "again"):
            assert torch.equal(drawn[f"{name} {process}"], drawn[f"new {process}"]), name
    # One that was there goes on, with others or without.
    assert torch.equal(drawn["of one 0"], drawn["new 0"])


def test_an_error_of_one_process_is_one_of_all(two: Gradients) -> None:
    assert set(two["failures"]) == {f"{process} the last one cannot go on" for process in range(2)}


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 7, 100])
def test_shares_are_the_whole(count: int, processes: int) -> None:
    rows = [row for process in range(processes) for row in range(count)[share(count, process, processes)]]
    assert rows == list(range(count))


def test_processes_part_before_they_end(two: Gradients) -> None:
    assert all(two[f"end of {process}"]["parted"] for process in range(2))


def test_what_another_device_has_drawn_is_drawn_anew(tiny_model: Path, padded: Path, tmp_path: Path) -> None:
    """The generator of a GPU has another state than that of a CPU."""
    loop = loop_of(PLAIN["retrieval"], str(tiny_model), str(padded), tmp_path)
    checkpoint = loop.checkpoint()
    other = {"0": torch.zeros(16, dtype=torch.uint8)}
    loop.go_on(replace(checkpoint, trained=loop.trained(), optimizer={}, random=other))


def test_no_gradients_have_no_norm() -> None:
    learned, other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
    assert clip_gradients([other], 0.5) == 0.0
    learned.grad = torch.tensor([3.0, 0.0, 4.0])
    assert clip_gradients([other, learned], 0.5) == pytest.approx(5.0)
    torch.testing.assert_close(learned.grad, torch.tensor([0.3, 0.0, 0.4]), rtol=1e-5, atol=1e-6)
