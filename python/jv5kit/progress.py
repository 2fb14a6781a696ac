"""Progress of long work: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.progress import Progress, Task


class ProgressBar:
    """A bar on stderr with the rate and the time left; use it as a context manager and call it with each step.

    Args:
        description: what is being done.
        total: counts the steps in all, None if nobody knows; not called where no bar is shown.
        unit: what a step is, in the plural.
        show: None shows the bar where stderr is a terminal.
    """

    def __init__(
        self, description: str, total: Callable[[], int | None], unit: str, *, show: bool | None = None
    ) -> None:
        self._progress: Progress | None = None
        if sys.stderr.isatty() if show is None else show:
            # A bar is a luxury of terminals: rich is not loaded in a pipe.
            self._progress = _rich_progress(unit)
            self._task = self._progress.add_task(description, total=total())

    def __call__(self, steps: int) -> None:
        """Count steps as done."""
        if self._progress is not None:
            self._progress.advance(self._task, steps)

    def describe(self, description: str) -> None:
        """Say something else of what is being done."""
        if self._progress is not None:
            self._progress.update(self._task, description=description)

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it stands."""
        if self._progress is not None:
            self._progress.stop()


def _rich_progress(unit: str) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else f"- {unit}/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
