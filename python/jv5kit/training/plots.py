"""The curves of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

NOT_TERMS = {
    *("phase", "step", "source", "loss", "gradient_norm", "learning_rate"),
    *("tokens", "seconds", "tokens_per_second", "scores"),
}
"""What of a line is no term of the loss."""


def draw_curves(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw each phase's loss, its terms and its scores over the steps.

    Args:
        records: lines of ``metrics.jsonl``.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    phases = list(dict.fromkeys(record["phase"] for record in records))
    if not phases:
        return
    # A run that nothing is evaluated in has no column for it.
    columns = 2 if any("scores" in record for record in records) else 1
    figure = Figure(figsize=(6 * columns, 2.6 * len(phases)), layout="constrained")
    rows = figure.subplots(len(phases), columns, squeeze=False)
    for phase, axes in zip(phases, rows, strict=True):
        own = [record for record in records if record["phase"] == phase]
        _draw_losses(axes[0], [record for record in own if "loss" in record])
        axes[0].set_title(phase, loc="left", fontweight="bold")
        if columns == 2:
            _draw_scores(axes[1], [record for record in own if "scores" in record])
            axes[1].set_title("evaluation", loc="left")
    for axes in rows[-1]:
        axes.set_xlabel("steps")
    # Another process may look at it as it is written.
    aside = path.with_suffix(".tmp.png")
    figure.savefig(aside, dpi=110)
    aside.replace(path)


def _draw_losses(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    names = ["loss", *sorted({name for record in records for name in record} - NOT_TERMS)]
    for name in names:
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(
                steps, values, label=name, linewidth=2 if name == "loss" else 1, alpha=1 if name == "loss" else 0.8
            )
    positive = [record[name] for record in records for name in names if record.get(name, 0) > 0]
    if positive and max(positive) / min(positive) > 20:
        axes.set_yscale("log")
    _finish(axes)


def _draw_scores(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    for name in dict.fromkeys(name for record in records for name in record["scores"]):
        points = [(record["step"], record["scores"][name]) for record in records if name in record["scores"]]
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=name, marker="o", markersize=3)
    if not records:
        axes.text(0.5, 0.5, "no evaluation", ha="center", va="center", transform=axes.transAxes, color="gray")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False)
