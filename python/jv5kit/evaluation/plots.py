"""Plots of a report: quality against bytes a document, and against dimensions, one line a precision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jv5kit.errors import InputError, MissingExtraError
from jv5kit.evaluation.quantized import STORED_PRECISIONS, document_bytes
from jv5kit.evaluation.table import mean_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.runner import Report, Result

PANELS = 9
"""Sets of a kind that are drawn one by one; of more the mean alone is drawn."""

_COLUMNS = 3

_NAMES = 3
"""Precisions beside each other in the legend, for each column of panels."""

# Of Okabe and Ito: told apart by everybody, as the markers are where colors are lost.
_STYLES: dict[StoredPrecision, tuple[str, str]] = dict(
    zip(
        STORED_PRECISIONS,
        [("#000000", "o"), ("#0072B2", "s"), ("#D55E00", "v"), ("#E69F00", "^"), ("#009E73", "D")],
        strict=True,
    )
)


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw ``KIND-bytes.png`` and ``KIND-dimensions.png`` for each kind of set: a panel for each set, or their mean.

    Args:
        report: what was measured.
        folder: where the files go, made if it is not there; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the folder cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("plots need matplotlib: pip install 'jv5kit[eval]'") from None
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, panels in _kinds(report):
            for what, place in (("bytes", _bytes_place), ("dimensions", _dims_place)):
                path = folder / f"{kind}-{what}.png"
                _figure(Figure, report, kind, panels, place).savefig(path, dpi=150)
                paths.append(path)
    except OSError as error:
        raise InputError(f"the plots cannot be written: {error}") from None
    return paths


def _kinds(report: Report) -> Iterator[tuple[str, list[tuple[str, list[Result]]]]]:
    """Each kind with its panels: a title and the results whose mean is drawn."""
    kinds: dict[str, list[Result]] = {}
    for result in report.results:
        if result.metrics:
            kinds.setdefault(result.kind, []).append(result)
    for kind, results in kinds.items():
        if len(results) <= PANELS:
            yield kind, [(result.name, [result]) for result in results]
            continue
        by_metric: dict[str, list[Result]] = {}
        for result in results:
            by_metric.setdefault(result.metrics[0], []).append(result)
        yield kind, [(f"mean of {len(same)} sets", same) for same in by_metric.values()]


def _figure(
    figure_of: Any,
    report: Report,
    kind: str,
    panels: Sequence[tuple[str, list[Result]]],
    place: Callable[[Any, Report], Callable[[int, StoredPrecision], float]],
) -> Any:
    # Four are a square.
    columns = 2 if len(panels) == 4 else min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = figure_of(figsize=(1.2 + 4.4 * columns, 1.3 + 3.4 * rows), layout="constrained")
    figure.suptitle(f"{report.model.rstrip('/').rpartition('/')[2]}: {kind}", fontsize=13)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (title, results) in zip(axes.flat, panels, strict=False):
        _panel(axis, report, title, results, place(axis, report))
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    lines, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), _NAMES * columns), frameon=False)
    return figure


def _panel(
    axis: Any,
    report: Report,
    title: str,
    results: list[Result],
    at: Callable[[int, StoredPrecision], float],
) -> None:
    metric = results[0].metrics[0]
    for precision in report.precisions:
        points = sorted(
            (at(dim, precision), value)
            for dim in report.dims
            if (value := mean_of(results, metric, dim, precision)) is not None
        )
        if points:
            color, marker = _STYLES[precision]
            # int8 lies on float32 nearly everywhere: large rings show from below it.
            ring = {"markersize": 10, "markerfacecolor": "none"} if precision == "float32" else {"markersize": 5}
            axis.plot(*zip(*points, strict=True), color=color, marker=marker, linewidth=1.5, label=precision, **ring)
    axis.set_title(title, fontsize=11)
    axis.set_ylabel(metric)
    axis.grid(visible=True, which="major", color="#dddddd", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _bytes_place(axis: Any, _: Report) -> Callable[[int, StoredPrecision], float]:
    """Bytes on a logarithmic scale of powers of two."""
    from matplotlib.ticker import FuncFormatter

    axis.set_xscale("log", base=4)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.minorticks_off()
    axis.set_xlabel("bytes a document")
    return document_bytes


def _dims_place(axis: Any, report: Report) -> Callable[[int, StoredPrecision], float]:
    """Dimensions on a logarithmic scale, each of them marked."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted(report.dims), [f"{dim}" for dim in sorted(report.dims)])
    axis.minorticks_off()
    axis.set_xlabel("dimensions")
    return lambda dim, _: dim
