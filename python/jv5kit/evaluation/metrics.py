"""Measures of a ranking against relevance judgements, as trec_eval and, where scores tie, scikit-learn define them.

Judgements (``qrels``) map a query's id to the documents judged for it and their relevance: 0 or below is not relevant,
a higher one is a larger gain. A ``run`` maps a query's id to what was found: documents with scores, or a sequence of
documents, best first. Every query that was judged counts: one that the run lacks scores 0 (``trec_eval -c``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance of documents to queries: query id → document id → relevance."""

Run = Mapping[str, Mapping[str, float] | Sequence[str]]
"""What was found: query id → document id → score, or query id → document ids, best first."""


def ndcg(qrels: Qrels, run: Run, k: int = 10) -> dict[str, float]:
    """Normalized discounted cumulative gain at ``k``: trec_eval's ``ndcg_cut``, the measure of BEIR.

    The gain of a document is its relevance, divided by log2(rank + 1); the sum over the first ``k`` is divided by that
    of the best ranking there can be. (Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002.)

    Args:
        qrels: judgements.
        run: what was found; scores are compared as trec_eval does: in float32, ties by the larger id.
        k: documents that count, at least 1.

    Returns:
        A number in [0, 1] for each query of ``qrels``; 0 for one without a relevant document.

    Raises:
        InputError: ``k`` is below 1, a score is NaN, or a document is ranked twice.
    """
    scores = {}
    for query, judged in qrels.items():
        gains = [max(0, judged.get(document, 0)) for document in _first(run, query, k)]
        best = _discounted(sorted((max(0, relevance) for relevance in judged.values()), reverse=True)[:k])
        scores[query] = _discounted(gains) / best if best else 0.0
    return scores


def recall(qrels: Qrels, run: Run, k: int = 10) -> dict[str, float]:
    """Share of a query's relevant documents that are among the first ``k``: trec_eval's ``recall``.

    The arguments, the errors and the shape of the result are those of :func:`ndcg`.
    """
    scores = {}
    for query, judged in qrels.items():
        relevant = {document for document, relevance in judged.items() if relevance > 0}
        found = relevant.intersection(_first(run, query, k))
        scores[query] = len(found) / len(relevant) if relevant else 0.0
    return scores


def average_precision(relevant: ArrayLike, scores: ArrayLike) -> float:
    """The area below the steps of precision over recall: the sum of ``(R[i] - R[i - 1]) * P[i]`` over the thresholds.

    Items with equal scores are found together, so that the order in which they are given does not count. Without equal
    scores it is trec_eval's ``map`` of one query; with them it is scikit-learn's ``average_precision_score``.

    Args:
        relevant: bool ``(n,)``, or 0 and 1.
        scores: ``(n,)``, higher is better.

    Returns:
        A number in [0, 1].

    Raises:
        InputError: the lengths differ, nothing is relevant, or a score is NaN.
    """
    flags, values = np.asarray(relevant).astype(bool), np.asarray(scores, np.float64)
    if flags.ndim != 1 or flags.shape != values.shape:
        raise InputError(f"relevant has shape {flags.shape} and scores {values.shape}; both must be (n,)")
    if np.isnan(values).any():
        raise InputError(f"score {int(np.isnan(values).argmax())} is NaN")
    if not flags.any():
        raise InputError("nothing is relevant: there is no average precision")
    order = np.argsort(-values, kind="stable")
    flags, values = flags[order], values[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    found = np.cumsum(flags)[last]
    return float(np.sum(np.diff(found, prepend=0) / found[-1] * (found / (last + 1))))


def mean(scores: Mapping[str, float]) -> float:
    """The measure of a whole collection: the mean over its queries.

    Raises:
        InputError: there is no query.
    """
    if not scores:
        raise InputError("there is no query to take the mean of")
    return math.fsum(scores.values()) / len(scores)


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _first(run: Run, query: str, k: int) -> list[str]:
    """The first ``k`` documents found for a query, best first."""
    if k < 1:
        raise InputError(f"k={k}; it must be at least 1")
    found = run.get(query, ())
    if isinstance(found, Mapping):
        return _by_score(query, found)[:k]
    if len(set(found)) < len(found):
        twice = next(document for i, document in enumerate(found) if document in found[:i])
        raise InputError(f"query {query!r} has document {twice!r} twice in its ranking")
    return list(found[:k])


def _by_score(query: str, found: Mapping[str, float]) -> list[str]:
    # Beyond float32 is an infinity, as for trec_eval.
    with np.errstate(over="ignore"):
        scores = np.asarray(list(found.values()), np.float64).astype(np.float32).tolist()
    for document, score in zip(found, scores, strict=True):
        if math.isnan(score):
            raise InputError(f"the score of document {document!r} for query {query!r} is NaN")
    return [document for _, document in sorted(zip(scores, found, strict=True), reverse=True)]
