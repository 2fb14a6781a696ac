"""Work that is done ahead, by a thread that outlives nothing."""

import threading
from collections.abc import Iterator

import pytest

from jv5kit.prefetch import ahead


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_the_order_is_kept(count: int) -> None:
    assert list(ahead(lambda item: item * item, range(count))) == [item * item for item in range(count)]


def test_one_is_made_while_the_one_before_it_is_used() -> None:
    """And no more than one: what is waiting takes memory."""
    made = [threading.Event() for _ in range(4)]

    def make(item: int) -> int:
        made[item].set()
        return item

    for number, item in enumerate(ahead(make, range(4))):
        assert item == number
        if number < 3:
            assert made[number + 1].wait(10)
        if number < 2:
            assert not made[number + 2].wait(0.05)


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_an_error_is_raised_where_its_result_would_be(wrong: int) -> None:
    def make(item: int) -> int:
        if item == wrong:
            raise ValueError(f"{item} is wrong")
        return item

    results = ahead(make, range(4))
    for item in range(wrong):
        assert next(results) == item
    with pytest.raises(ValueError, match=f"{wrong} is wrong"):
        next(results)
    assert list(results) == []


def test_nothing_more_is_made_when_the_user_stops() -> None:
    made: list[int] = []
    results = ahead(made.append, range(9))
    for _ in range(3):
        next(results)
    # It promises an iterator; that it is a generator, which can be closed, is what is tested.
    results.close()  # type: ignore[attr-defined]
    assert made == [0, 1, 2, 3]


def test_an_error_of_the_user_waits_for_what_is_being_made() -> None:
    going, finished = threading.Event(), threading.Event()

    def make(item: int) -> int:
        if item == 1:
            assert going.wait(10)
            finished.set()
        return item

    results = ahead(make, range(3))
    next(results)
    with pytest.raises(KeyError):
        going.set()
        # As above.
        results.throw(KeyError)  # type: ignore[attr-defined]
    assert finished.is_set()
