"""What the runs say of each claim: whether it holds here, and by which numbers."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from claims import ADAPTERS, ALONE, AVERAGED, LOSSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Record = dict[str, Any]
Verdict = tuple[str, bool, str]
"""A claim, whether it holds, and the numbers."""

METRICS = {
    "retrieval": "nDCG@10",
    "sts": "Spearman",
    "clustering": "V-measure",
    "classification": "accuracy",
    "long-documents": "nDCG@1",
}

NEEDED = 0.25
"""The part of the loss by bits that GOR is to save: the paper says 38 %."""


def score(record: Record, dim: int, precision: str = "float32", kind: str = "retrieval") -> float | None:
    """The mean of a kind's measure over a run's sets of it."""
    found = [
        one[METRICS[kind]]
        for one in record["scores"]
        if (one["kind"], one["dim"], one["precision"]) == (kind, dim, precision)
    ]
    return mean(found) if found else None


def lost_by_bits(record: Record) -> float | None:
    """Points of nDCG@10 that 256 bits lose; None for a run that no retrieval was measured of."""
    whole, bits = score(record, 384), score(record, 256, "ubinary")
    return None if whole is None or bits is None else 100 * (whole - bits)


def variants(records: Sequence[Record], claim: str) -> dict[str, list[Record]]:
    """The runs of a claim by variant, a run a seed."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record["claim"] == claim:
            found.setdefault(record["name"], []).append(record)
    return found


def last(record: Record) -> float:
    """The last score of the measured curve: nDCG@10 of the repository's own set."""
    point = record["curve"][-1]
    name = next(name for name in point if name.endswith("nDCG@10"))
    return float(point[name])


def saved(records: Sequence[Record]) -> list[tuple[int, float, float]]:
    """Seed, points lost at 256 bits without GOR, and with it."""
    by_name = variants(records, "losses")
    without, having = (
        {one["seed"]: lost_by_bits(one) for one in by_name.get(name, [])}
        for name in ("NCE + distill", "NCE + distill + GOR")
    )
    return [
        (seed, before, after)
        for seed, before in without.items()
        if before is not None and (after := having.get(seed)) is not None
    ]


def gor(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 1."""
    pairs = saved(records)
    if pairs:
        share = mean(1 - after / before for _, before, after in pairs)
        yield (
            "GOR saves at least 25 % of what 256 bits lose (the paper: 38 %)",
            share >= NEEDED,
            f"{round(share, 2) + 0:.0%} over {len(pairs)} seeds",
        )


def _spread(by_name: dict[str, list[Record]]) -> float:
    """Points between the best and the worst seed of a variant, at most: a difference below that says nothing."""
    every = [[100 * (score(one, 384) or 0.0) for one in runs] for runs in by_name.values() if len(runs) > 1]
    return max((max(values) - min(values) for values in every), default=0.0)


def losses(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 2."""
    by_name = variants(records, "losses")
    paper = list(LOSSES)[:6]
    if all(name in by_name for name in paper):
        # Of the seeds that all have: the mean of three beside one run compares seeds.
        common = set.intersection(*({one["seed"] for one in by_name[name]} for name in paper))
        scores = {
            name: mean(100 * (score(one, 384) or 0.0) for one in by_name[name] if one["seed"] in common)
            for name in paper
        }
        ranked = sorted(paper, key=scores.__getitem__)[::-1]
        told = ", ".join(f"{name} {scores[name]:.2f}" for name in ranked)
        spread = _spread(by_name)
        lead = scores[ranked[0]] - scores[ranked[1]]
        near = f"; the first two are {lead:.3f} apart, and seeds of one run {spread:.2f}"
        yield (
            "NCE + distill + GOR is the best of the six",
            ranked[0] == "NCE + distill + GOR" and lead > spread,
            told + near,
        )
        gains = {name: scores[f"{name} + GOR"] - scores[name] for name in ("NCE", "distill")}
        yield (
            "GOR helps NCE, and helps distill",
            all(gain > spread for gain in gains.values()),
            ", ".join(f"{name} {gain:+.2f}" for name, gain in gains.items())
            + f" points; seeds of one run are {spread:.2f} apart",
        )
    plain, signs = "NCE + distill + GOR", "NCE + distill + GOR + signs"
    if plain in by_name and signs in by_name:
        bits = [score(by_name[name][0], 256, "ubinary") or 0.0 for name in (plain, signs)]
        yield (
            "the sign view helps bits (not of the paper)",
            bits[1] > bits[0],
            f"{100 * (bits[1] - bits[0]):+.2f} points",
        )


def objectives(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 3."""
    best: dict[str, tuple[float, str]] = {}
    for name, runs in variants(records, "objectives").items():
        kind, rate = name.split(", ")
        best[kind] = max(best.get(kind, (-1.0, "")), (score(runs[0], 384) or 0.0, rate))
    if len(best) == 3:
        told = ", ".join(f"{kind} {value:.4f} (at {rate})" for kind, (value, rate) in best.items())
        yield (
            "embeddings are the best thing to distil, each objective at its best rate",
            max(best, key=best.__getitem__) == "embeddings",
            told,
        )


def projection(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 4."""
    scores = {name: score(runs[0], 384) or 0.0 for name, runs in variants(records, "projection").items()}
    if len(scores) == 4:
        told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        yield (
            "a projection that is learned at the student is best",
            max(scores, key=scores.__getitem__) == "student",
            told,
        )
        others = min(value for name, value in scores.items() if name != "teacher")
        yield "one that is learned at the teacher fails", scores["teacher"] < 0.5 * others, told


def adapters(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 5."""
    by_name = variants(records, "adapters")
    if ALONE in by_name:
        for phase, (_, kind) in ADAPTERS.items():
            runs = by_name.get(phase.replace("_", "-"))
            before = score(by_name[ALONE][0], 384, kind=kind)
            after = score(runs[0], 384, kind=kind) if runs else None
            if before is not None and after is not None:
                yield f"the adapter helps {kind}", after > before, f"{before:.4f} to {after:.4f}"
    plain = [run for run in variants(records, "losses").get(AVERAGED, []) if run["seed"] == 0]
    averaged = variants(records, "average").get("mean of two")
    if plain and averaged:
        one, two = (score(run[0], 384) or 0.0 for run in (plain, averaged))
        yield "the mean of two checkpoints is better than the last", two > one, f"{one:.4f} to {two:.4f}"


def dimensions(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 6."""
    by_name = variants(records, "dimensions")
    for how in ("as it is", "rotated"):
        runs = [by_name.get(f"{which}, {how}") for which in ("whole", "Matryoshka")]
        if all(runs):
            whole, nested = ({dim: score(one[0], dim) or 0.0 for dim in (384, 64)} for one in runs if one)
            yield (
                f"Matryoshka keeps more at 64 dimensions, targets {how}",
                nested[64] > whole[64],
                f"{whole[64]:.4f} to {nested[64]:.4f}, at 384 {whole[384]:.4f} to {nested[384]:.4f}",
            )
    plain, turned = (by_name.get(f"Matryoshka, {how}") for how in ("as it is", "rotated"))
    if plain and turned:
        for name, dim, precision in (("64 dimensions", 64, "float32"), ("256 bits", 256, "ubinary")):
            before, after = (score(one[0], dim, precision) or 0.0 for one in (plain, turned))
            yield f"rotated targets help {name} (not of the paper)", after > before, f"{before:.4f} to {after:.4f}"


def long(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 7."""
    by_name = variants(records, "long")
    found = {}
    for when in ("before", "after"):
        for base in ("as trained", "raised"):
            runs = by_name.get(f"{when} the long phase, base {base}")
            if runs:
                found[when, base] = mean(one[METRICS["long-documents"]] for one in runs[0]["scores"])
    if len(found) == 4:
        told = ", ".join(f"{when} {base} {value:.3f}" for (when, base), value in found.items())
        yield (
            "the long phase finds passkeys that were not found before",
            found["after", "raised"] > found["before", "raised"],
            told,
        )
        yield (
            "a base that is raised for inference finds more",
            found["after", "raised"] > found["after", "as trained"],
            told,
        )


CLAIMS: dict[str, Callable[[Sequence[Record]], Iterator[Verdict]]] = {
    "1 GOR": gor,
    "2 losses": losses,
    "3 objectives": objectives,
    "4 projection": projection,
    "5 adapters": adapters,
    "6 dimensions": dimensions,
    "7 long": long,
}
