"""What a model measured, as text for people and as one JSON object for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jv5kit.evaluation.quantized import document_bytes
from jv5kit.evaluation.runner import size_of
from jv5kit.evaluation.tasks import ADAPTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.runner import Report, Result


def head_lines(report: Report) -> Iterator[str]:
    """What every table has in common: bytes a document."""
    yield "bytes a document"
    yield from _grid(report, lambda dim, precision: f"{document_bytes(dim, precision):,}")


def set_lines(report: Report, result: Result) -> Iterator[str]:
    """A table of dimensions and precisions for each measure of a set."""
    yield ""
    yield heading(result)
    for number, metric in enumerate(result.metrics):
        if number:
            yield metric
        yield from _grid(report, _cell(result, metric))


def tail_lines(report: Report) -> Iterator[str]:
    """The means over the sets of a kind, and what was left out."""
    for kind, metric, results in groups(report):
        yield ""
        yield f"{kind}: mean {metric} of {len(results)} sets"
        yield from _grid(report, _mean_cell(results, metric))
    if report.skipped:
        yield ""
    yield from (f"left out: {reason}" for reason in report.skipped)


def heading(result: Result) -> str:
    """The name of a set, what it is and how fast it was encoded."""
    rate = f"; {result.texts_per_second:,.0f} texts/s" if result.texts_per_second is not None else ""
    return f"{result.name}: {result.kind}, {', '.join(result.metrics[:1])} ({size_of(result.texts)}{rate})"


def groups(report: Report) -> list[tuple[str, str, list[Result]]]:
    """Kind, main measure and results of each kind that has several sets of one measure."""
    of_kind: dict[tuple[str, str], list[Result]] = {}
    for result in report.results:
        if result.metrics:
            of_kind.setdefault((result.kind, result.metrics[0]), []).append(result)
    return [(*key, results) for key, results in of_kind.items() if len(results) > 1]


def value_of(result: Result, metric: str, dim: int, precision: StoredPrecision) -> float | None:
    """A measure of a set at a dimension and a precision; None where it has no meaning."""
    scores = (score for score in result.scores if (score.dim, score.precision) == (dim, precision))
    return next((score.metrics.get(metric) for score in scores), None)


def mean_of(results: Sequence[Result], metric: str, dim: int, precision: StoredPrecision) -> float | None:
    """The mean of a measure over sets; None where it has no meaning."""
    values = [value_of(result, metric, dim, precision) for result in results]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def to_json(report: Report) -> dict[str, Any]:
    """The report as ``jv5kit eval --json`` prints it."""
    return {
        "model": report.model,
        **report.facts,
        "dims": list(report.dims),
        "precisions": list(report.precisions),
        "sets": [
            {
                "name": result.name,
                "kind": result.kind,
                "adapter": ADAPTERS[result.kind],
                "metric": next(iter(result.metrics), None),
                "texts": dict(result.texts),
                "encoded": result.encoded,
                "seconds": round(result.seconds, 3),
                "texts_per_second": None if result.texts_per_second is None else round(result.texts_per_second, 1),
                "scores": [
                    {"dim": score.dim, "precision": score.precision, "bytes": score.bytes, **score.metrics}
                    for score in result.scores
                    if score.metrics
                ],
            }
            for result in report.results
        ],
        "means": [
            {
                "kind": kind,
                "metric": metric,
                "sets": len(results),
                "scores": [
                    {"dim": dim, "precision": precision, "bytes": document_bytes(dim, precision), metric: value}
                    for dim in report.dims
                    for precision in report.precisions
                    if (value := mean_of(results, metric, dim, precision)) is not None
                ],
            }
            for kind, metric, results in groups(report)
        ],
        "skipped": list(report.skipped),
    }


def _cell(result: Result, metric: str) -> Callable[[int, StoredPrecision], str]:
    return lambda dim, precision: _shown(value_of(result, metric, dim, precision))


def _mean_cell(results: Sequence[Result], metric: str) -> Callable[[int, StoredPrecision], str]:
    return lambda dim, precision: _shown(mean_of(results, metric, dim, precision))


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _grid(report: Report, cell: Callable[[int, StoredPrecision], str]) -> Iterator[str]:
    """A row for each dimension, a column for each precision, aligned to the right."""
    widths = [max(8, len(precision)) for precision in report.precisions]
    names = "  ".join(f"{name:>{width}}" for name, width in zip(report.precisions, widths, strict=True))
    yield f"{'dim':>5}  {names}"
    for dim in report.dims:
        cells = "  ".join(
            f"{cell(dim, precision):>{width}}" for precision, width in zip(report.precisions, widths, strict=True)
        )
        yield f"{dim:>5}  {cells}".rstrip()
