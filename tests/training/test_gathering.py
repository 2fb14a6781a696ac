"""Two processes have the gradients of one that has the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jv5kit.training.gathering import share

SCRIPT = Path(__file__).with_name("gradients.py")


Gradients = dict[str, dict[str, torch.Tensor]]


def gradients(folder: Path, model: Path, processes: int) -> Gradients:
    """Of each objective, by the name of what is learned."""
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, str(SCRIPT), str(model), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return {path.stem: load_file(path) for path in folder.glob("*.safetensors")}


def test_gradients_are_those_of_one_process(tmp_path: Path, tiny_model: Path) -> None:
    one, two = (gradients(tmp_path / str(processes), tiny_model, processes) for processes in (1, 2))
    for objective in ("retrieval", "classification"):
        assert one[objective].keys() == two[objective].keys()
        assert any(gradient.abs().max() > 1e-3 for gradient in one[objective].values())
        for name, gradient in one[objective].items():
            torch.testing.assert_close(two[objective][name], gradient, rtol=1e-5, atol=1e-5, msg=name)
    # A gather that loses the gradient is seen.
    lost = two["detached"]
    zero = torch.zeros(())
    assert max((lost.get(name, zero) - gradient).abs().max() for name, gradient in one["retrieval"].items()) > 1e-3


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 7, 100])
def test_shares_are_the_whole(count: int, processes: int) -> None:
    rows = [row for process in range(processes) for row in range(count)[share(count, process, processes)]]
    assert rows == list(range(count))
