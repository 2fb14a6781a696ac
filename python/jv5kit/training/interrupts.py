"""Ctrl-C in a loop: a step that was begun is finished, so that nothing is done again."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jv5kit.logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Interrupted(KeyboardInterrupt):
    """After Ctrl-C, when all processes have finished a step, and it is in a checkpoint."""


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Inside, a first Ctrl-C is only noted, and a second one interrupts at once.

    Where the caller has a handler of its own, or in another thread than the first, all stays as it is.

    Yields:
        Whether there was one.
    """
    noted = False

    def note(_number: int, _frame: object) -> None:
        nonlocal noted
        noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.warning("the step is finished first; Ctrl-C once more stops at once, and loses it")

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
