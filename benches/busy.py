"""Search beside a busy core: `python benches/busy.py`.

A process that does nothing but count is pinned to one core, and two threads search beside it: wall time, against one
thread alone without that neighbor. FAISS does the same next to jv5kit. Best and median of the runs; the sides take
turns, so that other work on the machine slows all of them.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import faiss
import numpy as np
import typer

import jv5kit

TOP_K = 10

LIMIT = 1.5  # times one thread alone, for jv5kit

HEADER = """
Milliseconds of wall time, median (best); beside: two threads beside a busy core / one thread alone, of the medians.

| workload | library | 1 thread alone | 2 threads alone | 2 threads beside a busy core | beside |
|---|---|--:|--:|--:|--:|"""


def count_for_ever(core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        pass


@contextmanager
def busy_core(core: int) -> Iterator[None]:
    """A core that another process keeps busy."""
    neighbor = multiprocessing.get_context("spawn").Process(target=count_for_ever, args=(core,), daemon=True)
    neighbor.start()
    try:
        # It takes a moment to start, and then has its share of the core from the beginning.
        time.sleep(0.5)
        yield
    finally:
        neighbor.kill()
        neighbor.join()


def seconds(run: Callable[[], Any], runs: int) -> list[float]:
    """Wall time of each run."""
    # The threads of the library before may still be waiting for more work, which costs as much as work.
    time.sleep(0.3)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def main(
    runs: Annotated[int, typer.Option(help="Runs of each side a round.")] = 20,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 3,
    check: Annotated[bool, typer.Option("--check", help=f"Exit 1 when jv5kit takes more than {LIMIT} times.")] = False,
) -> None:
    """Time two threads beside a busy core against one thread alone, for jv5kit and FAISS."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("this process may use one core; the comparison needs two")
    # Two cores for two threads, however many the machine has.
    os.sched_setaffinity(0, cores)
    rng = np.random.default_rng(0)
    codes, queries = rng.integers(0, 256, (4_000_000, 32), np.uint8), rng.integers(0, 256, (100, 32), np.uint8)
    typer.echo(HEADER)
    missed = False
    for rows, count in ((4_000_000, 1), (1_000_000, 10), (1_000_000, 100), (4_000_000, 100)):
        index = faiss.IndexBinaryFlat(256)
        index.add(codes[:rows])
        asked, searched = queries[:count], codes[:rows]

        def by_faiss(threads: int, index: Any = index, asked: Any = asked) -> Any:
            faiss.omp_set_num_threads(threads)
            return index.search(asked, TOP_K)

        def by_jv5kit(threads: int, searched: Any = searched, asked: Any = asked) -> Any:
            return jv5kit.hamming_search(asked, searched, TOP_K, threads=threads)

        sides = {"jv5kit": by_jv5kit, "FAISS": by_faiss}
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for name, search in sides.items():
                times.setdefault((name, "one"), []).extend(seconds(partial(search, 1), runs))
                times.setdefault((name, "two"), []).extend(seconds(partial(search, 2), runs))
            with busy_core(cores[1]):
                for name, search in sides.items():
                    times.setdefault((name, "beside"), []).extend(seconds(partial(search, 2), runs))
        for name in sides:
            one, two, beside = (times[name, kind] for kind in ("one", "two", "beside"))
            ratio = statistics.median(beside) / statistics.median(one)
            missed |= name == "jv5kit" and ratio > LIMIT
            cells = (f"{statistics.median(part) * 1e3:.1f} ({min(part) * 1e3:.1f})" for part in (one, two, beside))
            noun = "query" if count == 1 else "queries"
            typer.echo(f"| {rows:,} x 256 bit, {count} {noun} | {name} | {' | '.join(cells)} | {ratio:.2f} |")
    if check and missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
