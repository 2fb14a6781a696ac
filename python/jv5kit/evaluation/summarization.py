"""Summaries: whether those that people scored higher are nearer to what they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit.evaluation.correlation import spearman
from jv5kit.evaluation.quantized import as_query, stored, unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.tasks import Summaries


def score(
    data: Summaries, embeddings: Mapping[str, NDArray[np.float32]], precision: StoredPrecision
) -> dict[str, float]:
    """The mean over texts of Spearman's correlation between the scores and the similarity to the nearest reference."""
    references = unit(stored(embeddings["references"], precision))
    summaries = unit(as_query(embeddings["summaries"], precision))
    correlations = []
    reference, summary = 0, 0
    for texts, scores in zip(data.references, data.scores, strict=True):
        nearest = (summaries[summary : summary + len(scores)] @ references[reference : reference + len(texts)].T).max(1)
        correlations.append(spearman(nearest, scores) if nearest.min() < nearest.max() else 0.0)
        reference += len(texts)
        summary += len(scores)
    return {"Spearman": float(np.mean(correlations))}
