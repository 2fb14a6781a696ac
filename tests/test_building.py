from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from jv5kit import sources
from jv5kit.types import Document


def test_batches_go_by_the_time_that_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    # Of this module alone: a server in another thread would wait by it until the clock is where it was.
    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=lambda: clock[0]))
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


@pytest.mark.parametrize(("ids", "names"), [(None, ["7", "8", "9"]), (["é", 3, "x"], ["é", "3", "x"])])
def test_embeddings_without_documents(ids: list[str | int] | None, names: list[str]) -> None:
    """Their documents are made field by field, and have each of them."""
    source = sources.Source(embeddings=np.eye(3, 8, dtype=np.float32), ids=ids)
    ((_, batch, _),) = sources.batches(source, 7, None)
    assert [(one, repr(one), one.origin) for one in batch] == [
        (Document(name, ""), repr(Document(name, "")), None) for name in names
    ]
