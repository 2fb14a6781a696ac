"""What Prometheus reads: requests by code, latency, the size of batches, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("jv5kit_requests", "Requests answered.", ["route", "code"], registry=self._registry)
        self.seconds = Histogram(
            "jv5kit_request_seconds",
            "From a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._texts = Histogram("jv5kit_batch_texts", "Texts of a batch.", buckets=_TEXTS, registry=self._registry)
        self._tokens = Histogram("jv5kit_batch_tokens", "Tokens of a batch.", buckets=_TOKENS, registry=self._registry)
        self._encoding = Counter("jv5kit_encoding_seconds", "Time spent encoding.", registry=self._registry)

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show a value as it is whenever the metrics are read."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def batch(self, texts: int, tokens: int, seconds: float) -> None:
        """Count a batch that was encoded."""
        self._texts.observe(texts)
        self._tokens.observe(tokens)
        self._encoding.inc(seconds)

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self._registry)
