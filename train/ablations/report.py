"""The table and the plots of the ablations: ``python train/ablations/report.py WORK/ablations.jsonl OUTPUT``.

OUTPUT gets ``RESULTS.md``, ``objectives.png`` (the score over the steps) and ``dimensions.png`` (the score over the
dimensions).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

METRIC = "nDCG@10"
NEEDED = 0.25
"""The part of the loss by bits that GOR is to save: the paper says 38 %."""

Record = dict[str, Any]


def score(record: Record, dim: int, precision: str, metric: str = METRIC) -> float | None:
    """The mean of a measure over a run's sets."""
    found = [
        one[metric] for one in record["scores"] if (one["dim"], one["precision"]) == (dim, precision) and metric in one
    ]
    return mean(found) if found else None


def lost_by_bits(record: Record) -> float | None:
    """Points of nDCG@10 that 256 bits lose; None for a run that no retrieval was measured of."""
    whole, bits = score(record, 384, "float32"), score(record, 256, "ubinary")
    return None if whole is None or bits is None else 100 * (whole - bits)


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    def cell(value: object) -> str:
        return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    yield f"| {' | '.join(names)} |"
    yield "|---|" + "--:|" * (len(names) - 1)
    for row in rows:
        yield f"| {' | '.join(map(cell, row))} |"


def variants(records: Sequence[Record], claim: str) -> dict[str, list[Record]]:
    """The runs of a claim by variant, a run a seed."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record["claim"] == claim:
            found.setdefault(record["name"], []).append(record)
    return found


def columns(runs: Sequence[Record]) -> list[object]:
    """What a variant is judged by: means over its seeds."""

    def over_seeds(dim: int, precision: str, metric: str = METRIC) -> float | None:
        values = [score(run, dim, precision, metric) for run in runs]
        known = [value for value in values if value is not None]
        return mean(known) if known else None

    whole, bits = over_seeds(384, "float32"), over_seeds(256, "ubinary")
    lost = None if whole is None or bits is None else 100 * (whole - bits)
    similar = over_seeds(384, "float32", "Spearman")
    tokens = f"{mean(run['tokens'] for run in runs) / 1e6:.2f}M"
    return [len(runs), tokens, whole, over_seeds(64, "float32"), bits, None if lost is None else f"{lost:.2f}", similar]


HEAD = ("variant", "seeds", "tokens", "nDCG@10", "64 dims", "256 bits", "lost by bits, points", "Spearman")


def gor(records: Sequence[Record]) -> Iterator[str]:
    """The first claim, seed by seed."""
    by_name = variants(records, "losses")
    without, having = (by_name.get(name, []) for name in ("NCE + distill", "NCE + distill + GOR"))
    pairs = [
        (one["seed"], before, after)
        for one in without
        for other in having
        if one["seed"] == other["seed"]
        and (before := lost_by_bits(one)) is not None
        and (after := lost_by_bits(other)) is not None
    ]
    if not pairs:
        return
    yield "## GOR: what bits lose"
    yield ""
    rows: list[list[object]] = []
    kept = []
    for seed, before, after in pairs:
        kept.append(1 - after / before)
        rows.append([f"seed {seed}", f"{before:.2f}", f"{after:.2f}", f"{kept[-1]:.0%}"])
    yield from table(("points lost at 256 bits", "without", "with", "saved"), rows)
    yield ""
    verdict = "holds" if mean(kept) >= NEEDED else "does not hold"
    yield f"Saved on average {mean(kept):.0%}, where the claim asks for {NEEDED:.0%}: it {verdict} here."
    yield ""


def draw(records: Sequence[Record], output: Path) -> None:
    """The plots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    objectives = variants(records, "objectives")
    if objectives:
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        best: dict[str, tuple[float, str]] = {}
        for name, runs in objectives.items():
            kind, last = name.partition(",")[0], list(runs[0]["curve"][-1].values())[1]
            best[kind] = max(best.get(kind, (-1.0, "")), (last, name))
        for _, name in best.values():
            curve = objectives[name][0]["curve"]
            axes.plot(
                [point["step"] for point in curve], [list(point.values())[1] for point in curve], "o-", label=name
            )
        axes.set(xlabel="step", ylabel="nDCG@10 on the repository's retrieval set", title="Best rate of each objective")
        axes.legend()
        figure.savefig(output / "objectives.png", dpi=120)
        pyplot.close(figure)
    dimensions = variants(records, "dimensions")
    if dimensions:
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for name, runs in dimensions.items():
            dims = sorted({one["dim"] for one in runs[0]["scores"]})
            axes.plot(dims, [score(runs[0], dim, "float32") for dim in dims], "o-", label=name)
        axes.set(xlabel="dimensions", ylabel="nDCG@10", xscale="log", title="Quality against dimension")
        axes.set_xticks(dims, map(str, dims))
        axes.legend()
        figure.savefig(output / "dimensions.png", dpi=120)
        pyplot.close(figure)


def main(
    results: Annotated[Path, typer.Argument(exists=True, help="what run.py wrote")],
    output: Annotated[Path, typer.Argument(help="a folder")],
) -> None:
    """Make the table and the plots of the ablations."""
    records = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    lines = ["# The paper's claims at our scale", "", *gor(records)]
    for claim in dict.fromkeys(record["claim"] for record in records):
        rows = [[name, *columns(runs)] for name, runs in variants(records, claim).items()]
        lines += [f"## {claim}", "", *table(HEAD, rows), ""]
    output.mkdir(parents=True, exist_ok=True)
    (output / "RESULTS.md").write_text("\n".join(lines), encoding="utf-8")
    draw(records, output)
    typer.echo(output / "RESULTS.md")


if __name__ == "__main__":
    typer.run(main)
