"""Work ahead: what is needed next is made while what is there is used."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(make: Callable[[Item], Made], items: Sequence[Item]) -> Iterator[Made]:
    """``map(make, items)``, each but the first made by another thread while the one before it is used.

    An error of ``make`` is raised where its result would be.
    """
    if not items:
        return
    made = make(items[0])
    for item in items[1:]:
        following = _Made(make, item)
        try:
            yield made
        finally:
            following.thread.join()
        made = following.result()
    yield made


class _Made(Generic[Made]):
    """What a thread makes."""

    def __init__(self, make: Callable[[Item], Made], item: Item) -> None:
        self._value: list[Made] = []
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(make, item), daemon=True)
        self.thread.start()

    def _run(self, make: Callable[[Item], Made], item: Item) -> None:
        try:
            self._value.append(make(item))
        except BaseException as error:
            self._error = error

    def result(self) -> Made:
        if self._error is not None:
            raise self._error
        return self._value[0]
