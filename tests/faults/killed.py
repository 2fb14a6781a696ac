"""Run by the tests: an index is written, its writer killed at a random moment, the index checked; again and again.

The writer is a forked child, so that Python starts once. It says which commits are done, and the index must then be in
that state, or in a later one that the writer was about to make.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from every_call import forked
from operations import BATCH, State, documents, embeddings, small_batches, state_of

from jv5kit import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS_AN_INDEX = 5
MOST_DOCUMENTS = 400
LONGEST_LIFE = 0.25


@dataclass(frozen=True)
class Step:
    """A change of the index: the states that it goes through, and how it is made, saying each commit."""

    name: str
    states: list[State]
    run: Callable[[Path, Callable[[int], None]], object]


def add(state: State, chance: random.Random) -> Step:
    """New documents."""
    first = max(state, default=-1) + 1
    given = dict.fromkeys(range(first, first + BATCH * chance.randint(1, 4)), 0)

    def run(folder: Path, committed: Callable[[int], None]) -> None:
        with Index.open(folder) as index:
            index.add(documents(given), embeddings=embeddings(given), on_commit=committed)

    return Step("append", _after_batches(state, given), run)


def upsert(state: State, chance: random.Random) -> Step:
    """New versions of some documents, and new ones among them."""
    changed = chance.sample(sorted(state), min(len(state), BATCH * chance.randint(1, 2) - 5))
    first = max(state, default=-1) + 1
    new = range(first, first + (-len(changed)) % BATCH)
    given = {i: state[i] + 1 for i in changed} | dict.fromkeys(new, 0)

    def run(folder: Path, committed: Callable[[int], None]) -> None:
        with Index.open(folder) as index:
            index.upsert(documents(given), embeddings=embeddings(given), on_commit=committed)

    return Step("upsert", _after_batches(state, given), run)


def delete(state: State, chance: random.Random) -> Step:
    """Some documents fewer."""
    gone = chance.sample(sorted(state), chance.randint(0, len(state) // 2))

    def run(folder: Path, committed: Callable[[int], None]) -> None:
        with Index.open(folder) as index:
            index.delete([f"d{i}" for i in gone])

    return Step("delete", [state, {i: version for i, version in state.items() if i not in gone}], run)


def compact(state: State, chance: random.Random) -> Step:
    """The same documents in fewer segments."""

    def run(folder: Path, committed: Callable[[int], None]) -> None:
        with Index.open(folder) as index:
            index.compact()

    return Step("compact", [state, state], run)


def replace(state: State, chance: random.Random) -> Step:
    """Another index in the place of this one."""
    given = dict.fromkeys(range(BATCH * chance.randint(1, 3)), chance.randint(100, 10_000))

    def run(folder: Path, committed: Callable[[int], None]) -> None:
        rows = embeddings(given)
        Index.build(folder, documents(given), embeddings=rows, force=True, on_commit=committed).close()

    return Step("replace", [state, *_after_batches({}, given)[1:]], run)


STEPS = [add, add, add, upsert, upsert, delete, delete, compact, replace]


def _after_batches(state: State, given: State) -> list[State]:
    numbers = list(given)
    states = [state]
    for start in range(0, len(numbers), BATCH):
        states.append(states[-1] | {i: given[i] for i in numbers[start : start + BATCH]})
    return states


def steps(state: State, seed: str) -> Iterator[Step]:
    """The changes of one life of a writer, the same ones for the same seed."""
    chance = random.Random(seed)
    while True:
        choices = [step for step in STEPS if step is not add or len(state) < MOST_DOCUMENTS]
        step = chance.choice(choices)(state, chance)
        yield step
        state = step.states[-1]


def live(folder: Path, state: State, seed: str, out: int, *, early: bool) -> None:
    """Change the index until the process is killed. ``early`` says that a change is done before it is: the canary."""
    small_batches()
    for number, step in enumerate(steps(state, seed)):
        reached = 0

        def committed(_: int, number: int = number) -> None:
            nonlocal reached
            reached += 1
            os.write(out, b"%d %d\n" % (number, reached))

        if early:
            os.write(out, b"%d %d\n" % (number, len(step.states) - 1))
        step.run(folder, committed)
        os.write(out, b"%d %d\n" % (number, len(step.states) - 1))


def killed(folder: Path, state: State, seed: str, life: float, *, early: bool) -> tuple[int, int]:
    """Let a writer live for so many seconds; the change and the commit that it said last."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            live(folder, state, seed, write, early=early)
        finally:
            # It never ends by itself: something failed.
            traceback.print_exc()
            os._exit(1)
    os.close(write)
    time.sleep(life)
    os.kill(child, signal.SIGKILL)
    with os.fdopen(read, "rb") as said:
        lines = said.read().splitlines()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "the writer failed by itself"
    number, reached = (int(word) for word in lines[-1].split()) if lines else (0, 0)
    return number, reached


def build(folder: Path, state: State) -> None:
    Index.build(folder, documents(state), embeddings=embeddings(state)).close()


def write_state(folder: Path, path: Path) -> None:
    """What an index holds, into a file."""
    path.write_text(json.dumps(list((state_of(folder) or {}).items())))


def main() -> None:
    place, rounds, seed, early = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "early"
    chance = random.Random(seed)
    interrupted: Counter[str] = Counter()
    changes = 0
    state: State = {}
    for number in range(rounds):
        folder = place / f"{number // ROUNDS_AN_INDEX}.jv5"
        if number % ROUNDS_AN_INDEX == 0:
            state = dict.fromkeys(range(BATCH), 0)
            assert forked(partial(build, folder, state)) == 0
        life = f"{seed} {number}"
        done, reached = killed(folder, state, life, chance.uniform(0, LONGEST_LIFE), early=early)
        *_, step, following = islice(steps(state, life), done + 2)
        allowed = step.states[reached:]
        if reached == len(step.states) - 1:
            allowed += following.states
            step = following
        interrupted[step.name] += 1
        changes += done
        assert forked(partial(write_state, folder, place / "left.json")) == 0, f"round {number}: it cannot be read"
        left = {int(i): int(version) for i, version in json.loads((place / "left.json").read_text())}
        assert left in allowed, f"round {number}: killed in {step.name} after {done} changes: {len(left)} documents"
        state = left
    print(json.dumps({"changes": changes, "interrupted": interrupted}))


if __name__ == "__main__":
    main()
