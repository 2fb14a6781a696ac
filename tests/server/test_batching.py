"""The queue and its batches, with a backend that encodes when the test lets it."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from serving import Held, eventually

from jv5kit.backends import Output
from jv5kit.server.batching import Batcher, Work
from jv5kit.server.errors import ApiError
from jv5kit.server.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jv5kit import Encoder

UNIT = Output(64, unit=True, normalize=True, binary=False)


class Gate:
    """Lets one batch through at a time, and keeps what was in each."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered: queue.Queue[int] = queue.Queue()
        self.open = threading.Semaphore(0)
        self.fail = False

    def __call__(self, batch: Sequence[Sequence[int]]) -> None:
        self.batches.append([len(tokens) for tokens in batch])
        self.entered.put(len(batch))
        assert self.open.acquire(timeout=60)
        if self.fail:
            self.fail = False
            raise RuntimeError("out of order")


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def batcher(encoder: Encoder, gate: Gate) -> Iterator[Batcher]:
    made = Batcher(Held(encoder.backend, gate), Limits(queue_tokens=100, batch_tokens=20, deadline=5), lambda *_: None)
    yield made
    for _ in range(100):
        gate.open.release()
    made.close()


def work(*lengths: int, output: Output = UNIT, seconds: float = 60) -> Work:
    """Texts of so many tokens."""
    return Work([[5 + i] * length for i, length in enumerate(lengths)], None, output, time.monotonic() + seconds)


def test_batches_take_what_fits_across_requests(batcher: Batcher, gate: Gate, encoder: Encoder) -> None:
    truncated = Output(8, unit=True, normalize=True, binary=False)
    first, large, small, last = work(3), work(9, 9, 9, 30, 2), work(4), work(1)
    other = work(5, output=truncated)
    batcher.submit(first)
    gate.entered.get(timeout=60)
    for one in (large, small, other, last):
        batcher.submit(one)
    assert (batcher.waiting_requests, batcher.waiting_tokens) == (4, 69)
    for _ in range(6):
        gate.open.release()
    for one in (first, large, small, other, last):
        rows = one.future.result(60)
        assert rows.tobytes() == encoder.backend.embed(one.tokens, None, one.output).tobytes()
    # A text longer than a batch has one to itself; another output has a batch of its own, when it is the oldest.
    assert gate.batches == [[3], [9, 9], [9], [30], [2, 4, 1], [5]]
    assert (batcher.waiting_requests, batcher.waiting_tokens) == (0, 0)


def test_padding_counts_where_batches_are_padded(encoder: Encoder, gate: Gate) -> None:
    backend = Held(encoder.backend, gate)
    backend.pads = True
    batcher = Batcher(backend, Limits(batch_tokens=20), lambda *_: None)
    one = work(1, 9, 1, 1)
    for _ in range(3):
        gate.open.release()
    batcher.submit(one)
    one.future.result(60)
    batcher.close()
    assert gate.batches == [[1, 9], [1, 1]]


def test_a_full_queue_says_when_to_come_again(batcher: Batcher, gate: Gate) -> None:
    batcher.submit(work(1))
    gate.entered.get(timeout=60)
    batcher.submit(work(60))
    batcher.submit(work(40))
    with pytest.raises(ApiError) as caught:
        batcher.submit(work(1))
    assert caught.value.status == 429
    assert caught.value.message == "100 tokens wait to be encoded, and there is no room for more; try again in 1 s"
    assert caught.value.headers == {"Retry-After": "1"}
    with pytest.raises(ApiError, match="100 tokens wait"):
        batcher.check_room()


def test_what_would_wait_too_long_is_refused_by_the_rate(batcher: Batcher, gate: Gate) -> None:
    gate.open.release()
    first = work(20)
    batcher.submit(first)
    first.future.result(60)
    eventually(lambda: batcher._seconds > 0)
    batcher._encoded, batcher._seconds = 10.0, 1.0
    batcher.submit(work(1))
    eventually(lambda: gate.entered.qsize() == 2)
    batcher.submit(work(20))
    # 21 tokens before it at 10 tokens a second; half of the deadline is 2.5 s.
    with pytest.raises(ApiError, match="there is no room for more; try again in 3 s"):
        batcher.submit(work(5))
    batcher.submit(work(4))


def test_what_never_has_room_is_said_to_be_too_large(batcher: Batcher) -> None:
    with pytest.raises(ApiError, match="the input has 101 tokens, more than the 100 that this server takes") as caught:
        batcher.submit(work(50, 51))
    assert caught.value.status == 400


def test_what_was_cancelled_is_not_encoded(batcher: Batcher, gate: Gate) -> None:
    first, gone, last = work(1), work(7), work(2)
    batcher.submit(first)
    gate.entered.get(timeout=60)
    batcher.submit(gone)
    batcher.submit(last)
    assert gone.future.cancel()
    assert (batcher.waiting_requests, batcher.waiting_tokens) == (1, 2)
    for _ in range(2):
        gate.open.release()
    last.future.result(60)
    assert gate.batches == [[1], [2]]


def test_what_is_cancelled_between_its_batches_leaves_the_rest(batcher: Batcher, gate: Gate) -> None:
    large = work(18, 18, 18)
    batcher.submit(large)
    gate.entered.get(timeout=60)
    assert large.future.cancel()
    assert (batcher.waiting_requests, batcher.waiting_tokens) == (0, 0)
    last = work(2)
    batcher.submit(last)
    for _ in range(2):
        gate.open.release()
    last.future.result(60)
    assert gate.batches == [[18], [2]]


def test_what_is_late_is_not_encoded(batcher: Batcher, gate: Gate) -> None:
    first, late, last = work(1), work(7, seconds=0), work(2)
    batcher.submit(first)
    gate.entered.get(timeout=60)
    batcher.submit(late)
    batcher.submit(last)
    for _ in range(2):
        gate.open.release()
    with pytest.raises(ApiError, match="the request was not done within 5 s and was dropped") as caught:
        late.future.result(60)
    assert caught.value.status == 504
    last.future.result(60)
    assert gate.batches == [[1], [2]]


def test_an_error_is_that_of_its_batch_alone(batcher: Batcher, gate: Gate) -> None:
    gate.fail = True
    bad, good = work(18, 18), work(2)
    batcher.submit(bad)
    gate.entered.get(timeout=60)
    batcher.submit(good)
    for _ in range(2):
        gate.open.release()
    with pytest.raises(RuntimeError, match="out of order"):
        bad.future.result(60)
    good.future.result(60)
    assert gate.batches == [[18], [2]]


def test_closing_encodes_what_waits(encoder: Encoder) -> None:
    batcher = Batcher(encoder.backend, Limits(batch_tokens=8), lambda *_: None)
    several = [work(5, 5, 5) for _ in range(20)]
    for one in several:
        batcher.submit(one)
    batcher.close()
    assert all(one.future.done() for one in several)


def test_a_batch_does_not_change_a_vector(encoder: Encoder) -> None:
    """The last bit of it: what makes batches across requests allowed."""
    generator = np.random.default_rng(0)
    tokens: list[list[int]] = [generator.integers(5, 60, size=length).tolist() for length in range(1, 60)]
    alone: dict[int, Any] = {i: encoder.backend.embed([one], None, UNIT)[0] for i, one in enumerate(tokens)}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(tokens))[: 7 + 11 * seed]
        together = encoder.backend.embed([tokens[i] for i in order], None, UNIT)
        assert all(row.tobytes() == alone[i].tobytes() for i, row in zip(order.tolist(), together, strict=True))
