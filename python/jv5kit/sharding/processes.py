"""Processes of this machine as an engine: spawned, with its threads divided among them."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import TYPE_CHECKING, Any, TypeVar

from jv5kit.errors import Jv5kitError
from jv5kit.sharding.engines import DiedError, share_out

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from multiprocessing.connection import Connection

T = TypeVar("T")
R = TypeVar("R")

THREADS = ("JV5KIT_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS")
"""What says how many threads a process has: for our kernels, for the tokenizer, and for NumPy and torch."""


@dataclass(frozen=True, slots=True)
class Processes:
    """So many processes of this machine."""

    workers: int

    def run(self, load: Callable[[], Callable[[T], R]], pieces: Sequence[T]) -> Generator[R]:
        """See :class:`~jv5kit.sharding.engines.Engine`."""
        # Unpickled there when the threads are limited: that loads NumPy.
        pickled, threads = pickle.dumps(load), threads_of(1, self.workers)
        return share_out(pieces, self.workers, lambda: _Process(pickled, threads), connection.wait)


def threads_of(share: int, shares: int) -> int:
    """Threads of a process that has such a share of this machine, at least one."""
    given = os.environ.get("JV5KIT_THREADS", "")
    # What is no number is refused by what reads it.
    whole = int(given) if given.isdecimal() else len(os.sched_getaffinity(0))
    return max(1, whole * share // shares)


def limit_threads(threads: int) -> None:
    """Let this process have so many threads; NumPy takes no notice once it is loaded."""
    os.environ.update(dict.fromkeys(THREADS, str(threads)))


class _Process:
    """A process that does one piece at a time; see :class:`~jv5kit.sharding.engines.Worker`."""

    def __init__(self, load: bytes, threads: int) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, load, threads), daemon=True)
        with _deaf_to_interrupts():
            self._process.start()
        theirs.close()

    def begin(self, piece: Any) -> Connection:
        """Give it a piece."""
        # That it has died is noticed where its result is read.
        with suppress(ConnectionError):
            self._connection.send(piece)
        return self._connection

    def result(self) -> Any:
        """The result of the piece."""
        try:
            result = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode or 0
            raise DiedError(f"by signal {-code}" if code < 0 else f"with exit status {code}") from None
        if isinstance(result, BaseException):
            raise result
        return result

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()
        self._connection.close()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let what is started ignore Ctrl-C, which is for this process alone to hear."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pieces: Connection, load: bytes, threads: int) -> None:
    """Do pieces until there are no more, or the process that gives them has ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_threads(threads)
    call = None
    with suppress(EOFError):
        while True:
            piece = pieces.recv()
            try:
                call = call or pickle.loads(load)()
                answer = call(piece)
            except Exception as error:
                if not isinstance(error, Jv5kitError):
                    error.add_note(traceback.format_exc())
                answer = error
            pieces.send(answer)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
