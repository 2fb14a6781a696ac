"""What share of another model's scores a model reaches: both as ``jv5kit eval --json`` prints them.

Every dimension and precision is compared with the other model at its best: all its dimensions, in float32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

Cell = tuple[int, str]
"""A dimension and a precision."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a set, or of the sets of a kind.

    Attributes:
        name: of the set; None for the mean of a kind.
        kind: of the sets.
        metric: their main measure.
        sets: how many there are.
        reference: what the other model measured: of several sets, the mean.
        values: what this one did, by dimension and precision.
    """

    name: str | None
    kind: str
    metric: str
    sets: int
    reference: float
    values: Mapping[Cell, float]

    def share(self, cell: Cell) -> float | None:
        """What was measured there over the reference; None where nothing was, or the reference is 0."""
        value = self.values.get(cell)
        return None if value is None or not self.reference else value / self.reference


def read_scores(path: Path) -> dict[str, Any]:
    """What ``jv5kit eval --json`` printed.

    Raises:
        InputError: the file cannot be read or is something else.
    """
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(scores, dict):
            raise ValueError("it has no sets with scores")
        for one in scores["sets"]:
            if not isinstance(one["name"], str):
                raise ValueError(f"the name of a set is {one['name']!r}")
            _reference(one)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} has no scores as 'jv5kit eval --json' prints them: {reason}") from None
    return scores


def check_common(names: Iterable[str], other: Mapping[str, Any]) -> None:
    """Refuse sets of which the other model has no score in float32: before anything is encoded.

    Raises:
        InputError: it has none of them.
    """
    have = {one["name"] for one in other["sets"] if _reference(one) is not None}
    wanted = list(names)
    if not have.intersection(wanted):
        raise InputError(
            f"nothing can be compared: the sets are {', '.join(wanted) or 'none'}, and of {other.get('model')} there "
            f"are scores in float32 on {', '.join(sorted(have)) or 'nothing'}"
        )


def shares(scores: Mapping[str, Any], other: Mapping[str, Any]) -> list[Share]:
    """The shares of the sets that both have.

    Args:
        scores: of this model.
        other: of the other one.

    Raises:
        InputError: they have no set in common, or the other's have no float32.
    """
    check_common((one["name"] for one in scores["sets"]), other)
    # The same set by another measure is another thing.
    references = {(one["name"], one.get("metric")): _reference(one) for one in other["sets"]}
    found = []
    for one in scores["sets"]:
        metric = one.get("metric")
        reference = references.get((one["name"], metric))
        if reference is not None:
            values = {(score["dim"], score["precision"]): score[metric] for score in one["scores"]}
            found.append(Share(one["name"], one["kind"], metric, 1, reference, values))
    return found


def by_kind(found: Iterable[Share]) -> list[Share]:
    """The shares of the means over the sets of each kind and measure."""
    kinds: dict[tuple[str, str], list[Share]] = {}
    for share in found:
        kinds.setdefault((share.kind, share.metric), []).append(share)
    return [_mean(of_kind) for of_kind in kinds.values()]


def lines(found: Sequence[Share], model: str) -> Iterator[str]:
    """The shares as a table for people: a row for each set and kind, a column for each dimension and precision."""
    cells = list(dict.fromkeys(cell for share in found for cell in share.values))
    names = [f"{precision}, {dim}" for dim, precision in cells]
    rows = [*found, *by_kind(found)]
    wide = max(len(_name(share)) for share in rows)
    yield f"share of {model}, float32"
    yield f"{'':{wide}}  {'there':>7}  {'  '.join(names)}"
    for share in rows:
        row = [_percent(share.share(cell)).rjust(len(name)) for cell, name in zip(cells, names, strict=True)]
        yield f"{_name(share):{wide}}  {share.reference:7.4f}  {'  '.join(row)}".rstrip()


def to_json(found: Sequence[Share], model: str) -> dict[str, Any]:
    """The same for programs; :func:`from_json` reads it."""

    def record(share: Share) -> dict[str, Any]:
        scores = [
            {"dim": dim, "precision": precision, "value": value, "share": share.share((dim, precision))}
            for (dim, precision), value in share.values.items()
        ]
        return {
            "name": share.name,
            "kind": share.kind,
            "metric": share.metric,
            "sets": share.sets,
            "reference": share.reference,
            "scores": scores,
        }

    return {"model": model, "sets": [record(one) for one in found], "kinds": [record(one) for one in by_kind(found)]}


def from_json(against: Mapping[str, Any]) -> list[Share]:
    """The shares of sets that :func:`to_json` wrote."""
    return [
        Share(
            one["name"],
            one["kind"],
            one["metric"],
            one["sets"],
            one["reference"],
            {(score["dim"], score["precision"]): score["value"] for score in one["scores"]},
        )
        for one in against["sets"]
    ]


def _reference(one: Mapping[str, Any]) -> float | None:
    """A set's main measure at the most dimensions, in float32; None where nothing was measured so."""
    whole = [score for score in one["scores"] if score["precision"] == "float32"] if one.get("metric") else []
    return float(max(whole, key=lambda score: int(score["dim"]))[one["metric"]]) if whole else None


def _mean(of_kind: Sequence[Share]) -> Share:
    count, first = len(of_kind), of_kind[0]
    cells = [cell for cell in first.values if all(cell in share.values for share in of_kind)]
    values = {cell: sum(share.values[cell] for share in of_kind) / count for cell in cells}
    return Share(None, first.kind, first.metric, count, sum(share.reference for share in of_kind) / count, values)


def _name(share: Share) -> str:
    return share.name or f"{share.kind}, mean of {share.sets} set{'s' * (share.sets > 1)}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
