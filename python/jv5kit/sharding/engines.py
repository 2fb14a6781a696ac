"""Engines: pieces of work done by processes that each load what they need once, one piece after another.

A process that dies is replaced, and its piece is done again, :data:`ATTEMPTS` times at most. An error of ours that a
piece ends in ends all work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

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
            pieces: of the work.

        Raises:
            Jv5kitError: a piece ended in it, or the processes that did it died.
        """


class ThisProcess:
    """The work is done here, in order."""

    def run(self, load: Callable[[], Callable[[T], R]], pieces: Sequence[T]) -> Generator[R]:
        """See :class:`Engine`."""
        if pieces:
            yield from map(load(), pieces)


def died(piece: object, how: str) -> Jv5kitError:
    """The error of a piece whose processes died, every time."""
    return Jv5kitError(
        f"{piece}: each of {ATTEMPTS} processes that worked on it died, the last one {how}; if memory was short, let "
        "fewer --workers share it"
    )
