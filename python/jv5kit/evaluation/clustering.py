"""Clustering: whether k-means, which knows only how many labels there are, puts texts of one label together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import MissingExtraError
from jv5kit.evaluation.labels import v_measure
from jv5kit.evaluation.quantized import stored, unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.tasks import Clustering

RUNS = 10
"""Clusterings whose scores are averaged, each from another seed: 0, 1, 2 …"""

_BATCH = 512


def score(
    data: Clustering, embeddings: Mapping[str, NDArray[np.float32]], precision: StoredPrecision
) -> dict[str, float]:
    """The mean V-measure of mini-batch k-means, with as many clusters as there are labels.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError:
        raise MissingExtraError("clustering needs scikit-learn: pip install 'jv5kit[eval]'") from None
    rows = unit(stored(embeddings["sentences"], precision))
    clusters = len(set(data.labels))
    measures = []
    for seed in range(RUNS):
        found = MiniBatchKMeans(clusters, batch_size=_BATCH, n_init=1, random_state=seed).fit_predict(rows)
        measures.append(v_measure(data.labels, found))
    return {"V-measure": float(np.mean(measures))}
