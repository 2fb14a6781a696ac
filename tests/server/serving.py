"""A server that the tests talk to: in a thread, on a port of its own."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn

from jv5kit import Encoder
from jv5kit.server.app import create_app
from jv5kit.server.running import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from jv5kit.backends import Backend, BackendName, DType, Output
    from jv5kit.server.service import Service


@contextmanager
def running(service: Service, key: str | None = None) -> Iterator[str]:
    """Serve while the block runs; gives the address."""
    listening = listen("127.0.0.1", 0)
    # A request that hangs is to fail its own test, and not to keep all others from their end.
    config = uvicorn.Config(create_app(service, key), log_config=None, lifespan="on", timeout_graceful_shutdown=30)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Held:
    """A backend that encodes when it is let: ``before`` is called with each batch."""

    def __init__(self, backend: Backend, before: Callable[[Sequence[Sequence[int]]], None]) -> None:
        self._backend = backend
        self._before = before
        self.name: BackendName = backend.name
        self.batch_tokens = backend.batch_tokens
        self.pads = backend.pads
        self.dtype: DType = backend.dtype
        self.device = backend.device

    def embed(self, batch: Sequence[Sequence[int]], adapter: str | None, output: Output) -> NDArray[Any]:
        self._before(batch)
        return self._backend.embed(batch, adapter, output)


def held(encoder: Encoder, before: Callable[[Sequence[Sequence[int]]], None]) -> Encoder:
    """An encoder whose backend is :class:`Held`."""
    return Encoder(encoder.checkpoint, Held(encoder.backend, before))


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer, found to be in OpenAI's shape."""
    body = response.json()
    assert [*body] == ["error"], body
    error: dict[str, Any] = body["error"]
    assert [*error] == ["message", "type", "param", "code"]
    assert error["message"]
    return error


def metric(url: str, name: str, **labels: str) -> float:
    """The value of a metric; 0 if it is not there yet."""
    shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    wanted = f"{name}{{{shown}}} " if labels else f"{name} "
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next((float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted)), 0.0)


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.01)
