"""Run by torchrun, and called without: commands one after the other in the same processes, some of them interrupted.

``python several.py COMMANDS.json``, a list of commands; what each process says and ends with is written beside it, as
``NUMBER-PROCESS.json``.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
from torch import Tensor

from jv5kit.cli import main as jv5kit
from jv5kit.training import losses
from jv5kit.training.journal import Journal
from jv5kit.training.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Iterator


class Command(TypedDict):
    """A command of jv5kit.

    Attributes:
        arguments: of the command line.
        interrupt: in which the last process is: whether an adapter is trained, and the step of that phase.
        broken: whether a loss is no number.
    """

    arguments: list[str]
    interrupt: NotRequired[list[int]]
    broken: NotRequired[bool]


@contextmanager
def replaced(holder: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


def no_number(embeddings: Tensor) -> Tensor:
    return embeddings.sum() * float("nan")


def run(command: Command) -> dict[str, Any]:
    """The exit status of a command, and what it says."""
    said = io.StringIO()
    step = Loop.step

    def interrupted(self: Loop) -> dict[str, Any]:
        last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
        if last and command["interrupt"] == [self.student.adapter is not None, self.step_number + 1]:
            # In the midst of the step, and in one process.
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    sys.argv = ["jv5kit", *command["arguments"]]
    try:
        with ExitStack() as stack:
            stack.enter_context(redirect_stderr(said))
            # They take longer than all steps.
            stack.enter_context(replaced(Journal, "draw", lambda _: None))
            if "interrupt" in command:
                stack.enter_context(replaced(Loop, "step", interrupted))
            if command.get("broken"):
                stack.enter_context(replaced(losses, "orthogonality", no_number))
            jv5kit()
    except SystemExit as end:
        return {"code": end.code or 0, "said": said.getvalue()}
    raise AssertionError("a command ends with an exit status")


def main(path: str) -> None:
    torch.set_num_threads(1)
    # A shell lets what it runs in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    commands = Path(path)
    for number, command in enumerate(json.loads(commands.read_text())):
        place = commands.with_name(f"{number}-{os.environ['RANK']}.json")
        place.write_text(json.dumps(run(command)))


if __name__ == "__main__":
    main(sys.argv[1])
