"""Reranking: the order of a query's candidates by similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit.evaluation.metrics import average_precision
from jv5kit.evaluation.quantized import as_query, pair_cosines, stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.tasks import Reranking


def score(
    data: Reranking, embeddings: Mapping[str, NDArray[np.float32]], precision: StoredPrecision
) -> dict[str, float]:
    """The mean over queries of the average precision of their candidates; equal scores count as found together."""
    queries = as_query(embeddings["queries"], precision)
    documents = stored(embeddings["documents"], precision)
    precisions = []
    start = 0
    for query, relevant in zip(queries, data.relevant, strict=True):
        candidates = documents[start : start + len(relevant)]
        cosines = pair_cosines(np.broadcast_to(query, candidates.shape), candidates)
        precisions.append(average_precision(relevant, cosines))
        start += len(relevant)
    return {"MAP": float(np.mean(precisions))}
