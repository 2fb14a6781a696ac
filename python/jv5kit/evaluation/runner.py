"""A model on evaluation sets: encoded once, then scored at every dimension and precision."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jv5kit.embeddings import truncate_embeddings
from jv5kit.errors import InputError, MissingExtraError
from jv5kit.evaluation import bitext, classification, clustering, pairs, reranking, retrieval, summarization
from jv5kit.evaluation.quantized import document_bytes, has_meaning
from jv5kit.evaluation.tasks import ADAPTERS, QUERIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jv5kit.encoder import Encoder
    from jv5kit.evaluation.encoding import TextEncoder
    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.tasks import EvaluationSet, Kind

MATRYOSHKA = (1024, 768, 512, 256, 128, 64, 32)
"""Dimensions that models are trained to be cut to."""

_SCORES: dict[Kind, Callable[[Any, Any, StoredPrecision], dict[str, float]]] = {
    "retrieval": retrieval.score,
    "long-documents": retrieval.score,
    "reranking": reranking.score,
    "sts": pairs.score,
    "summarization": summarization.score,
    "pair-classification": pairs.score,
    "bitext": bitext.score,
    "classification": classification.score,
    "clustering": clustering.score,
}


@dataclass(frozen=True, slots=True)
class Score:
    """What a set measured at one dimension and precision.

    Attributes:
        dim: dimensions that were kept.
        precision: how they were.
        metrics: by name, the main one first; none where the precision has no meaning for the set.
    """

    dim: int
    precision: StoredPrecision
    metrics: Mapping[str, float]

    @property
    def bytes(self) -> int:
        """Bytes of a document's embedding."""
        return document_bytes(self.dim, self.precision)


@dataclass(frozen=True, slots=True)
class Result:
    """What a set measured.

    Attributes:
        name: of the set.
        kind: of the set.
        texts: how many texts each side has.
        encoded: texts that were encoded for it: others were known from a set of the same folder.
        seconds: that their encoding took.
        scores: at each dimension and precision.
    """

    name: str
    kind: Kind
    texts: Mapping[str, int]
    encoded: int
    seconds: float
    scores: Sequence[Score]

    @property
    def metrics(self) -> list[str]:
        """The names of its measures, the main one first."""
        return list(dict.fromkeys(name for score in self.scores for name in score.metrics))

    @property
    def texts_per_second(self) -> float | None:
        """Texts that the encoder embeds in a second; None if nothing was encoded."""
        return self.encoded / self.seconds if self.encoded else None


@dataclass(frozen=True, slots=True)
class Report:
    """What a model measured.

    Attributes:
        model: its name.
        facts: how it ran: backend, device, dtype.
        dims: dimensions that were compared.
        precisions: precisions that were compared.
        results: set by set.
        skipped: what was left out, each with the reason.
    """

    model: str
    facts: Mapping[str, str]
    dims: Sequence[int]
    precisions: Sequence[StoredPrecision]
    results: list[Result] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def default_dims(dim: int) -> list[int]:
    """All dimensions of a model, and those of :data:`MATRYOSHKA` below."""
    return [dim, *(smaller for smaller in MATRYOSHKA if smaller < dim)]


def evaluate(
    encoder: TextEncoder,
    name: str,
    data: EvaluationSet,
    dims: Sequence[int],
    precisions: Sequence[StoredPrecision],
) -> Result:
    """Encode the texts of a set, and score it at every dimension and precision.

    Raises:
        InputError: the model has no adapter for the kind.
        MissingExtraError: the kind needs a library that is not installed.
    """
    sides = data.texts()
    before = encoder.texts, encoder.seconds
    embeddings = {side: encoder(texts, ADAPTERS[data.kind], queries=side == QUERIES) for side, texts in sides.items()}
    scores = []
    for dim in dims:
        truncated = {side: truncate_embeddings(rows, dim) for side, rows in embeddings.items()}
        for precision in precisions:
            meant = has_meaning(data.kind, precision)
            scores.append(Score(dim, precision, _SCORES[data.kind](data, truncated, precision) if meant else {}))
    counts = {side: len(texts) for side, texts in sides.items()}
    return Result(name, data.kind, counts, encoder.texts - before[0], encoder.seconds - before[1], scores)


def run(
    report: Report,
    encoder: TextEncoder,
    sets: Iterable[tuple[str, EvaluationSet]],
    on_set: Callable[[str, str], None],
    on_result: Callable[[Result], None],
) -> None:
    """Evaluate one set after the other.

    Args:
        report: takes the results.
        encoder: the model. Sets of one folder (the first part of their names) share the embeddings of their texts.
        sets: by name.
        on_set: called before each with its name and what it holds.
        on_result: called after each.
    """
    folder = None
    for name, data in sets:
        if folder != (folder := name.partition("/")[0]):
            encoder.forget()
        on_set(name, f"{data.kind}, {size_of({side: len(texts) for side, texts in data.texts().items()})}")
        result = evaluate(encoder, name, data, report.dims, report.precisions)
        report.results.append(result)
        on_result(result)


def check_extras(sets: Iterable[tuple[str, EvaluationSet]]) -> None:
    """Refuse sets that need scikit-learn where it is not installed: before their texts are encoded.

    Raises:
        MissingExtraError: names the first one.
    """
    for name, data in sets:
        if data.kind in ("classification", "clustering") and importlib.util.find_spec("sklearn") is None:
            raise MissingExtraError(f"{name}: {data.kind} needs scikit-learn: pip install 'jv5kit[eval]'")


def size_of(texts: Mapping[str, int]) -> str:
    """How many texts each side has, in words."""
    return ", ".join(f"{count:,} {side}" for side, count in texts.items())


def usable(
    report: Report, encoder: Encoder, sets: Iterable[tuple[str, EvaluationSet]], wanted: Sequence[str]
) -> list[tuple[str, EvaluationSet]]:
    """The sets whose kinds a model has an adapter for; the others are told in the report.

    Raises:
        InputError: the kind was asked for by name, or nothing is left.
    """
    adapters = encoder.checkpoint.adapters
    kept: list[tuple[str, EvaluationSet]] = []
    left_out: dict[Kind, int] = {}
    for name, data in sets:
        if not adapters or ADAPTERS[data.kind] in adapters:
            kept.append((name, data))
        else:
            left_out[data.kind] = left_out.get(data.kind, 0) + 1
    for kind, count in left_out.items():
        reason = f"needs the adapter {ADAPTERS[kind]!r}, and the model has {', '.join(map(repr, adapters))}"
        if kind in wanted or not kept:
            raise InputError(f"{kind} {reason}")
        report.skipped.append(f"{count} of the kind {kind}, which {reason}")
    return kept
