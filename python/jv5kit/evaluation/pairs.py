"""Pairs of texts: how well their similarity orders them (STS), or tells two kinds apart (pair classification)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jv5kit.evaluation.correlation import spearman
from jv5kit.evaluation.metrics import average_precision
from jv5kit.evaluation.quantized import as_query, pair_cosines, stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.tasks import Pairs


def score(data: Pairs, embeddings: Mapping[str, NDArray[np.float32]], precision: StoredPrecision) -> dict[str, float]:
    """Spearman's correlation of the cosines with the scores, or the average precision of the pairs that are alike."""
    cosines = pair_cosines(as_query(embeddings["left"], precision), stored(embeddings["right"], precision))
    if data.kind == "pair-classification":
        return {"AP": average_precision(data.gold, cosines)}
    # Cosines that are all equal know no order: of few bits that can be so.
    return {"Spearman": spearman(cosines, data.gold) if cosines.min() < cosines.max() else 0.0}
