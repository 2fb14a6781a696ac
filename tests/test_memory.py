"""Building does not grow with the input: the peak of the process, mapped pages included."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

DIM = 256
CHILD = """
import sys
from pathlib import Path
from jv5kit.cli import app
app(["index", "--embeddings", sys.argv[1], "-o", sys.argv[2], "-q"], standalone_mode=False)
app(["export", sys.argv[2], "-o", sys.argv[2] + ".export", "-q"], standalone_mode=False)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def peak_mib(folder: Path, rows: int) -> float:
    """VmHWM of ``jv5kit index --embeddings``, and then ``export``, over so many random rows."""
    path = folder / f"{rows}.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, DIM))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 10_000):
        array[start : start + 10_000] = rng.standard_normal((10_000, DIM), dtype=np.float32)
    del array
    command = [sys.executable, "-c", CHILD, str(path), str(folder / f"{rows}.jv5")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    path.unlink()
    return int(result.stdout.split()[-1]) / 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_the_peak_does_not_grow(tmp_path: Path) -> None:
    small, large = peak_mib(tmp_path, 100_000), peak_mib(tmp_path, 1_000_000)
    print(f"peak {small:.0f} MiB at 100,000 rows, {large:.0f} MiB at 1,000,000")
    assert large < 300
    assert large - small < 50
