"""The tables that the benchmarks print: rows beside a peer, what the numbers depend on, and files that show a table."""

import json
import platform
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol, Self

import jv5kit
from jv5kit import _native


@dataclass(frozen=True)
class Result:
    """What a peer does and what jv5kit does, in ``unit``, and the peer's time / ours, pair by pair."""

    workload: str
    peer_name: str
    peer: float
    ours: float
    ratio: float
    lowest: float
    highest: float
    target: float | None
    unit: str = ""

    @classmethod
    def of(
        cls,
        workload: str,
        peer_name: str,
        times: Sequence[tuple[float, float]],
        shown: Callable[[Sequence[float]], float],
        target: float | None,
        unit: str = "",
    ) -> Self:
        """The row of pairs of times, the peer's and ours; ``shown`` is the figure for all times of a side."""
        ratios = [peer_time / our_time for peer_time, our_time in times]
        peer, ours = (shown(side) for side in zip(*times, strict=True))
        return cls(workload, peer_name, peer, ours, statistics.median(ratios), min(ratios), max(ratios), target, unit)

    @property
    def missed(self) -> bool:
        """Whether the ratio is below its target."""
        return self.target is not None and self.ratio < self.target

    def line(self) -> str:
        """The row in Markdown."""
        figures = " | ".join(f"{_digits(figure)} {self.unit}".rstrip() for figure in (self.peer, self.ours))
        ratios = f"{self.ratio:.2f} | {self.lowest:.2f}-{self.highest:.2f}"
        verdict = f"{self.target or '-'}{' missed' if self.missed else ''}"
        return f"| {self.workload} | {self.peer_name} | {figures} | {ratios} | {verdict} |"


@dataclass(frozen=True)
class NotRun:
    """A workload that could not be run, or not beside one of its peers, and why; ``failed`` if it should have been."""

    workload: str
    reason: str
    peer_name: str | None = None
    failed: bool = False

    missed = False

    def line(self) -> str:
        """The row in Markdown."""
        if self.peer_name is None:
            return f"| {self.workload} | not run: {self.reason} ||||||"
        return f"| {self.workload} | {self.peer_name} | not run: {self.reason} |||||"


class Row(Protocol):
    """A dataclass that is a row of a table."""

    def line(self) -> str:
        """The row in Markdown."""


def setting(**more: str) -> dict[str, str]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    tier, forced, _ = _native.simd_tier()
    return {
        "jv5kit": f"{jv5kit.__version__}, tier {tier}{' (forced)' if forced else ''}",
        **more,
        "CPU": model[1] if model else platform.machine(),
        "date": date.today().isoformat(),
    }


def report(
    settings: Mapping[str, str], header: str, rows: Sequence[Row], notes: Iterable[str] = (), *, as_json: bool = False
) -> str:
    """A table in Markdown, notes below it; or the settings and the rows in JSON."""
    if as_json:
        return json.dumps({"setting": settings, "results": rows}, default=vars, indent=2)
    lines = [f"- {name}: {value}" for name, value in settings.items()]
    return "\n".join([*lines, header, *(row.line() for row in rows), *notes])


def write(text: str, path: Path, mark: str) -> None:
    """Put a report into a file that marks a place for it, or make the file."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    before, begin, rest = old.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- end of {mark} -->")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{begin}{text}\n{end}{after}" if begin and end else text + "\n", encoding="utf-8")


def _digits(figure: float) -> str:
    """Three digits, or all before the point."""
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"
