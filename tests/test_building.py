from __future__ import annotations

import pytest

from jv5kit import sources


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


@pytest.mark.parametrize("passage_tokens", [None, 16, 256])
def test_batches_go_by_their_passages(passage_tokens: int | None) -> None:
    """A batch of long documents has about as many passages as one of short ones has documents."""
    documents = [{"text": "x" * 10_000} for _ in range(600)]
    batches = [batch for _, batch, _ in sources.batches(sources.Source(documents), 0, None, None, passage_tokens)]
    assert sum(map(len, batches)) == 600
    assert len(batches[0]) == {None: 512, 16: 4, 256: 53}[passage_tokens]
