"""Classification: what a logistic regression on embeddings learns from a few rows of each label.

As in mteb, it is trained several times, each time on a few rows of each label drawn anew, and its scores are averaged:
that asks how well the embeddings separate labels, where a classifier of all rows would learn around them.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.errors import MissingExtraError
from jv5kit.evaluation.labels import accuracy, label_ranking_average_precision, macro_f1
from jv5kit.evaluation.quantized import stored, unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.tasks import Classification

    Labels = Sequence[tuple[str, ...]]

DRAWS = 10
"""Times that a classifier is trained."""

ROWS_A_LABEL = 8
"""Rows of each label that it is trained on."""

_ITERATIONS = 100


def draw(labels: Labels) -> list[list[int]]:
    """The rows of each training: in a drawn order, each that has a label of which there are too few until then.

    The seeds are the numbers of the draws: the same rows are drawn on every machine.
    """
    draws = []
    for seed in range(DRAWS):
        counts: dict[str, int] = {}
        taken = []
        for row in np.random.default_rng(seed).permutation(len(labels)).tolist():
            if any(counts.get(label, 0) < ROWS_A_LABEL for label in labels[row]):
                taken.append(row)
                for label in labels[row]:
                    counts[label] = counts.get(label, 0) + 1
        draws.append(taken)
    return draws


def score(
    data: Classification, embeddings: Mapping[str, NDArray[np.float32]], precision: StoredPrecision
) -> dict[str, float]:
    """Accuracy and macro F1; of a multilabel set the label ranking average precision (LRAP), macro F1 and accuracy.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    train, test = (unit(stored(embeddings[side], precision)) for side in ("train", "test"))
    measure = _multilabel if data.multilabel else _single_label
    scores = [
        measure(train[rows], [data.train_labels[row] for row in rows], test, data.test_labels) for rows in data.draws
    ]
    return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


def _single_label(
    train: NDArray[np.float32], train_labels: Labels, test: NDArray[np.float32], test_labels: Labels
) -> dict[str, float]:
    classifier = _fit(train, [label for (label,) in train_labels])
    true, predicted = [label for (label,) in test_labels], classifier.predict(test).tolist()
    return {"accuracy": accuracy(true, predicted), "F1": macro_f1(true, predicted)}


def _multilabel(
    train: NDArray[np.float32], train_labels: Labels, test: NDArray[np.float32], test_labels: Labels
) -> dict[str, float]:
    """A classifier for each label: whether a text has it or not."""
    names = sorted({label for labels in (*train_labels, *test_labels) for label in labels})
    learned, true = (
        np.array([[name in labels for name in names] for labels in side]) for side in (train_labels, test_labels)
    )
    probabilities = np.empty(true.shape)
    for column, flags in enumerate(learned.T):
        # Of a label that all rows have, or none, there is nothing to learn.
        alike = flags.all() or not flags.any()
        probabilities[:, column] = float(flags[0]) if alike else _fit(train, flags).predict_proba(test)[:, 1]
    predicted = probabilities > 0.5
    return {
        "LRAP": label_ranking_average_precision(true, probabilities),
        "F1": macro_f1(true, predicted),
        "accuracy": accuracy(true, predicted),
    }


def _fit(rows: NDArray[np.float32], labels: Any) -> Any:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtraError("classification needs scikit-learn: pip install 'jv5kit[eval]'") from None
    with warnings.catch_warnings():
        # The number of iterations is part of the measure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(max_iter=_ITERATIONS).fit(rows, labels)
