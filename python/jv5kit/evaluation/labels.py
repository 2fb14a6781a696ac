"""Measures of labels that were predicted, or of clusters that were found, against the true labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def accuracy(true: ArrayLike, predicted: ArrayLike) -> float:
    """Share of the rows whose label is right; of rows of flags ``(n, labels)``, of those where every flag is right.

    Raises:
        InputError: the shapes differ, or there is no row.
    """
    right = _pair(true, predicted)
    equal = right[0] == right[1]
    return float(np.mean(equal if equal.ndim == 1 else equal.all(axis=1)))


def macro_f1(true: ArrayLike, predicted: ArrayLike) -> float:
    """The mean over labels of the harmonic mean of precision and recall; 0 for a label without a right prediction.

    Args:
        true: labels ``(n,)``, or flags ``(n, labels)``.
        predicted: as ``true``. Of ``(n,)`` labels those count that occur on either side.

    Raises:
        InputError: the shapes differ, or there is no row.
    """
    left, right = _pair(true, predicted)
    if left.ndim == 1:
        names = np.unique(np.concatenate([left, right]))
        left, right = left[:, None] == names, right[:, None] == names
    left, right = left.astype(bool), right.astype(bool)
    both, total = (left & right).sum(axis=0), left.sum(axis=0) + right.sum(axis=0)
    return float(np.mean(2 * both / np.maximum(total, 1)))


def label_ranking_average_precision(true: ArrayLike, scores: ArrayLike) -> float:
    """For each true label, the share of true ones among the labels that score as high: the mean over labels, then rows.

    It is scikit-learn's ``label_ranking_average_precision_score``: a row where no label or every label is true has 1.

    Args:
        true: flags ``(n, labels)``.
        scores: numbers ``(n, labels)``.

    Raises:
        InputError: the shapes differ, there is no row, or a score is NaN.
    """
    flags, values = _pair(true, scores)
    if flags.ndim != 2 or np.isnan(values).any():
        raise InputError(f"scores have shape {values.shape}; they must be numbers (n, labels), none of them NaN")
    flags = flags.astype(bool)
    precisions = []
    for row, score in zip(flags, values, strict=True):
        if row.all() or not row.any():
            precisions.append(1.0)
            continue
        as_high = score[None, :] >= score[row][:, None]
        precisions.append(float(np.mean((as_high & row).sum(axis=1) / as_high.sum(axis=1))))
    return float(np.mean(precisions))


def v_measure(true: ArrayLike, clusters: ArrayLike) -> float:
    """The harmonic mean of homogeneity (a cluster has one label) and completeness (a label is in one cluster).

    (Rosenberg and Hirschberg, V-Measure: a conditional entropy-based external cluster evaluation measure, 2007.)

    Raises:
        InputError: the shapes differ, or there is no row.
    """
    left, right = _pair(true, clusters)
    _, rows = np.unique(left, return_inverse=True)
    _, columns = np.unique(right, return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    of_labels, of_clusters = _entropy(table.sum(axis=1)), _entropy(table.sum(axis=0))
    shared = of_labels + of_clusters - _entropy(table.ravel())
    homogeneity = shared / of_labels if of_labels else 1.0
    completeness = shared / of_clusters if of_clusters else 1.0
    total = homogeneity + completeness
    # Entropies are rounded: nothing in common may come out a little below 0.
    return max(0.0, 2 * homogeneity * completeness / total) if total > 0 else 0.0


def _entropy(counts: NDArray[np.float64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-np.sum(shares * np.log(shares))) if len(shares) > 1 else 0.0


def _pair(true: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    left, right = np.asarray(true), np.asarray(predicted)
    if left.shape != right.shape or left.ndim not in (1, 2):
        raise InputError(f"there are labels of shapes {left.shape} and {right.shape}; they must be the same")
    if not left.size:
        raise InputError("there is no row to compare the labels of")
    return left, right
