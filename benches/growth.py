"""How building and searching grow with the number of documents: `python benches/growth.py`.

Each size is built and searched in a process of its own, so that its peak of memory is its own. A slope is the exponent
in time ~ documents^slope, from the smallest size to the largest: 1 is the same for each document, however many there
are. What 10⁸ documents would take is the value of the largest size and more at the rate between the last two. Times are
of the CPU where other work on the machine would show, and of the clock where a user waits.
"""

import json
import math
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, overload

import numpy as np
import typer
from table import report, setting, write

from jv5kit import Index

DIM, TOP_K, QUERIES = 256, 10, 20
ROWS_A_PIECE = 1 << 14
AT = 10**8

HEADER = f"""
Codes of {DIM} bits are given, with ids and no texts; top {TOP_K} of one query, after a first one.

| documents | build, s | CPU µs a document | peak, MiB | bytes a document | open, ms | query, ms | CPU, ms | peak, MiB |
|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


@dataclass(frozen=True)
class Growth:
    """What an index of so many documents takes. Seconds; peaks in MiB."""

    documents: int
    build: float
    build_cpu: float
    build_peak: float
    bytes: int
    open: float
    query: float
    query_cpu: float
    search_peak: float

    def line(self) -> str:
        """The row in Markdown."""
        cells = (
            f"{self.documents:,}",
            f"{self.build:.2f}",
            f"{1e6 * self.build_cpu / self.documents:.1f}",
            f"{self.build_peak:.0f}",
            f"{self.bytes / self.documents:.0f}",
            f"{1000 * self.open:.1f}",
            f"{1000 * self.query:.2f}",
            f"{1000 * self.query_cpu:.2f}",
            f"{self.search_peak:.0f}",
        )
        return f"| {' | '.join(cells)} |"


class RandomCodes:
    """Random codes, made when they are read, the same ones each time."""

    def __init__(self, count: int) -> None:
        self.shape = (count, DIM // 8)
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The rows of a slice."""
        start, stop, _ = rows.indices(self.shape[0])
        pieces = []
        for piece in range(start // ROWS_A_PIECE, -(-stop // ROWS_A_PIECE)):
            made = np.random.default_rng(piece).integers(0, 256, (ROWS_A_PIECE, DIM // 8), np.uint8)
            first = piece * ROWS_A_PIECE
            pieces.append(made[max(0, start - first) : stop - first])
        return np.concatenate(pieces)


class Ids(Sequence[str]):
    """Ids in no order, as hashes and addresses are, made when they are read."""

    def __init__(self, count: int) -> None:
        self._numbers = range(count)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> list[str]: ...

    def __getitem__(self, position: int | slice) -> str | list[str]:
        """An id, or those of a slice."""
        if isinstance(position, slice):
            return [self[i] for i in self._numbers[position]]
        return f"{position * 2_654_435_761 % 2**32:08x}"


def peak_mib() -> float:
    """The most memory that this process ever held, mapped files included."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def build(folder: Path, documents: int) -> dict[str, float]:
    """Build the index; what the making of the codes takes is not counted."""
    rows, ids = RandomCodes(documents), Ids(documents)
    making = time.process_time()
    for start in range(0, documents, ROWS_A_PIECE):
        rows[start : start + ROWS_A_PIECE]
    making = time.process_time() - making
    clock, cpu = time.perf_counter(), time.process_time()
    Index.build(folder, embeddings=rows, ids=ids, rescore="none", show_progress_bar=False).close()
    times = {"build": time.perf_counter() - clock - making, "build_cpu": time.process_time() - cpu - making}
    return times | {"build_peak": peak_mib()}


def search(folder: Path) -> dict[str, float]:
    """Open the index and search it."""
    start = time.perf_counter()
    index = Index.open(folder)
    opened = time.perf_counter() - start
    queries = np.random.default_rng(0).standard_normal((QUERIES, DIM), np.float32)
    # The first one reads the codes and verifies them.
    index.search(queries[0], TOP_K)
    clock, cpu = [], []
    for query in queries:
        begin = time.perf_counter(), time.process_time()
        index.search(query, TOP_K)
        clock.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    return {"open": opened, "query": min(clock), "query_cpu": min(cpu), "search_peak": peak_mib()}


def measure(documents: int, folder: Path) -> Growth:
    """Build and search an index of so many documents, each in a process of its own."""
    found: dict[str, float] = {}
    for step in ("build", "search"):
        command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--documents", str(documents)]
        found |= json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Growth(documents=documents, bytes=size, **found)


def slopes(results: Sequence[Growth]) -> list[str]:
    """What the growth says, in a line for each quantity."""
    last = results[-1]
    lines = []
    quantities = (
        ("building, CPU time", "build_cpu", 60, "minutes"),
        ("one query, CPU time", "query_cpu", 1e-3, "ms"),
        ("peak of building", "build_peak", 1, "MiB"),
        ("bytes on disk", "bytes", 1e9, "GB"),
    )
    for name, field, unit, label in quantities:
        values = [getattr(result, field) for result in results]
        slope = math.log(values[-1] / values[0]) / math.log(last.documents / results[0].documents)
        # At the rate of the last step: what is fixed counts once.
        rate = (values[-1] - values[-2]) / (last.documents - results[-2].documents)
        there = (values[-1] + rate * (AT - last.documents)) / unit
        lines.append(f"- {name}: slope {slope:.2f}; at {AT:,} documents {there:,.1f} {label}")
    return lines


def main(
    large: Annotated[bool, typer.Option("--large", help="10⁷ documents as well: 2 GB on disk.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="10⁴ and 10⁵ documents alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of Markdown.")] = False,
    output: Annotated[
        list[Path] | None, typer.Option(help="Write the table here as well: between its growth marks, if it has them.")
    ] = None,
    step: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path, typer.Option(hidden=True)] = Path(),
    documents: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Build and search indexes of 10⁴ to 10⁷ documents."""
    if step:
        typer.echo(json.dumps(build(folder, documents) if step == "build" else search(folder)))
        return
    results = []
    for power in range(4, 6 if quick else 8 if large else 7):
        typer.echo(f"10^{power} documents ...", err=True)
        with tempfile.TemporaryDirectory() as place:
            results.append(measure(10**power, Path(place) / "growth.jv5"))
    text = report(setting(), HEADER, results, ["", *slopes(results)], as_json=as_json)
    typer.echo(text)
    for path in output or []:
        write(text, path, "growth")


if __name__ == "__main__":
    typer.run(main)
