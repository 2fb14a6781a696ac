"""Processes as an engine: every piece is done, whatever becomes of a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import is_running

from jv5kit.errors import InputError, Jv5kitError
from jv5kit.sharding.engines import ATTEMPTS, ThisProcess
from jv5kit.sharding.processes import THREADS, Processes, threads_of


def squares() -> Callable[[int], int]:
    return lambda number: number * number


def deadly(folder: Path, deaths: int) -> Callable[[int], tuple[int, int]]:
    """A piece is its own square; at 3 the process dies so many times."""

    def square(number: int) -> tuple[int, int]:
        if number == 3 and len(list(folder.iterdir())) < deaths:
            (folder / str(time.monotonic_ns())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number, number * number

    return square


class Deadly:
    """What loads it, as an engine takes it."""

    def __init__(self, folder: Path, deaths: int) -> None:
        self.folder = folder
        self.deaths = deaths

    def __call__(self) -> Callable[[int], tuple[int, int]]:
        return deadly(self.folder, self.deaths)


def refusing() -> Callable[[int], int]:
    def refuse(number: int) -> int:
        if number == 2:
            raise InputError(f"{number} is refused")
        return number

    return refuse


def broken() -> Callable[[int], int]:
    raise Jv5kitError("there is no model")


def failing() -> Callable[[int], float]:
    return lambda number: 1 / number


def environment() -> Callable[[int], list[str | None]]:
    return lambda _: [os.environ.get(name) for name in THREADS]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_piece_is_done_once(workers: int) -> None:
    assert sorted(Processes(workers).run(squares, range(4))) == [0, 1, 4, 9]
    assert list(ThisProcess().run(squares, range(4))) == [0, 1, 4, 9]


def test_without_a_piece_nothing_is_loaded() -> None:
    for engine in (Processes(2), ThisProcess()):
        assert list(engine.run(broken, [])) == []


def test_a_piece_whose_process_was_killed_is_done_again(tmp_path: Path) -> None:
    found = list(Processes(2).run(Deadly(tmp_path, ATTEMPTS - 1), range(6)))
    assert sorted(found) == [(number, number * number) for number in range(6)]
    assert len(list(tmp_path.iterdir())) == ATTEMPTS - 1


def test_a_piece_that_kills_every_process_ends_the_work(tmp_path: Path) -> None:
    with pytest.raises(Jv5kitError, match=r"^3: each of 3 processes that worked on it died, the last one by signal 9"):
        list(Processes(2).run(Deadly(tmp_path, ATTEMPTS), range(6)))


def test_an_error_is_the_same_from_a_process() -> None:
    for engine in (Processes(2), ThisProcess()):
        with pytest.raises(InputError, match=r"^2 is refused$"):
            list(engine.run(refusing, range(5)))
        with pytest.raises(Jv5kitError, match=r"^there is no model$"):
            list(engine.run(broken, range(5)))
    with pytest.raises(ZeroDivisionError) as caught:
        list(Processes(2).run(failing, [0]))
    assert "in <lambda>" in caught.value.__notes__[0]


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JV5KIT_THREADS", "7")
    assert list(Processes(2).run(environment, [0])) == [["3", "3", "3"]]
    assert threads_of(1, 100) == 1
    monkeypatch.delenv("JV5KIT_THREADS")
    assert threads_of(1, 1) == len(os.sched_getaffinity(0))


SLEEPS = """
import time
from functools import partial
from jv5kit.sharding.processes import Processes
list(Processes(2).run(partial(partial, time.sleep), [300, 301]))
"""


def test_processes_end_with_the_one_that_gave_them_work() -> None:
    """In the middle of a piece, however it ended."""
    giver = subprocess.Popen([sys.executable, "-c", SLEEPS], env=os.environ)
    workers: list[int] = []
    for _ in range(600):
        children = Path(f"/proc/{giver.pid}/task/{giver.pid}/children").read_text().split()
        workers = [int(one) for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]
        # Asleep, with the thread that waits for the giver.
        if len(workers) == 2 and all(len(list(Path(f"/proc/{one}/task").iterdir())) > 1 for one in workers):
            break
        time.sleep(0.05)
    assert len(workers) == 2
    giver.kill()
    giver.wait()
    for _ in range(600):
        if not any(map(is_running, workers)):
            return
        time.sleep(0.05)
    for one in workers:
        os.kill(one, signal.SIGKILL)
    pytest.fail("they went on")
