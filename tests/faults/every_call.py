"""Run under the layer of ``disk.c`` by the tests: one operation many times, each time with a call that fails.

The operation runs in a forked child, so that Python starts once; so does the check of what it left. The output is one
line of JSON: how many calls the operation makes, how many runs ended how, and every problem.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from disk import Layer, Mode
from operations import OPERATIONS, Operation, check

from jv5kit.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 30


class Said:
    """Standard output: what is printed is kept in a file at once, and noted in the record."""

    def __init__(self, path: Path, layer: Layer) -> None:
        self._file = path.open("w")
        self._layer = layer

    def write(self, text: str) -> int:
        self._file.write(text)
        self._file.flush()
        self._layer.note(text.strip())
        return len(text)

    def flush(self) -> None:
        """There is nothing to flush."""


def forked(work: Callable[[], object]) -> int:
    """Do some work in a child; its exit status, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        status = 99
        try:
            signal.alarm(SECONDS)
            work()
            status = 0
        except SystemExit as done:
            status = int(done.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Runs:
    """Runs of one operation."""

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation = operation
        self.folder = folder
        self.root = folder / "root"
        self.template = folder / "template"
        self.index = self.root / "x.jv5"
        self.layer = Layer()
        self.template.mkdir()
        assert forked(lambda: operation.prepare(self.template / "x.jv5")) == 0
        self.arguments = operation.arguments(folder, self.index)
        # What the command line imports when it is first used need not be imported by each child.
        with redirect_stderr(io.StringIO()), suppress(SystemExit):
            sys.argv = ["jv5kit", "index", "--append", "--embeddings", "none.npy", "-o", "none.jv5"]
            main()

    def run(self, mode: Mode, nth: int) -> tuple[int, str, str]:
        """The exit status of the operation, what it printed, and its errors."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template, self.root)
        said, errors = self.folder / "said", self.folder / "errors"

        def work() -> None:
            sys.stderr = errors.open("w")
            self.layer.watch(self.root, self.folder / "record" if mode == Mode.COUNT else None)
            sys.stdout = Said(said, self.layer)
            self.layer.arm(mode, nth)
            try:
                self.operation.run(self.arguments, self.index)
            finally:
                self.layer.arm(Mode.COUNT, 0)
                (self.folder / "calls").write_text(str(self.layer.calls()))

        status = forked(work)
        return status, said.read_text(), errors.read_text()

    def problem(self, mode: Mode, nth: int) -> tuple[str, str | None]:
        """How a run ended, and what was wrong with that."""
        status, said, errors = self.run(mode, nth)
        acknowledged = self.operation.acknowledged(said)
        if status == 0:
            acknowledged = len(self.operation.states) - 1
        elif mode != Mode.KILL:
            lines = errors.splitlines()
            # The second line says what is in by now.
            clear = status in (1, 2) and len(lines) in (1, 2) and lines[0].startswith("jv5kit: ")
            if not clear or str(self.index) not in lines[0]:
                return "unclear", f"exit status {status}: {errors}"
        elif status != 137:
            return "unclear", f"exit status {status}: {errors}"
        verdict = self.folder / "verdict"

        def verify() -> None:
            sys.stderr = verdict.open("w")
            check(self.operation, self.index, acknowledged)

        if forked(verify):
            return "wrong", verdict.read_text()
        return "done" if status == 0 else "failed", None


def run_all() -> None:
    name, folder, sample, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    runs = Runs(OPERATIONS[name], folder)
    status, _, errors = runs.run(Mode.COUNT, 0)
    assert status == 0, errors
    calls = int((folder / "calls").read_text())
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    problems = []
    for mode in (Mode.ONCE, Mode.FULL, Mode.GONE, Mode.KILL):
        chosen = range(1, calls + 1)
        for nth in sorted(chance.sample(chosen, sample)) if 0 < sample < calls else chosen:
            outcome, problem = runs.problem(mode, nth)
            outcomes[outcome] += 1
            if problem:
                problems.append(f"{name}, {mode.name} at call {nth} of {calls}: {problem}")
    print(json.dumps({"calls": calls, "outcomes": outcomes, "problems": problems}))


if __name__ == "__main__":
    run_all()
