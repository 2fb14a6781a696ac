"""Compare jv5kit with what people use, in one process: `python benches/compare.py`.

Both sides run on one thread and are charged in CPU-seconds. Their answers must be the same before they are timed; where
ours is better instead, the name of the workload says by how much. The runs alternate, and the result is the median,
over the pairs of runs, of the peer's time / ours: other work on the machine slows both sides. Rates are the best.

FAISS picks the fastest kernels that the processor has. The rows of a tier come from a process of their own, where FAISS
is held to the like: `JV5KIT_SIMD=popcnt python benches/compare.py --tier`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import typer
from numpy.typing import NDArray
from table import NotRun, Result, report, setting, write

import jv5kit
from jv5kit import Index, _native

TOP_K = 10

HEADER = f"""
Top {TOP_K}, one thread. 10⁹ comparisons (or values quantized) a CPU-second; ratio: the peer's time / ours.

| workload | peer | its rate | jv5kit | ratio | min-max | at least |
|---|---|--:|--:|--:|--:|--:|"""

# The bits of each value of a byte in the opposite order.
REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little")[:, 0]

# The level of FAISS that is like a tier: its kernels without AVX-512 count bits by POPCNT.
FAISS_LEVELS = {"popcnt": "SIMDLevel_AVX2", "avx2": "SIMDLevel_AVX2"}

LEAST_SECONDS = 0.05  # of CPU time a run, repeated if it takes less, so that reading the clock does not count


@dataclass(frozen=True)
class Workload:
    """Two ways to do ``operations`` (comparisons with rows that may be found, or values packed), and if they agree."""

    name: str
    operations: int
    peer: Callable[[], Any]
    ours: Callable[[], Any]
    same: Callable[[Any, Any], bool]
    target: float | None = None
    peer_name: str = "FAISS"


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
        peer=lambda: index.search(queries, TOP_K, params=params),
        ours=lambda: jv5kit.hamming_search(queries, codes, TOP_K, mask=mask, threads=1),
        same=same_hits,
        target=target,
    )


def packing_workload(floats: NDArray[np.float32], target: float | None) -> Workload:
    """Float rows to sign bits."""

    def by_faiss() -> NDArray[np.uint8]:
        out = np.empty((len(floats), floats.shape[1] // 8), np.uint8)
        faiss.real_to_binary(floats.size, faiss.swig_ptr(floats), faiss.swig_ptr(out))
        return out

    return Workload(
        name=f"{len(floats):,} x {floats.shape[1]}, float32 to bits",
        operations=floats.size,
        peer=by_faiss,
        ours=lambda: jv5kit.quantize_embeddings(floats),
        # The first value is the lowest bit of a byte here, and the highest in `packbits` and jv5kit.
        same=lambda theirs, ours: np.array_equal(REVERSED[theirs], ours),
        target=target,
    )


def beside_the_bus(workload: Workload, array: NDArray[Any]) -> Workload:
    """A workload that reads much and writes little, beside NumPy's sum of the same bytes."""
    words = array.reshape(-1).view(np.uint64)
    return replace(workload, peer=words.sum, same=lambda *_: True, peer_name="NumPy's sum of the bytes")


def int8_workload(floats: NDArray[np.float32], target: float) -> Workload:
    """Float rows to int8, beside FAISS's 8-bit quantizer; both must be within a step of the values."""
    quantizer = faiss.IndexScalarQuantizer(floats.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    quantizer.train(floats[:20_000])

    def close(codes: Any, ours: Any) -> bool:
        values, scales = ours
        step = 2 * np.abs(floats).max() / 255
        theirs = np.abs(quantizer.sa_decode(codes[:1000]) - floats[:1000]).mean()
        return bool(theirs <= step and np.abs(values[:1000] * scales[:1000, None] - floats[:1000]).max() <= step)

    return Workload(
        name=f"{len(floats):,} x {floats.shape[1]}, float32 to int8",
        operations=floats.size,
        peer=lambda: quantizer.sa_encode(floats),
        ours=lambda: jv5kit.quantize_rows(floats),
        same=close,
        target=target,
        peer_name="FAISS SQ8",
    )


def int8_search_workload(rows: int) -> Workload:
    """Exact top 10 among int8 rows by their dot products, beside FAISS's over the same values."""
    rng = np.random.default_rng(3)
    values, _ = jv5kit.quantize_rows(rng.standard_normal((rows, 256), np.float32))
    queries, _ = jv5kit.quantize_rows(rng.standard_normal((100, 256), np.float32))
    scales, floats = np.ones(rows, np.float32), queries.astype(np.float32)
    kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    index = faiss.IndexScalarQuantizer(256, kind, faiss.METRIC_INNER_PRODUCT)
    index.add(values.astype(np.float32))
    return Workload(
        name=f"{rows:,} x 256 int8, 100 queries",
        operations=100 * rows,
        peer=lambda: index.search(floats, TOP_K),
        ours=lambda: jv5kit.int8_search(queries, values, scales, TOP_K, threads=1),
        same=lambda theirs, ours: np.array_equal(theirs[0], ours[0]),
        peer_name="FAISS SQ8 direct",
    )


def clustered(rows: int, dim: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit rows that lie about topics as texts do, some fifty to each, and 100 queries about some of the topics."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((rows // 50, dim), np.float32)
    documents = topics[rng.integers(0, len(topics), rows)] + 0.7 * rng.standard_normal((rows, dim), np.float32)
    queries = topics[:100] + 0.7 * rng.standard_normal((100, dim), np.float32)
    return jv5kit.truncate_embeddings(documents, dim), jv5kit.truncate_embeddings(queries, dim)


def rescored_workload(rows: int, target: float) -> Workload:
    """Binary search, rescored by int8 rows, beside that of sentence-transformers, which rescores by the bits."""
    from sentence_transformers.util.quantization import semantic_search_faiss

    floats, queries = clustered(rows, 256, seed=1)
    codes = jv5kit.quantize_embeddings(floats)
    values, scales = jv5kit.quantize_rows(floats)
    index = faiss.IndexBinaryFlat(256)
    index.add(codes)
    exact = np.argpartition(-(queries @ floats.T), TOP_K, axis=1)[:, :TOP_K]

    def theirs() -> Any:
        return semantic_search_faiss(
            queries, corpus_index=index, corpus_precision="ubinary", top_k=TOP_K, rescore_multiplier=10
        )[0]

    def recall(found: Any) -> float:
        return float(np.mean([len(set(a) & set(b)) / TOP_K for a, b in zip(found, exact.tolist(), strict=True)]))

    def ours() -> Any:
        return jv5kit.rescored_search(queries, codes, TOP_K, rows=values, scales=scales, oversample=10, threads=1)

    their_recall = recall([[hit["corpus_id"] for hit in hits] for hits in theirs()])
    our_recall = recall(ours()[1].tolist())
    return Workload(
        name=f"{rows:,} x 256 bit, 100 queries, rescored (recall@10 {their_recall:.2f} / {our_recall:.2f})",
        operations=100 * rows,
        peer=theirs,
        ours=ours,
        same=lambda *_: our_recall > their_recall,
        target=target,
        peer_name="sentence-transformers",
    )


def tier_workloads(rows: int) -> Iterator[Workload]:
    """What a forced tier is asked: 100 queries."""
    rng = np.random.default_rng(0)
    for size, target in ((32, 1.7), (128, 3.5)):
        codes, queries = rng.integers(0, 256, (rows, size), np.uint8), rng.integers(0, 256, (100, size), np.uint8)
        yield search_workload(codes, queries, target if _native.simd_tier()[0] == "popcnt" else None)


def workloads(rows: int) -> Iterator[Workload]:
    """Every workload, made when its turn comes to hold little memory."""
    rng = np.random.default_rng(0)
    codes, queries = rng.integers(0, 256, (rows, 32), np.uint8), rng.integers(0, 256, (1000, 32), np.uint8)
    for count, target in ((1, 1.4), (16, 3.0), (100, 5.0), (1000, 6.0)):
        yield search_workload(codes, queries[:count], target)
    yield beside_the_bus(search_workload(codes, queries[:1], 0.85), codes)
    yield search_workload(codes, queries[:100], 40.0, mask=rng.random(rows) < 0.01)
    codes, queries = rng.integers(0, 256, (rows, 128), np.uint8), rng.integers(0, 256, (100, 128), np.uint8)
    yield search_workload(codes, queries[:1], None)
    yield search_workload(codes, queries, 5.0)
    floats = rng.standard_normal((rows, 256), np.float32)
    yield packing_workload(floats, None)
    yield beside_the_bus(packing_workload(floats, 0.9), floats)
    yield packing_workload(floats[:2000], 1.5)
    yield int8_workload(floats, 5.0)
    del codes, queries, floats
    yield int8_search_workload(rows // 4)
    yield rescored_workload(rows, 4.0)


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """CPU-seconds of one run, from ``repeats`` runs."""
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def compare(workload: Workload, pairs: int) -> Result:
    """Check that both give the same answer, then time them in turn."""
    if not workload.same(workload.peer(), workload.ours()):
        raise SystemExit(f"{workload.name}: {workload.peer_name} and jv5kit give different answers")
    sides = (workload.peer, workload.ours)
    repeats = [max(1, round(LEAST_SECONDS / seconds(side, 1))) for side in sides]
    times = [(seconds(sides[0], repeats[0]), seconds(sides[1], repeats[1])) for _ in range(pairs)]

    def rate(side: Sequence[float]) -> float:
        return workload.operations / min(side) / 1e9

    return Result.of(workload.name, workload.peer_name, times, rate, workload.target)


def forced_tier(tier: str, quick: bool) -> list[Result]:
    """The rows of a tier, from a process where both sides are held to it; none where the processor lacks it."""
    if tier not in _native.simd_tier()[2]:
        return []
    environment = {**os.environ, "JV5KIT_SIMD": tier}
    command = [sys.executable, __file__, "--tier", "--json", *(["--quick"] if quick else [])]
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    results = [Result(**result) for result in json.loads(printed)["results"]]
    return [replace(result, workload=f"{result.workload}, tier {tier}") for result in results]


def end_to_end(rows: int) -> list[str]:
    """`Index.search` of one query beside the kernels that it calls, and with a filter: lines for the report."""
    floats, queries = clustered(rows, 256, seed=2)
    query = queries[:1]
    documents = ({"id": str(i), "text": "-", "share": i % 100} for i in range(rows))
    with tempfile.TemporaryDirectory() as folder:
        index = Index.build(Path(folder, "x.jv5"), documents, embeddings=floats, show_progress_bar=False)
        segments = index._snapshot.segments
        parts = [(segment.tensor("codes"), None) for segment in segments]
        code = jv5kit.quantize_embeddings(query)

        def kernels() -> None:
            _, found = _native.hamming_search(code, parts, 4 * TOP_K, 1)
            first = 0
            for segment in segments:
                local = found[(found >= first) & (found < first + segment.rows)] - first
                if len(local):
                    _native.mixed_products(query, segment.rows_of("rows", local), np.zeros_like(local), local)
                first += segment.rows

        def search_all() -> None:
            index.search(query[0], TOP_K)

        def search_some() -> None:
            index.search(query[0], TOP_K, filter="share = 7")

        ways = (kernels, search_all, search_some)
        for way in ways:
            way()
        runs = [[1000 * seconds(way, 20) for way in ways] for _ in range(15)]
    alone, search, filtered = (statistics.median(side) for side in zip(*runs, strict=True))
    verdicts = [" missed" if missed else "" for missed in (search > 1.5 * alone + 1, filtered > 1.5 * search)]
    return [
        f"- `Index.search`, {rows:,} documents, one query: {search:.2f} ms; its kernels alone {alone:.2f} ms "
        f"(at most 1.5 x that + 1 ms: {1.5 * alone + 1:.2f} ms{verdicts[0]})",
        f"- with a filter that keeps 1 %: {filtered:.2f} ms (at most 1.5 x that: {1.5 * search:.2f} ms{verdicts[1]})",
    ]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="200k codes and fewer runs.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when a ratio is below its target.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of Markdown.")] = False,
    tier: Annotated[bool, typer.Option("--tier", help="Only the rows of a tier that JV5KIT_SIMD forces.")] = False,
    output: Annotated[
        list[Path] | None, typer.Option(help="Write the table here as well: between its bench marks, if it has them.")
    ] = None,
) -> None:
    """Compare the kernels with their peers on one thread: CPU-seconds, medians of paired runs."""
    faiss.omp_set_num_threads(1)
    level = FAISS_LEVELS.get(_native.simd_tier()[0])
    if tier and level is not None:
        faiss.SIMDConfig.set_level(getattr(faiss, level))
    os.environ["JV5KIT_THREADS"] = "1"
    rows = 200_000 if quick else 1_000_000
    results: list[Result | NotRun] = []
    for workload in tier_workloads(rows) if tier else workloads(rows):
        typer.echo(f"{workload.name} ...", err=True)
        results.append(compare(workload, pairs=5 if quick else 15))
    notes: list[str] = []
    if not tier:
        for name in ("popcnt", "amx"):
            forced = forced_tier(name, quick)
            results += forced
            if not forced:
                results.append(NotRun(f"{rows:,} x 256 bit, 100 queries, tier {name}", "this processor lacks it"))
        typer.echo("Index.search ...", err=True)
        notes += ["", *end_to_end(rows)]
    settings = setting(FAISS=f"{faiss.__version__}, {faiss.get_compile_options().strip()}")
    text = report(settings, HEADER, results, notes, as_json=as_json)
    typer.echo(text)
    for path in output or []:
        write(text, path, "bench")
    if check and (any(result.missed for result in results) or any(" missed" in note for note in notes)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
