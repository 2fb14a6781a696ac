"""Retrieval: an index of the documents is built at a precision and asked, as users build and ask it."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jv5kit.evaluation.metrics import mean, ndcg, recall
from jv5kit.index import Index

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.tasks import Retrieval
    from jv5kit.types import Precision, Rescore

RECALL_DEPTH = 100

SETTINGS: dict[StoredPrecision, tuple[Precision, Rescore | None]] = {
    "float32": ("float32", None),
    "int8": ("int8", None),
    "ubinary": ("ubinary", "none"),
    "ubinary+codes": ("ubinary", "codes"),
    "ubinary+int8": ("ubinary", "int8"),
}
"""The precision of an index, and what rescores its candidates."""

_QUERIES = 256
"""Queries that are asked together."""


def score(
    data: Retrieval, embeddings: Mapping[str, NDArray[np.float32]], precision: StoredPrecision
) -> dict[str, float]:
    """The nDCG at the set's depth; of a set that is not of long documents recall@100 too, from a search for a hundred.

    (What is rescored is found among candidates for the hits wanted: the ten best of a hundred hits would be better than
    those that a search for ten gives.)
    """
    qrels = data.collection.qrels
    ids = [document.id for document in data.collection.documents]
    with temporary_index(ids, embeddings["documents"], precision) as index:

        def run(depth: int) -> dict[str, list[str]]:
            return dict(zip(qrels, ranked(index, embeddings["queries"], depth), strict=True))

        scores = {f"nDCG@{data.depth}": mean(ndcg(qrels, run(data.depth), data.depth))}
        if data.kind == "retrieval":
            scores[f"recall@{RECALL_DEPTH}"] = mean(recall(qrels, run(RECALL_DEPTH), RECALL_DEPTH))
    return scores


@contextmanager
def temporary_index(ids: Sequence[str], embeddings: NDArray[np.float32], precision: StoredPrecision) -> Iterator[Index]:
    """An index of embeddings, on disk as long as it is used."""
    kept, rescore = SETTINGS[precision]
    with tempfile.TemporaryDirectory(prefix="jv5kit-eval-") as folder:
        path = Path(folder) / "documents.jv5"
        with Index.build(
            path, embeddings=embeddings, ids=ids, precision=kept, rescore=rescore, show_progress_bar=False
        ) as index:
            yield index


def ranked(index: Index, queries: NDArray[np.float32], depth: int) -> list[list[str]]:
    """The ids of the best documents for each query, best first."""
    found: list[list[str]] = []
    for start in range(0, len(queries), _QUERIES):
        hits = index.search(queries[start : start + _QUERIES], depth)
        found += [[hit.id for hit in of_query] for of_query in hits]
    return found
