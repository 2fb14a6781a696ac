"""Twice as many clients as the server can answer: only 200 and 429, in time, and memory that stays where it is.

``JV5KIT_SOAK_SECONDS`` is how long, 20 by default; 600 is a soak worth the name.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
from test_serve_command import serving

SECONDS = float(os.environ.get("JV5KIT_SOAK_SECONDS", "20"))
DEADLINE = 10
WORDS = ["a", "penguin", "swims", "in", "the", "cold", "sea", "and", "warm", "birds", "fly", "over", "ice"]

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


def bodies(seed: int) -> list[dict[str, object]]:
    """Requests of all kinds, 1 to 32 texts each."""
    generator = np.random.default_rng(seed)
    tasks = ["retrieval.query", "retrieval.passage", "text-matching", "clustering", "classification"]
    return [
        {
            "model": "pico",
            "input": [" ".join(generator.choice(WORDS, int(size))) for size in generator.integers(2, 60, count)],
            "task": str(generator.choice(tasks)),
            "embedding_type": str(generator.choice(["float", "base64", "ubinary"])),
        }
        for count in generator.integers(1, 33, 50)
    ]


class Client(threading.Thread):
    """Sends request after request until it is told to stop."""

    def __init__(self, url: str, seed: int, stop: threading.Event) -> None:
        super().__init__()
        self._url = url
        self._bodies = bodies(seed)
        self._stop_asked = stop
        self.codes: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.without_wait = 0

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            number = 0
            while not self._stop_asked.is_set():
                began = time.perf_counter()
                try:
                    response = http.post("/v1/embeddings", json=self._bodies[number % len(self._bodies)])
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                number += 1
                self.codes[response.status_code] += 1
                if response.status_code == 200:
                    self.seconds.append(time.perf_counter() - began)
                else:
                    self.without_wait += "retry-after" not in response.headers
                    # Sooner than it was told to: that is the overload.
                    self._stop_asked.wait(0.05)


def test_overload() -> None:
    # What the queue takes keeps the encoder busy, and the clients are several times as many as it takes.
    options = ["--deadline", str(DEADLINE), "--queue-tokens", "8192", "--batch-tokens", "2048"]
    with serving(*options) as server:
        stop = threading.Event()
        clients = [Client(server.url, seed, stop) for seed in range(32)]
        for client in clients:
            client.start()
        memory: list[int] = []
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            memory.append(resident_bytes(server.process.pid))
            time.sleep(0.2)
        stop.set()
        for client in clients:
            client.join()
        codes: Counter[int] = sum((client.codes for client in clients), Counter())
        assert not [failure for client in clients for failure in client.failures]
        assert set(codes) == {200, 429}, codes
        assert codes[429] >= codes[200], "it was asked for less than twice of what it can answer"
        assert sum(client.without_wait for client in clients) == 0
        assert np.quantile([second for client in clients for second in client.seconds], 0.99) < DEADLINE
        fifth = len(memory) // 5
        assert statistics.median(memory[-fifth:]) <= 1.05 * statistics.median(memory[fifth : 2 * fifth])
        assert httpx.post(f"{server.url}/v1/embeddings", json=bodies(0)[0], timeout=60).status_code == 200
