"""Compare jv5kit with FAISS in one process: `python benches/compare.py`.

Both run on one thread and are charged in CPU-seconds. Their answers must be the same before they are timed. The runs
alternate, and the result is the median, over the pairs of runs, of FAISS's time / ours: other work on the machine slows
both sides of a pair. Rates are the best of the runs.
"""

import json
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import typer
from numpy.typing import NDArray

import jv5kit
from jv5kit import _native

TOP_K = 10

HEADER = f"""
Top {TOP_K}, one thread. 10⁹ comparisons (or values packed) a CPU-second; ratio: FAISS's time / ours.

| workload | FAISS | jv5kit | ratio | min-max | target |
|---|--:|--:|--:|--:|--:|"""

# The bits of each value of a byte in the opposite order.
REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little")[:, 0]

LEAST_SECONDS = 0.05  # of CPU time a run, repeated if it takes less, so that reading the clock does not count


@dataclass(frozen=True)
class Workload:
    """Two ways to do ``operations`` (comparisons with rows that may be found, or values packed), and if they agree."""

    name: str
    operations: int
    faiss: Callable[[], Any]
    ours: Callable[[], Any]
    same: Callable[[Any, Any], bool]
    target: float | None = None


@dataclass(frozen=True)
class Result:
    """Rates in 10⁹ operations a CPU-second, and FAISS's time / ours, pair by pair."""

    workload: str
    faiss: float
    ours: float
    ratio: float
    lowest: float
    highest: float
    target: float | None

    @property
    def missed(self) -> bool:
        """Whether the ratio is below its target."""
        return self.target is not None and self.ratio < self.target

    def line(self) -> str:
        """The row in Markdown."""
        rates = f"{self.faiss:.3g} | {self.ours:.3g} | {self.ratio:.2f} | {self.lowest:.2f}-{self.highest:.2f}"
        return f"| {self.workload} | {rates} | {self.target or '-'}{' missed' if self.missed else ''} |"


def same_hits(faiss_hits: Any, our_hits: Any) -> bool:
    """Whether distances are equal, and rows wherever a tie with rows left out cannot change them.

    FAISS leaves open the order of ties, and which of them it keeps at the end.
    """
    order = np.lexsort(faiss_hits[::-1], axis=-1)
    distances, rows = (np.take_along_axis(array, order, axis=-1) for array in faiss_hits)
    settled = distances < distances[:, -1:]
    return np.array_equal(distances, our_hits[0]) and np.array_equal(rows[settled], our_hits[1][settled])


def search_workload(
    codes: NDArray[np.uint8], queries: NDArray[np.uint8], target: float | None, mask: NDArray[np.bool_] | None = None
) -> Workload:
    """Exact top 10 of the queries among the codes, or among those that the mask keeps."""
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    params = None
    if mask is not None:
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        params = faiss.SearchParameters(sel=selector)
    noun = "query" if len(queries) == 1 else "queries"
    filtered = "" if mask is None else f", {mask.mean():.0%} of the rows"
    return Workload(
        name=f"{len(codes):,} x {8 * codes.shape[1]} bit, {len(queries):,} {noun}{filtered}",
        operations=len(queries) * (len(codes) if mask is None else int(mask.sum())),
        faiss=lambda: index.search(queries, TOP_K, params=params),
        ours=lambda: jv5kit.hamming_search(queries, codes, TOP_K, mask=mask, threads=1),
        same=same_hits,
        target=target,
    )


def packing_workload(floats: NDArray[np.float32]) -> Workload:
    """Float rows to sign bits."""

    def by_faiss() -> NDArray[np.uint8]:
        out = np.empty((len(floats), floats.shape[1] // 8), np.uint8)
        faiss.real_to_binary(floats.size, faiss.swig_ptr(floats), faiss.swig_ptr(out))
        return out

    return Workload(
        name=f"{len(floats):,} x {floats.shape[1]}, float32 to bits",
        operations=floats.size,
        faiss=by_faiss,
        ours=lambda: jv5kit.quantize_embeddings(floats),
        # The first value is the lowest bit of a byte here, and the highest in `packbits` and jv5kit.
        same=lambda theirs, ours: np.array_equal(REVERSED[theirs], ours),
    )


def workloads(rows: int) -> Iterator[Workload]:
    """Every workload, made when its turn comes to hold little memory."""
    rng = np.random.default_rng(0)
    codes, queries = rng.integers(0, 256, (rows, 32), np.uint8), rng.integers(0, 256, (1000, 32), np.uint8)
    for count, target in ((1, 1.3), (16, None), (100, 4.0), (1000, None)):
        yield search_workload(codes, queries[:count], target)
    yield search_workload(codes, queries[:100], None, mask=rng.random(rows) < 0.01)
    codes, queries = rng.integers(0, 256, (rows, 128), np.uint8), rng.integers(0, 256, (100, 128), np.uint8)
    for count in (1, 100):
        yield search_workload(codes, queries[:count], None)
    yield packing_workload(rng.standard_normal((rows, 256), np.float32))


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """CPU-seconds of one run, from ``repeats`` runs."""
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def compare(workload: Workload, pairs: int) -> Result:
    """Check that both give the same answer, then time them in turn."""
    if not workload.same(workload.faiss(), workload.ours()):
        raise SystemExit(f"{workload.name}: FAISS and jv5kit give different answers")
    sides = (workload.faiss, workload.ours)
    repeats = [max(1, round(LEAST_SECONDS / seconds(side, 1))) for side in sides]
    times = [[seconds(side, count) for side, count in zip(sides, repeats, strict=True)] for _ in range(pairs)]
    ratios = [faiss_time / our_time for faiss_time, our_time in times]
    theirs, ours = (workload.operations / min(side) / 1e9 for side in zip(*times, strict=True))
    return Result(workload.name, theirs, ours, statistics.median(ratios), min(ratios), max(ratios), workload.target)


def setting() -> dict[str, str]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    tier, forced, _ = _native.simd_tier()
    return {
        "jv5kit": f"{jv5kit.__version__}, tier {tier}{' (forced)' if forced else ''}",
        "FAISS": f"{faiss.__version__}, {faiss.get_compile_options().strip()}",
        "CPU": model[1] if model else platform.machine(),
        "date": date.today().isoformat(),
    }


def write(report: str, path: Path, mark: str = "bench") -> None:
    """Put the report into a file that marks a place for it, or make the file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- end of {mark} -->")
    path.write_text(f"{before}{begin}{report}\n{end}{after}" if begin and end else report + "\n", encoding="utf-8")


def main(
    quick: Annotated[bool, typer.Option("--quick", help="200k codes and fewer runs.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when a ratio is below its target.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of Markdown.")] = False,
    output: Annotated[
        list[Path] | None, typer.Option(help="Write the table here as well: between its bench marks, if it has them.")
    ] = None,
) -> None:
    """Compare exact search and packing with FAISS on one thread: CPU-seconds, medians of paired runs."""
    faiss.omp_set_num_threads(1)
    results = []
    for workload in workloads(200_000 if quick else 1_000_000):
        typer.echo(f"{workload.name} ...", err=True)
        results.append(compare(workload, pairs=5 if quick else 15))
    if as_json:
        report = json.dumps({"setting": setting(), "results": [asdict(result) for result in results]}, indent=2)
    else:
        lines = [f"- {name}: {value}" for name, value in setting().items()]
        report = "\n".join([*lines, HEADER, *(result.line() for result in results)])
    typer.echo(report)
    for path in output or []:
        write(report, path)
    if check and any(result.missed for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
