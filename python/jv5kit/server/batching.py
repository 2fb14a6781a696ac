"""Batches by tokens across requests: a bounded queue, and the one thread that encodes what waits in it.

The oldest request is always the next one. What else fits into its batch are texts of the requests behind it, in their
order, that want the same adapter and the same output; a request that is larger than a batch goes through in several. A
request that was cancelled, or whose deadline is past, leaves the queue before it is encoded.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.server.errors import bad_request, overloaded, too_late

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from jv5kit.backends import Backend, Output
    from jv5kit.server.limits import Limits

    Part = tuple["Work", int, int]

SHARE_OF_DEADLINE = 0.5
"""A request is refused if what waits before it takes more than this part of a deadline, at the rate of late."""

FORGET = 0.9
"""What a batch leaves of the weight of those before it, in the rate."""


class Work:
    """The texts of one request, as tokens.

    Attributes:
        tokens: of each text.
        adapter: of the model.
        output: what the embeddings shall be.
        deadline: on the monotonic clock.
        future: gets the embeddings ``(n, dim)``; cancelling it drops the request.
        submitted: when it was queued, on the clock of performance.
        began: when its first text was taken to be encoded.
    """

    def __init__(self, tokens: Sequence[Sequence[int]], adapter: str | None, output: Output, deadline: float) -> None:
        self.tokens = tokens
        self.adapter = adapter
        self.output = output
        self.deadline = deadline
        self.future: Future[NDArray[np.float32]] = Future()
        self.submitted = self.began = time.perf_counter()
        self.total = sum(map(len, tokens))
        self.rows = np.empty((len(tokens), output.dim), np.float32)
        self.taken = 0

    def fits(self, other: Work) -> bool:
        """Whether texts of both can be encoded together."""
        return self.adapter == other.adapter and self.output == other.output

    def waiting_tokens(self) -> int:
        """Tokens of the texts that are not taken yet."""
        return sum(map(len, self.tokens[self.taken :]))


class Batcher:
    """The queue and its thread.

    Args:
        backend: encodes.
        limits: tokens that may wait, tokens of a batch, and the deadline.
        on_batch: called with the texts, the tokens and the seconds of each batch.
    """

    def __init__(self, backend: Backend, limits: Limits, on_batch: Callable[[int, int, float], None]) -> None:
        self._backend = backend
        self._limits = limits
        self._on_batch = on_batch
        self._condition = threading.Condition()
        self._queue: deque[Work] = deque()
        self._waiting = 0
        self._running = 0
        self._seconds = self._encoded = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jv5kit-encoding", daemon=True)
        self._thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue."""
        return self._waiting

    @property
    def waiting_requests(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def check_room(self, tokens: int = 0) -> None:
        """Refuse what the queue has no room for.

        Args:
            tokens: that would wait.

        Raises:
            ApiError: 429, with the time after which there may be room.
        """
        waiting, running = self._waiting, self._running
        rate = self._encoded / self._seconds if self._seconds else None
        seconds = (waiting + running) / rate if rate else 1.0
        full = waiting + max(1, tokens) > self._limits.queue_tokens
        # A request that has the queue for itself is tried, however long it may take.
        late = waiting and rate and (waiting + running + tokens) / rate > SHARE_OF_DEADLINE * self._limits.deadline
        if full or late:
            raise overloaded(f"{waiting:,} tokens wait to be encoded, and there is no room for more", seconds)

    def submit(self, work: Work) -> None:
        """Queue a request.

        Raises:
            ApiError: 429, there is no room; 400, there never will be.
        """
        if work.total > self._limits.queue_tokens:
            raise bad_request(
                f"the input has {work.total:,} tokens, more than the {self._limits.queue_tokens:,} that this server "
                "takes; send fewer texts at a time",
                "input",
                code="too_many_tokens",
            )
        with self._condition:
            self.check_room(work.total)
            self._queue.append(work)
            self._waiting += work.total
            self._condition.notify()
        work.future.add_done_callback(lambda future: self._drop(work) if future.cancelled() else None)

    def close(self) -> None:
        """Encode what waits, and end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    def _drop(self, work: Work) -> None:
        with self._condition:
            self._remove(work)

    def _remove(self, work: Work) -> None:
        """Take a request out of the queue, if it is there. The lock is held."""
        with suppress(ValueError):
            self._queue.remove(work)
            self._waiting -= work.waiting_tokens()

    def _run(self) -> None:
        while parts := self._next():
            began = time.perf_counter()
            error = self._encode(parts)
            seconds = time.perf_counter() - began
            texts = sum(last - first for _, first, last in parts)
            with self._condition:
                if error is None:
                    self._seconds = FORGET * self._seconds + seconds
                    self._encoded = FORGET * self._encoded + self._running
                tokens, self._running = self._running, 0
            for work, _, last in parts:
                if error is not None:
                    self._drop(work)
                    _settle(work, error)
                elif last == len(work.tokens):
                    _settle(work, work.rows)
            self._on_batch(texts, tokens, seconds)

    def _encode(self, parts: list[Part]) -> Exception | None:
        """Encode a batch into the rows of its requests; returns what went wrong."""
        first = parts[0][0]
        batch = [tokens for work, start, end in parts for tokens in work.tokens[start:end]]
        try:
            embeddings = self._backend.embed(batch, first.adapter, first.output)
        # Whatever it is, its requests are told, and the thread lives on for the others.
        except Exception as error:
            return error
        done = 0
        for work, start, end in parts:
            work.rows[start:end] = embeddings[done : done + end - start]
            done += end - start
        return None

    def _next(self) -> list[Part]:
        """Wait for work and take a batch of it; nothing once the batcher is closed and the queue empty."""
        while True:
            late: list[Work] = []
            with self._condition:
                while not self._queue and not self._closing:
                    self._condition.wait()
                now = time.monotonic()
                for work in list(self._queue):
                    if work.deadline <= now:
                        self._remove(work)
                        late.append(work)
                parts = self._take()
                over = self._closing and not self._queue and not parts
            for work in late:
                _settle(work, too_late(self._limits.deadline))
            if parts or over:
                return parts

    def _take(self) -> list[Part]:
        """Take the next batch out of the queue. The lock is held."""
        parts: list[Part] = []
        count = total = longest = 0
        for work in list(self._queue):
            if parts and not work.fits(parts[0][0]):
                continue
            first = work.taken
            while work.taken < len(work.tokens):
                length = len(work.tokens[work.taken])
                # Where a batch is padded each text costs as much as the longest.
                cost = max(longest, length) * (count + 1) if self._backend.pads else total + length
                if count and cost > self._limits.batch_tokens:
                    break
                count, total, longest = count + 1, total + length, max(longest, length)
                work.taken += 1
            if work.taken > first:
                work.began = time.perf_counter() if first == 0 else work.began
                parts.append((work, first, work.taken))
            if work.taken < len(work.tokens):
                break
            self._queue.remove(work)
        self._waiting -= total
        self._running = total
        return parts


def _settle(work: Work, result: Any) -> None:
    """Give a request its embeddings, or its error, unless it was cancelled."""
    # It may be cancelled at any moment before it is set to running, and at none after.
    if not work.future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        work.future.set_exception(result)
    else:
        work.future.set_result(result)
