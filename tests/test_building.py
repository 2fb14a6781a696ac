from __future__ import annotations

from typing import TYPE_CHECKING

from jv5kit import sources

if TYPE_CHECKING:
    import pytest


def test_batches_go_by_the_time_that_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("jv5kit.sources.time.monotonic", lambda: clock[0])
    documents = ({"text": f"text {i}"} for i in range(10_000))
    sizes = []
    for _, batch, _ in sources.batches(sources.Source(documents), 0, None):
        sizes.append(len(batch))
        # A machine of 100 documents a second, after a first batch that was passed over at once.
        clock[0] += len(batch) / 100 if len(sizes) > 1 else 0
    assert sizes == [512, 1024, *[512] * 16, 272]
