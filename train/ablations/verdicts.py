"""What the runs say of each claim: whether it holds here, and by which numbers."""

from __future__ import annotations

import math
from statistics import mean
from typing import TYPE_CHECKING, Any

from claims import (
    ADAPTERS,
    AFTER,
    ALONE,
    AVERAGED,
    BEFORE,
    LONG,
    LONGER,
    LOSSES,
    OBJECTIVES,
    RAISED,
    RATES,
    SHORT,
    TRAINED,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Record = dict[str, Any]
Verdict = tuple[str, str, str]
"""A claim, what the runs say of it, and the numbers."""

HOLDS, FAILS, NEAR = "holds", "does not hold", "too near to say"

Cell = tuple[int, str, str]
"""Dimensions, precision and kind of sets that a score is of."""

WHOLE: Cell = (384, "float32", "retrieval")

METRICS = {
    "retrieval": "nDCG@10",
    "sts": "Spearman",
    "clustering": "V-measure",
    "classification": "accuracy",
    "long-documents": "nDCG@1",
}

NEAR_LONG = 0.05
"""A difference of passkeys found that says nothing: of 200 questions, half of them answered, two standard errors are
0.07 of one student, and less between two that are asked the same."""

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
    """Points of nDCG@10 that 256 bits lose of 256 values; None for a run that no retrieval was measured of."""
    whole, bits = score(record, 256), score(record, 256, "ubinary")
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


def means(records: Sequence[Record], claim: str, cell: Cell = WHOLE) -> dict[str, float]:
    """The score of a claim's variants, over all their seeds."""
    found = {}
    for name, runs in variants(records, claim).items():
        known = [value for run in runs if (value := score(run, *cell)) is not None]
        if known:
            found[name] = mean(known)
    return found


def deviation(records: Sequence[Record], claim: str, cell: Cell) -> float | None:
    """The standard deviation of a seed, pooled over a claim's variants that have several; else over all claims'.

    None if no variant has several.
    """
    for among in ([claim], list(dict.fromkeys(record["claim"] for record in records))):
        squares, freedom = 0.0, 0
        for runs in (runs for one in among for runs in variants(records, one).values()):
            known = [value for run in runs if (value := score(run, *cell)) is not None]
            squares += sum((value - mean(known)) ** 2 for value in known)
            freedom += max(0, len(known) - 1)
        if freedom:
            return math.sqrt(squares / freedom)
    return None


def chance(records: Sequence[Record], claim: str, cell: Cell, *runs: int) -> float | None:
    """Two standard errors of a difference of means: what seeds alone may make of it.

    Args:
        records: all.
        claim: whose seeds say how much they do.
        cell: what is compared.
        *runs: of each mean; what nothing is drawn for, stage 1 alone, has none.
    """
    one = deviation(records, claim, cell)
    return None if one is None else 2 * one * math.sqrt(sum(1 / count for count in runs))


def judged(gain: float, least: float | None) -> str:
    """Whether a gain is one: more than chance makes, or what else says nothing."""
    if least is None or abs(gain) <= least:
        return NEAR
    return HOLDS if gain > 0 else FAILS


def gor(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 1."""
    pairs = [(before, after) for _, before, after in saved(records) if before > 0]
    if pairs:
        share = mean(1 - after / before for before, after in pairs)
        yield (
            "GOR saves at least 25 % of what 256 bits lose (the paper: 38 %)",
            HOLDS if share >= NEEDED else FAILS,
            f"{round(share, 2) + 0:.0%} over {len(pairs)} seeds",
        )


def losses(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 2."""
    by_name = variants(records, "losses")
    paper = list(LOSSES)[:6]
    if all(name in by_name for name in paper):
        # Of the seeds that all have: the mean of three beside one run compares seeds.
        common = set.intersection(*({one["seed"] for one in by_name[name]} for name in paper))
        least = chance(records, "losses", WHOLE, len(common), len(common))
        scores = {
            name: mean(score(one, *WHOLE) or 0.0 for one in by_name[name] if one["seed"] in common) for name in paper
        }
        ranked = sorted(paper, key=scores.__getitem__)[::-1]
        best_other = next(name for name in ranked if name != AVERAGED)
        yield (
            f"{AVERAGED} is the best of the six",
            judged(scores[AVERAGED] - scores[best_other], least),
            ", ".join(f"{name} {scores[name]:.4f}" for name in ranked) + _chance(least),
        )
        for name in ("NCE", "distill"):
            gain = scores[f"{name} + GOR"] - scores[name]
            yield f"GOR helps {name}", judged(gain, least), f"{gain:+.4f}" + _chance(least)
    signs = f"{AVERAGED} + signs"
    if AVERAGED in by_name and signs in by_name:
        cell = (256, "ubinary", "retrieval")
        one, other = (next(run for run in by_name[name] if run["seed"] == 0) for name in (AVERAGED, signs))
        gain = (score(other, *cell) or 0.0) - (score(one, *cell) or 0.0)
        least = chance(records, "losses", cell, 1, 1)
        yield "the sign view helps bits (not of the paper)", judged(gain, least), f"{gain:+.4f}" + _chance(least)


def objectives(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 3."""
    scores = means(records, "objectives")
    if len(scores) == len(OBJECTIVES) * len(RATES):
        best = {kind: max((scores[f"{kind}, {rate:g}"], rate) for rate in RATES) for kind in OBJECTIVES}
        others = max(value for kind, (value, _) in best.items() if kind != "embeddings")
        told = ", ".join(
            f"{kind} {value:.4f} (at {rate:g}{', the highest tried' if rate == max(RATES) else ''})"
            for kind, (value, rate) in best.items()
        )
        least = chance(records, "objectives", WHOLE, 1, 1)
        yield (
            "embeddings are the best thing to distil, each objective at its best rate",
            judged(best["embeddings"][0] - others, least),
            told + _chance(least),
        )


def projection(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 4."""
    scores = means(records, "projection")
    if len(scores) == 4:
        told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        least = chance(records, "projection", WHOLE, 1, 1)
        others = [value for name, value in scores.items() if name != "student"]
        yield (
            "a projection that is learned at the student is best",
            judged(scores["student"] - max(others), least),
            told + _chance(least),
        )
        others = [value for name, value in scores.items() if name != "teacher"]
        yield (
            "one that is learned at the teacher fails: less than half of the others",
            HOLDS if scores["teacher"] < 0.5 * min(others) else FAILS,
            told,
        )


def adapters(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 5."""
    by_name, papers = variants(records, "adapters"), variants(records, "losses").get(AVERAGED, [])
    for phase, (_, kind) in ADAPTERS.items():
        cell = (384, "float32", kind)
        own = {f"helps {kind}": by_name.get(phase.replace("_", "-"), [])}
        if kind == "retrieval":
            own = {f"helps {kind}, by the paper's losses": papers, f"helps {kind}, by our recipe": own[f"helps {kind}"]}
        more = ", more than as many tokens of stage 1 do (not of the paper)"
        for told, after in own.items():
            for before, beside in ((ALONE, ""), (LONGER, more)):
                if before in by_name and after:
                    scores = [_mean(runs, cell) for runs in (by_name[before], after)]
                    counts = [len(after)] if before == ALONE else [len(by_name[before]), len(after)]
                    least = chance(records, "adapters", cell, *counts)
                    numbers = f"{scores[0]:.4f} to {scores[1]:.4f}"
                    yield f"the adapter {told}{beside}", judged(scores[1] - scores[0], least), numbers + _chance(least)
    averaged = means(records, "average").get("mean of two")
    plain = [run for run in variants(records, "losses").get(AVERAGED, []) if run["seed"] == 0]
    if plain and averaged is not None:
        one, least = _mean(plain, WHOLE), chance(records, "losses", WHOLE, 1, 1)
        yield (
            "the mean of two checkpoints is better than the last",
            judged(averaged - one, least),
            f"{one:.4f} to {averaged:.4f}" + _chance(least),
        )


def dimensions(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 6."""
    small, bits = (64, "float32", "retrieval"), (256, "ubinary", "retrieval")
    at = {cell: means(records, "dimensions", cell) for cell in (WHOLE, small, bits)}
    runs = {name: len(own) for name, own in variants(records, "dimensions").items()}

    def compare(claim: str, before: str, after: str, cell: Cell) -> Iterator[Verdict]:
        if {before, after} <= at[cell].keys():
            least = chance(records, "dimensions", cell, runs[before], runs[after])
            told = f"{at[cell][before]:.4f} to {at[cell][after]:.4f}"
            if cell is small and {before, after} <= at[WHOLE].keys():
                told += f", at 384 {at[WHOLE][before]:.4f} to {at[WHOLE][after]:.4f}"
            yield claim, judged(at[cell][after] - at[cell][before], least), told + _chance(least)

    for how in ("as it is", "rotated"):
        claim = f"Matryoshka keeps more at 64 dimensions, targets {how}"
        yield from compare(claim, f"whole, {how}", f"Matryoshka, {how}", small)
    for name, cell in (("64 dimensions", small), ("256 bits", bits)):
        claim = f"rotated targets help {name} (not of the paper)"
        yield from compare(claim, "Matryoshka, as it is", "Matryoshka, rotated", cell)


def long(records: Sequence[Record]) -> Iterator[Verdict]:
    """Claim 7."""
    found = {
        name: mean(one[METRICS["long-documents"]] for one in runs[0]["scores"])
        for name, runs in variants(records, LONG).items()
    }
    names = [f"{state}, base {base}" for state in (BEFORE, AFTER, SHORT) for base in (TRAINED, RAISED)]
    if found.keys() >= {*names}:
        before, after, short = (max(found[name] for name in names[i : i + 2]) for i in (0, 2, 4))
        raised, trained = found[f"{AFTER}, base {RAISED}"], found[f"{AFTER}, base {TRAINED}"]
        yield (
            "the long phase finds passkeys that were not found before, each at its best base",
            judged(after - before, NEAR_LONG),
            f"{before:.3f} to {after:.3f}",
        )
        yield (
            "it is the length that does it: as much of short texts finds fewer (not of the paper)",
            judged(after - short, NEAR_LONG),
            f"{short:.3f} to {after:.3f}",
        )
        yield (
            "a base that is raised for inference finds more",
            judged(raised - trained, NEAR_LONG),
            f"{trained:.3f} to {raised:.3f}",
        )


def _mean(runs: Sequence[Record], cell: Cell) -> float:
    return mean(score(run, *cell) or 0.0 for run in runs)


def _chance(least: float | None) -> str:
    return "; one seed of each" if least is None else f"; by chance up to {least:.4f}"


CLAIMS: dict[str, Callable[[Sequence[Record]], Iterator[Verdict]]] = {
    "1 GOR": gor,
    "2 losses": losses,
    "3 objectives": objectives,
    "4 projection": projection,
    "5 adapters": adapters,
    "6 dimensions": dimensions,
    "7 long context": long,
}
