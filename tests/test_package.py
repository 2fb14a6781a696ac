"""The package as it is imported and started: light, whatever is installed beside it."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command import COMMAND, environment

import jv5kit

HEAVY = ("torch", "transformers", "numpy", "tokenizers", "huggingface_hub", "rich", "typer", "sqlite3")


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=True
    ).stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = python(f"import sys, jv5kit; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert loaded == "[]\n"


@pytest.mark.parametrize("name", sorted(set(jv5kit.__all__) - {"__version__"}))
def test_each_public_name_is_there_and_loads_no_torch(name: str) -> None:
    printed = python(
        f"import sys, jv5kit; print(jv5kit.{name}.__name__, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert printed == f"{name} False False\n"


def test_a_search_loads_nothing_that_only_writes(tmp_path: Path) -> None:
    jv5kit.Index.build(tmp_path / "x.jv5", embeddings=np.eye(8), precision="float32").close()
    names = [
        f"jv5kit.{name}"
        for name in ("building", "documents", "exporting", "passages", "sources", "storage.merging", "storage.writer")
    ]
    open_it = f"import sys, numpy, jv5kit; index = jv5kit.Index.open({str(tmp_path / 'x.jv5')!r})"
    printed = python(
        f"{open_it}; print(index.search(numpy.eye(8)[3])[0].id, [name for name in {names!r} if name in sys.modules])"
    )
    assert printed == "3 []\n"


def test_the_names_are_listed() -> None:
    assert set(jv5kit.__all__) <= set(dir(jv5kit))
    assert all(getattr(jv5kit, name) is not None for name in jv5kit.__all__)
    with pytest.raises(AttributeError, match="module 'jv5kit' has no attribute 'nonsense'"):
        getattr(jv5kit, "non" + "sense")
    assert "search" in jv5kit.__all__
    assert callable(jv5kit.search)


def test_importing_the_package_takes_less_than_a_tenth_of_a_second() -> None:
    """The median of five, measured inside; a busy machine gets three chances."""
    code = "import time; t = time.perf_counter(); import jv5kit; print(time.perf_counter() - t)"
    medians = []
    for _ in range(3):
        medians.append(sorted(float(python(code)) for _ in range(5))[2])
        if medians[-1] < 0.1:
            return
    pytest.fail(f"import jv5kit took {medians} s")


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    """The median of five, the start of Python included; a busy machine gets three chances."""
    medians = []
    for _ in range(3):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            raw = subprocess.run([*COMMAND, "--help"], capture_output=True, env=environment(), check=True)
            times.append(time.perf_counter() - start)
            assert b"index" in raw.stdout
            assert b"search" in raw.stdout
        medians.append(sorted(times)[2])
        if medians[-1] < 0.3:
            return
    pytest.fail(f"jv5kit --help took {medians} s")
