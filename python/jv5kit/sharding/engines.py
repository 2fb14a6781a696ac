"""Engines: pieces of work done by processes that each load what they need once, and do one piece after another.

A process that dies is replaced, and its piece is done again, up to :data:`ATTEMPTS` times. An error that a piece ends
in ends all work.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jv5kit.errors import Jv5kitError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 3
"""Times that a piece is begun, if the process that does it dies."""


class Engine(Protocol):
    """What does the work."""

    def run(self, load: Callable[[], Callable[[T], R]], pieces: Sequence[T]) -> Generator[R]:
        """Do pieces of work; the results come in the order in which they are done. To close it ends all work.

        Args:
            load: called once in each process, which gets it by pickling; returns what does a piece.
            pieces: of the work, distinct.

        Raises:
            Jv5kitError: a piece ended in it, or the processes that did it died.
        """


class ThisProcess:
    """The work is done here, in order."""

    def run(self, load: Callable[[], Callable[[T], R]], pieces: Sequence[T]) -> Generator[R]:
        """See :class:`Engine`."""
        if pieces:
            yield from map(load(), pieces)


class DiedError(Exception):
    """A worker died before it had a result; says how."""


class Worker(Protocol):
    """A process that does one piece at a time."""

    def begin(self, piece: Any) -> Any:
        """Give it a piece; returns what can be waited for."""

    def result(self) -> Any:
        """The result of the piece, once it is there; or the error that it ended in is raised.

        Raises:
            DiedError: the process has died.
        """

    def kill(self) -> None:
        """End it, whatever it does."""


def share_out(
    pieces: Sequence[T], workers: int, start: Callable[[], Worker], wait: Callable[[list[Any]], Sequence[Any]]
) -> Generator[Any]:
    """Give pieces to workers, as many as there may be; see :meth:`Engine.run`.

    Args:
        pieces: of the work.
        workers: at most so many.
        start: makes one.
        wait: given what :meth:`Worker.begin` returned, waits until some of it is ready, and returns that.
    """
    waiting, begun = deque(pieces), Counter[T]()
    idle: list[Worker] = []
    working: dict[Any, tuple[Worker, T]] = {}
    try:
        while waiting or working:
            while waiting and len(working) < workers:
                worker, piece = idle.pop() if idle else start(), waiting.popleft()
                begun[piece] += 1
                working[worker.begin(piece)] = worker, piece
            for ready in wait(list(working)):
                worker, piece = working.pop(ready)
                try:
                    result = worker.result()
                except DiedError as error:
                    worker.kill()
                    if begun[piece] == ATTEMPTS:
                        raise Jv5kitError(
                            f"{piece}: each of {ATTEMPTS} processes that worked on it died, the last one {error}; if "
                            "memory was short, let fewer --workers share it"
                        ) from None
                    waiting.appendleft(piece)
                    continue
                idle.append(worker)
                yield result
    finally:
        for worker in (*idle, *(worker for worker, _ in working.values())):
            worker.kill()
