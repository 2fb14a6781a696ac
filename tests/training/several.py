"""Run by torchrun, and called without: commands one after the other in the same processes, some of them interrupted,
and some of them measured.

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
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from jv5kit.cli import main as jv5kit
from jv5kit.training import losses
from jv5kit.training.journal import Journal
from jv5kit.training.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


T = TypeVar("T")


class Command(TypedDict):
    """A command of jv5kit.

    Attributes:
        arguments: of the command line.
        interrupt: in which the last process is: whether an adapter is trained, and the step of that phase.
        broken: whether a loss is no number.
        measured: whether memory is measured, in the second step of each phase.
    """

    arguments: list[str]
    interrupt: NotRequired[list[int]]
    broken: NotRequired[bool]
    measured: NotRequired[bool]


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


def allocated(work: Callable[[], T]) -> tuple[T, int]:
    """What comes of work, and bytes that are allocated for tensors on the way, at their most."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = work()
    assert profiler.profiler is not None
    events: Any = profiler.profiler.kineto_results
    changes = [event for event in events.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return result, max(accumulate(event.nbytes() for event in changes))


def bytes_of(tensor: Any) -> int:
    """Of a tensor, or of what this process has of it."""
    own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return int(own.nbytes)


def run(command: Command) -> dict[str, Any]:
    """The exit status of a command, what it says, and bytes that it holds, by phase."""
    said = io.StringIO()
    step = Loop.step
    held: dict[str, int] = {}

    def measured(self: Loop) -> dict[str, Any]:
        if self.step_number != 1:
            return step(self)
        states = self._optimizer.state.values()
        tensors = [*self.student.parameters(), *self.objective.module.parameters()]
        tensors += [value for state in states for value in state.values()]
        record, peak = allocated(lambda: step(self))
        held[type(self.settings).__name__] = sum(map(bytes_of, tensors)) + peak
        return record

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
            if command.get("measured"):
                stack.enter_context(replaced(Loop, "step", measured))
            if command.get("broken"):
                stack.enter_context(replaced(losses, "orthogonality", no_number))
            jv5kit()
    except SystemExit as end:
        return {"code": end.code or 0, "said": said.getvalue(), "held": held}
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
