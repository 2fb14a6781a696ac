"""A disk that fails at any call, fills up, or loses power: a clear error, and nothing that was acknowledged is lost.

``JV5KIT_TEST_FAULTS`` sets how many calls of each operation fail in turn, for each way to fail; 0 means every one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import environment
from disk import Replay, compiled, events
from operations import OPERATIONS, Operation, check

SAMPLE = int(os.environ.get("JV5KIT_TEST_FAULTS", "5"))
CHANCES = int(os.environ.get("JV5KIT_TEST_POWER_CUTS", "2"))
SCRIPT = Path(__file__).with_name("every_call.py")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the layer is Linux's")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The folder and the findings of ``every_call.py``, for each operation."""
    layer = compiled(tmp_path_factory.mktemp("layer"))
    found = {}
    for name in OPERATIONS:
        folder = tmp_path_factory.mktemp(name)
        # So that the imports of the tests serve the script.
        paths = os.pathsep.join(path for path in sys.path if path)
        variables = environment(LD_PRELOAD=str(layer), PYTHONPATH=paths)
        command = [sys.executable, str(SCRIPT), name, str(folder), str(SAMPLE), "1"]
        result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        found[name] = (folder, json.loads(result.stdout))
    return found


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_failure_is_clear_and_loses_nothing(outcomes: dict[str, tuple[Path, dict[str, Any]]], name: str) -> None:
    _, found = outcomes[name]
    print(f"{name}: {found['calls']} calls, {found['outcomes']}")
    assert not found["problems"], "\n".join(found["problems"])
    assert found["calls"] > 20
    assert found["outcomes"]["failed"] > found["outcomes"].get("done", 0)


def replay(operation: Operation, folder: Path) -> tuple[Replay, list[Any]]:
    """The index as it was before, and the calls of the operation."""
    template = folder / "template"
    before = {
        str(path.relative_to(template)): None if path.is_dir() else path.read_bytes() for path in template.rglob("*")
    }
    return Replay(folder / "root", before), list(events(folder / "record"))


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_acknowledged_survives_a_power_cut(
    outcomes: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path, name: str
) -> None:
    """At every sync, new name and removal: with what was synced alone, and with a part of the rest, by chance."""
    operation, chance = OPERATIONS[name], random.Random(5)
    disk, calls = replay(operation, outcomes[name][0])
    said, numbers = "", set()
    for moment, event in enumerate(calls):
        if event.call == "note":
            said += f"{event.path}\n" if event.path else ""
            assert not disk.unsafe(), f"{event.path} was acknowledged, but {disk.unsafe()}"
            continue
        if event.call in ("sync", "remove", "rename"):
            for trial in range(1 + CHANCES):
                folder = tmp_path / f"{moment}-{trial}"
                folder.mkdir()
                disk.power_cut(folder, chance if trial else None)
                number = check(operation, folder / "x.jv5", operation.acknowledged(said), more=trial == 0)
                numbers.add(number)
                shutil.rmtree(folder)
        disk.apply(event)
    assert not disk.unsafe(), f"the end was acknowledged, but {disk.unsafe()}"
    assert len(numbers) >= len(operation.states) - 1, f"the cuts only left the states {numbers}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_order_of_a_commit(outcomes: dict[str, tuple[Path, dict[str, Any]]], name: str) -> None:
    """Data, its sync, its name, the sync of the folder, and only then the commit; removals come after the commit."""
    disk, calls = replay(OPERATIONS[name], outcomes[name][0])
    steps: list[str] = []
    for event in calls:
        path = Path(event.path)
        if event.call == "write" and path.name == "index.sqlite-wal":
            waiting = [problem for problem in disk.unsafe() if f"{path.parent}/segments" in problem]
            assert not waiting, f"a commit begins, but {waiting}"
        elif event.call == "remove" and path.suffix == ".safetensors":
            waiting = [problem for problem in disk.unsafe() if "index.sqlite-wal" in problem]
            assert not waiting, f"{path} is removed, but {waiting}"
        if event.call == "note":
            continue
        disk.apply(event)
        if event.call == "sync" and (
            path.parent.name == "segments" or path.name in ("segments", "index.sqlite-wal", "head")
        ):
            steps.append("sync new file" if path.suffix == ".tmp" else f"sync {path.name}")
        elif event.call == "rename" and path.parent.name == "segments":
            steps.append("name it")
    order = ["sync new file", "name it", "sync segments", "sync index.sqlite-wal", "sync head"]
    begins = [i for i, step in enumerate(steps) if step == "sync new file"]
    assert begins
    for begin, end in zip(begins, [*begins[1:], None], strict=True):
        # The log's header is synced by itself where a commit begins a new log.
        assert list(dict.fromkeys(steps[begin:end]))[: len(order)] == order
