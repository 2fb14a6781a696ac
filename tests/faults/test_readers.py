"""One writer and four readers that follow it: whole batches only, counts that never fall, one writer at a time.

``JV5KIT_TEST_APPENDS`` sets the number of appends.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jv5kit import Index
from jv5kit.errors import IndexLockedError

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event

    from numpy.typing import NDArray

APPENDS = int(os.environ.get("JV5KIT_TEST_APPENDS", "200"))
READERS, BATCH, DIM = 4, 5, 64
MOST_SEGMENTS = 32
# A query costs so much more than in an index of one segment at most, and so much where it takes no time at all.
RATIO, SLACK_SECONDS = 1.5, 300e-6


def rows_of(batch: int) -> NDArray[np.float32]:
    """The embeddings of a batch."""
    return np.random.default_rng(batch).standard_normal((BATCH, DIM)).astype(np.float32)


def ids_of(batch: int) -> list[str]:
    return [f"{batch}.{i}" for i in range(BATCH)]


def write(folder: Path, appends: int, times: Queue[list[float]]) -> None:
    """Append batch after batch, each in a commit of its own."""
    seconds = []
    with Index.open(folder) as index:
        for batch in range(1, appends + 1):
            start = time.perf_counter()
            index.add(embeddings=rows_of(batch), ids=ids_of(batch))
            seconds.append(time.perf_counter() - start)
    times.put(seconds)


def follow(folder: Path, done: Event, seen: Queue[str | list[int]]) -> None:
    """Take up every new state, and check it."""
    try:
        seen.put(counts(folder, done))
    except BaseException as error:
        seen.put(f"{type(error).__name__}: {error}")
        raise


def counts(folder: Path, done: Event) -> list[int]:
    """The numbers of documents that were seen, one after another."""
    found: list[int] = []
    chance = np.random.default_rng(os.getpid())
    with Index.open(folder) as index:
        while True:
            last = done.is_set()
            index.refresh()
            count = len(index)
            assert count % BATCH == 0, f"a batch is there in part: {count} documents"
            assert not found or count >= found[-1], f"{found[-1]} documents became {count}"
            found.append(count)
            newest = count // BATCH - 1
            # The newest batch is there as a whole, and so is any other one.
            for batch in (newest, int(chance.integers(newest + 1))):
                hits = index.search(rows_of(batch), 1, oversample=20)
                assert [hit[0].id for hit in hits] == ids_of(batch), f"batch {batch} of {newest} is not all there"
            if last:
                return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]], list[float]]:
    """An index after all appends, what each reader saw meanwhile, and how long each append took."""
    folder = tmp_path_factory.mktemp("written") / "x.jv5"
    Index.build(folder, embeddings=rows_of(0), ids=ids_of(0)).close()
    context = multiprocessing.get_context("spawn")
    done = context.Event()
    seen: Queue[str | list[int]] = context.Queue()
    times: Queue[list[float]] = context.Queue()
    readers = [context.Process(target=follow, args=(folder, done, seen)) for _ in range(READERS)]
    writer = context.Process(target=write, args=(folder, APPENDS, times))
    for process in (*readers, writer):
        process.start()
    seconds = times.get()
    done.set()
    found = [seen.get() for _ in readers]
    for process in (*readers, writer):
        process.join()
    problems = [outcome for outcome in found if isinstance(outcome, str)]
    assert not problems, problems
    return folder, [outcome for outcome in found if not isinstance(outcome, str)], seconds


def test_readers_see_whole_batches(written: tuple[Path, list[list[int]], list[float]]) -> None:
    _, found, seconds = written
    states = [len(set(counts)) for counts in found]
    print(f"{APPENDS} appends, median {1000 * float(np.median(seconds)):.1f} ms; the readers saw {states} states")
    assert all(counts[-1] == (APPENDS + 1) * BATCH for counts in found)
    assert min(states) > 5, "a reader saw nothing of the writing"


def test_the_time_of_an_append_does_not_grow(written: tuple[Path, list[list[int]], list[float]]) -> None:
    *_, seconds = written
    # An append that merges takes longer, and ever fewer of them do; the median is of those that do not.
    tenth = len(seconds) // 10
    first, last = np.median(seconds[tenth : 2 * tenth]), np.median(seconds[-tenth:])
    print(f"an append takes {1000 * first:.1f} ms at first and {1000 * last:.1f} ms at last")
    assert last < 3 * first


def fastest(index: Index, query: NDArray[np.float32]) -> float:
    """CPU-seconds of the fastest of many searches."""
    times = []
    for _ in range(50):
        start = time.process_time()
        index.search(query)
        times.append(time.process_time() - start)
    return min(times)


def test_few_segments_are_left_and_a_query_costs_little_more(
    written: tuple[Path, list[list[int]], list[float]], tmp_path: Path
) -> None:
    folder, *_ = written
    query = rows_of(1)[2]
    compacted = Path(shutil.copytree(folder, tmp_path / "compacted.jv5"))
    with Index.open(folder) as index, Index.open(compacted) as one:
        assert index.segment_count <= MOST_SEGMENTS
        one.compact()
        assert one.segment_count == 1
        many, single = (fastest(opened, query) for opened in (index, one))
        print(f"{index.segment_count} segments: {1e6 * many:.0f} µs a query; compacted: {1e6 * single:.0f} µs")
        assert many <= RATIO * single + SLACK_SECONDS


def test_the_time_of_a_commit_does_not_grow_with_the_deletions(tmp_path: Path) -> None:
    """CPU time of deleting a document, and of adding some, when few are deleted and when many are."""
    count = 20_000
    rows = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    times = []
    with Index.build(tmp_path / "x.jv5", embeddings=rows) as index:
        for already in (10, 8000):
            index.delete([str(i) for i in range(already)])
            seconds = []
            for i in range(10):
                start = time.process_time()
                index.delete([str(count - already - i)])
                index.add(embeddings=rows_of(i), ids=[f"{already}.{i}.{j}" for j in range(BATCH)])
                seconds.append(time.process_time() - start)
            times.append(min(seconds))
    print(f"a deletion and an append take {1000 * times[0]:.1f} ms, after 8000 deletions {1000 * times[1]:.1f} ms")
    assert times[1] < 2 * times[0]


def add_one(folder: Path, outcome: Queue[str]) -> None:
    """Add a document, and say what came of it."""
    try:
        with Index.open(folder) as index:
            index.add(embeddings=rows_of(99)[:1], ids=["new"])
        outcome.put("done")
    except IndexLockedError as error:
        outcome.put(str(error))


def test_a_second_writer_is_refused_by_name(tmp_path: Path) -> None:
    """Another process, in the midst of an append."""
    folder = tmp_path / "x.jv5"
    Index.build(folder, embeddings=rows_of(0), ids=ids_of(0)).close()
    context = multiprocessing.get_context("spawn")
    outcome: Queue[str] = context.Queue()

    def meanwhile(_: int) -> None:
        second = context.Process(target=add_one, args=(folder, outcome))
        second.start()
        second.join()

    with Index.open(folder) as index:
        index.add(embeddings=rows_of(1), ids=ids_of(1), on_commit=meanwhile)
        assert f"{folder} is being written by process {os.getpid()} on " in outcome.get()
        assert len(index) == 2 * BATCH
