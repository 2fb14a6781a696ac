"""The table and the plots of the ablations: ``python train/ablations/report.py [RESULTS.jsonl] [OUTPUT]``.

OUTPUT gets ``RESULTS.md``, ``objectives.png`` (the score over the steps) and ``dimensions.png`` (the score over the
dimensions). By default both are beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated

import typer
from claims import ADAPTERS, ALONE, LONG, LONGER, key_of, trials
from verdicts import CLAIMS, METRICS, Record, last, lost_by_bits, means, saved, score, variants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent

HEAD = ("variant", "seeds", "tokens", "nDCG@10", "64 dims", "256 bits", "lost by bits, points")


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    def cell(value: object) -> str:
        return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    yield f"| {' | '.join(names)} |"
    yield "|---|" + "--:|" * (len(names) - 1)
    for row in rows:
        yield f"| {' | '.join(map(cell, row))} |"


def over_seeds(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def tokens_of(runs: Sequence[Record]) -> str:
    return f"{mean(run['tokens'] for run in runs) / 1e6:.2f}M"


def retrieval(records: Sequence[Record], claim: str) -> Iterator[str]:
    """A claim's variants by retrieval, means over their seeds."""
    rows: list[list[object]] = []
    for name, runs in variants(records, claim).items():
        lost = over_seeds([lost_by_bits(run) for run in runs])
        shown = [over_seeds([score(run, *which) for run in runs]) for which in ((384,), (64,), (256, "ubinary"))]
        rows.append([name, len(runs), tokens_of(runs), *shown, None if lost is None else f"{lost:.2f}"])
    yield from table(HEAD, rows)


def objectives(records: Sequence[Record]) -> Iterator[str]:
    rows = [
        [name, tokens_of(runs), last(runs[0]), score(runs[0], 384)]
        for name, runs in variants(records, "objectives").items()
    ]
    yield from table(("objective, rate", "tokens", "nDCG@10, the repository's set", "nDCG@10"), rows)


def adapters(records: Sequence[Record]) -> Iterator[str]:
    rows: list[list[object]] = []
    for phase, (_, kind) in ADAPTERS.items():
        alone = means(records, "adapters", (384, "float32", kind))
        runs = variants(records, "adapters").get(phase.replace("_", "-"))
        if runs:
            shown = [alone.get(name) for name in (ALONE, LONGER, phase.replace("_", "-"))]
            rows.append([f"{kind}, {METRICS[kind]}", len(runs), tokens_of(runs), *shown])
    yield from table(("kind", "seeds", "tokens", ALONE, LONGER, "with its adapter"), rows)


def long(records: Sequence[Record]) -> Iterator[str]:
    runs = variants(records, LONG)
    lengths = [one["set"].rpartition("-")[2] for one in next(iter(runs.values()))[0]["scores"]]
    rows = [[name, tokens_of(own), *(one["nDCG@1"] for one in own[0]["scores"])] for name, own in runs.items()]
    yield from table(("passkeys found first", "tokens", *(f"{length} tokens" for length in lengths)), rows)


def gor(records: Sequence[Record]) -> Iterator[str]:
    """The first claim, seed by seed."""
    rows = [
        [f"seed {seed}", f"{before:.2f}", f"{after:.2f}", f"{1 - after / before:.0%}"]
        for seed, before, after in saved(records)
    ]
    yield from table(("points lost at 256 bits", "without GOR", "with", "saved"), rows)


def ordered(records: Sequence[Record]) -> list[Record]:
    """Runs in the order of the claims, whatever the order that they were made in."""
    places = {trial.key: place for place, trial in enumerate(trials())}
    return sorted(records, key=lambda one: places.get(key_of(one["claim"], one["name"], one["seed"]), len(places)))


def report(records: Sequence[Record]) -> Iterator[str]:
    """The lines of RESULTS.md."""
    yield "# The paper's claims at our scale"
    yield ""
    yield "Made by `python train/ablations/run.py WORK SETS` and `python train/ablations/report.py`."
    yield "A claim holds by more than two standard errors, as far as seeds tell them (`by chance up to`)."
    yield ""
    verdicts: list[list[object]] = []
    for number, judge in CLAIMS.items():
        found = list(judge(records))
        if not found:
            verdicts.append([number, "", "not run yet", ""])
        for claim, outcome, numbers in found:
            verdicts.append([number, claim, outcome, numbers])
    yield from table(("", "claim", "here", "by"), verdicts)
    own = {"objectives": objectives, "adapters": adapters, LONG: long}
    for claim in dict.fromkeys(record["claim"] for record in records):
        yield ""
        yield f"## {claim}"
        yield ""
        yield from own[claim](records) if claim in own else retrieval(records, claim)
        if claim == "losses" and saved(records):
            yield ""
            yield from gor(records)


def draw(records: Sequence[Record], output: Path) -> None:
    """The plots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = variants(records, "objectives")
    if runs:
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        best: dict[str, tuple[float, str]] = {}
        for name, own in runs.items():
            kind = name.partition(",")[0]
            best[kind] = max(best.get(kind, (-1.0, "")), (score(own[0], 384) or 0.0, name))
        for _, name in best.values():
            curve = runs[name][0]["curve"]
            measured = next(one for one in curve[0] if one.endswith("nDCG@10"))
            axes.plot([point["step"] for point in curve], [point[measured] for point in curve], "o-", label=name)
        axes.set(xlabel="step", ylabel="nDCG@10 on the repository's retrieval set", title="Best rate of each objective")
        axes.legend()
        figure.savefig(output / "objectives.png", dpi=120)
        pyplot.close(figure)
    runs = variants(records, "dimensions")
    if runs:
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for name, own in runs.items():
            dims = sorted({one["dim"] for one in own[0]["scores"]})
            axes.plot(dims, [over_seeds([score(run, dim) for run in own]) for dim in dims], "o-", label=name)
        axes.set(xlabel="dimensions", ylabel="nDCG@10", xscale="log", title="Quality against dimension")
        axes.set_xticks(dims, map(str, dims))
        axes.minorticks_off()
        axes.legend()
        figure.savefig(output / "dimensions.png", dpi=120)
        pyplot.close(figure)


def main(
    results: Annotated[Path, typer.Argument(exists=True, help="what run.py wrote")] = HERE / "results.jsonl",
    output: Annotated[Path, typer.Argument(help="a folder")] = HERE,
) -> None:
    """Make the table and the plots of the ablations."""
    records = ordered([json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()])
    output.mkdir(parents=True, exist_ok=True)
    (output / "RESULTS.md").write_text("\n".join([*report(records), ""]), encoding="utf-8")
    draw(records, output)
    typer.echo(output / "RESULTS.md")


if __name__ == "__main__":
    typer.run(main)
