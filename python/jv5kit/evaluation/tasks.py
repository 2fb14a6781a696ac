"""What an evaluation set holds, for each kind of set, and which adapter its texts are encoded with.

A set gives its texts by the side that they are on (:meth:`texts`); the scores of the kind are computed from the
embeddings of those sides, in the same order, whatever their dimensions and precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

if TYPE_CHECKING:
    from jv5kit.evaluation.beir import Collection
    from jv5kit.tasks import Task

Kind = Literal[
    "retrieval",
    "long-documents",
    "reranking",
    "sts",
    "summarization",
    "pair-classification",
    "bitext",
    "classification",
    "clustering",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

ADAPTERS: dict[Kind, Task] = {
    "retrieval": "retrieval",
    "long-documents": "retrieval",
    "reranking": "retrieval",
    "sts": "text-matching",
    "summarization": "text-matching",
    "pair-classification": "text-matching",
    "bitext": "text-matching",
    "classification": "classification",
    "clustering": "clustering",
}
"""Which adapter each kind is evaluated with: that of the jina-embeddings-v5-text paper, in its wrapper for mteb."""

QUERIES = "queries"
"""The side whose texts get the query prompt; those of every other side are documents."""

Sides = Mapping[str, Sequence[str]]
"""The texts of a set by side."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Queries to documents.

    Attributes:
        collection: the documents, the queries and their judgements.
        kind: ``"retrieval"`` or ``"long-documents"``.
        depth: documents that count for nDCG.
    """

    collection: Collection
    kind: Literal["retrieval", "long-documents"] = "retrieval"
    depth: int = 10

    def texts(self) -> Sides:
        """``documents`` and ``queries``."""
        documents = [document.content for document in self.collection.documents]
        return {"documents": documents, QUERIES: list(self.collection.queries.values())}


@dataclass(frozen=True, slots=True)
class Reranking:
    """Queries with candidates, some of which are relevant.

    Attributes:
        queries: their texts.
        candidates: for each query, texts.
        relevant: for each query, whether each candidate is relevant; at least one is, and one is not.
    """

    kind: ClassVar[Kind] = "reranking"
    queries: Sequence[str]
    candidates: Sequence[Sequence[str]]
    relevant: Sequence[Sequence[bool]]

    def texts(self) -> Sides:
        """``documents``, the candidates of all queries one after the other, and ``queries``."""
        return {"documents": [text for texts in self.candidates for text in texts], QUERIES: self.queries}


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of texts with a number each.

    Attributes:
        kind: ``"sts"``, where their order counts, or ``"pair-classification"``, where they are 0 or 1.
        left: one text of each pair.
        right: the other one.
        gold: the numbers, not all of them equal.
    """

    kind: Literal["sts", "pair-classification"]
    left: Sequence[str]
    right: Sequence[str]
    gold: Sequence[float]

    def texts(self) -> Sides:
        """``left`` and ``right``."""
        return {"left": self.left, "right": self.right}


@dataclass(frozen=True, slots=True)
class Summaries:
    """Texts with summaries that people have scored.

    Attributes:
        references: for each text, what its summaries are compared with: summaries by people, or the text itself.
        summaries: for each text, the summaries.
        scores: for each text, one number a summary, not all of them equal.
    """

    kind: ClassVar[Kind] = "summarization"
    references: Sequence[Sequence[str]]
    summaries: Sequence[Sequence[str]]
    scores: Sequence[Sequence[float]]

    def texts(self) -> Sides:
        """``references`` and ``summaries``, of all texts one after the other."""
        return {
            "references": [text for texts in self.references for text in texts],
            "summaries": [text for texts in self.summaries for text in texts],
        }


@dataclass(frozen=True, slots=True)
class Bitext:
    """Sentences and their translations, in the same order."""

    kind: ClassVar[Kind] = "bitext"
    left: Sequence[str]
    right: Sequence[str]

    def texts(self) -> Sides:
        """``left`` and ``right``."""
        return {"left": self.left, "right": self.right}


@dataclass(frozen=True, slots=True)
class Classification:
    """Texts with labels to learn from, and to predict.

    Attributes:
        train: the texts that a classifier is trained on: those of the draws, no others.
        train_labels: one label each, or any number where ``multilabel``.
        draws: rows of ``train``, for each training.
        test: the texts whose labels are predicted.
        test_labels: the true ones.
        multilabel: whether a text may have any number of labels.
    """

    kind: ClassVar[Kind] = "classification"
    train: Sequence[str]
    train_labels: Sequence[tuple[str, ...]]
    draws: Sequence[Sequence[int]]
    test: Sequence[str]
    test_labels: Sequence[tuple[str, ...]]
    multilabel: bool = False

    def texts(self) -> Sides:
        """``train`` and ``test``."""
        return {"train": self.train, "test": self.test}


@dataclass(frozen=True, slots=True)
class Clustering:
    """Texts with one label each; at least two labels."""

    kind: ClassVar[Kind] = "clustering"
    sentences: Sequence[str]
    labels: Sequence[str]

    def texts(self) -> Sides:
        """``sentences``."""
        return {"sentences": self.sentences}


EvaluationSet = Retrieval | Reranking | Pairs | Summaries | Bitext | Classification | Clustering
