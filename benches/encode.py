"""Compare the encoder with what people use: `python benches/encode.py [FILE.jsonl | FOLDER]...`.

Texts are real: Python's documentation, or what the files and the folders of BEIR hold that are named. Tokenizing is
timed for all. Embeddings must be the same before anything is timed. The sides take turns, and the result is the median,
over the pairs of runs, of the peer's time / ours: other work on the machine slows both.

A row has a process of its own, for the number of threads and the tier hold for a process; both sides of it run there.
Tiers that are forced are beside sentence-transformers alone, whose kernels can be held to the like.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import encode_commands
import encode_inputs
import encode_rows
import typer
from encode_peers import PEERS
from encode_rows import TIERS, Setup
from table import NotRun, Result, report, setting, write

from jv5kit import _native

TEXTS = 2000

PACKAGES = ("sentence-transformers", "transformers", "torch", "onnxruntime", "openvino", "faiss-cpu")

HELD = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
"""What holds torch to a tier. In float32 the others above are all AVX-512 to it."""


@dataclass(frozen=True)
class Task:
    """Rows that a process makes, its threads (0: as many as there are), and whether each tier has one."""

    rows: Callable[[Setup], Iterator[Result | NotRun]]
    threads: int = 1
    each_tier: bool = False


TASKS = {
    "minilm": Task(encode_rows.minilm, each_tier=True),
    "minilm-2-threads": Task(encode_rows.minilm, threads=2),
    "pico": Task(encode_rows.pico),
    "eurobert": Task(encode_rows.eurobert_210m),
    "qwen3": Task(encode_rows.qwen3_600m),
    "query": Task(encode_rows.query),
    "search": Task(encode_commands.search, threads=0),
    "index": Task(encode_commands.index, threads=0),
    "gpu": Task(encode_rows.gpu, threads=0),
}


def header(texts: list[str], quick: bool) -> str:
    lengths = f"{encode_inputs.LEAST_TOKENS}-{encode_inputs.MOST_TOKENS} tokens"
    return f"""
{len(texts):,} texts of {lengths}. Tokens a second where no unit is named; of CPU time on one thread, by the clock on \
more, and for one query; ratio: the peer's time / ours.{" A quick look, not a measurement." if quick else ""}

| workload | peer | its rate | jv5kit | ratio | min-max | at least |
|---|---|--:|--:|--:|--:|--:|"""


def in_own_process(name: str, setup: Setup, tier: str | None = None) -> list[Result | NotRun]:
    """The rows of a task, from a process with its number of threads and, if one is named, held to a tier."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("JV5KIT_MODEL", None)
    if setup.threads:
        names = ("JV5KIT_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS")
        environment |= dict.fromkeys(names, str(setup.threads))
    if tier is not None:
        environment |= {"JV5KIT_SIMD": tier, **HELD.get(tier, {})}
    command = [sys.executable, __file__, "--task", name, "--folder", str(setup.folder)]
    command += ["--quick"] if setup.quick else []
    command += [word for peer in setup.without for word in ("--without", peer)]
    outcome = subprocess.run(command, env=environment, check=False, stdout=subprocess.PIPE)
    if outcome.returncode:
        # It has said why, and the other rows are not lost for it.
        held = "" if tier is None else f", tier {tier}"
        return [NotRun(f"{name}{held}", f"failed with exit status {outcome.returncode}", failed=True)]
    return [Result(**row) if "ratio" in row else NotRun(**row) for row in json.loads(outcome.stdout)]


def rows_of(name: str, setup: Setup) -> Iterator[Result | NotRun]:
    """The rows of a task, tier by tier where it has tiers."""
    if not TASKS[name].each_tier:
        yield from in_own_process(name, setup)
        return
    own, _, available = _native.simd_tier()
    if own not in TIERS:
        yield from in_own_process(name, setup)
    for tier in TIERS:
        if tier in available:
            yield from in_own_process(name, setup, None if tier == own else tier)
        else:
            yield NotRun(f"all-MiniLM-L6-v2, one thread, tier {tier}", "this processor lacks it")


def inputs(paths: list[Path], folder: Path, quick: bool) -> list[str]:
    """Gather the documents and choose the texts; returns the texts."""
    documents = folder / "docs.jsonl"
    encode_inputs.gather(paths, documents)
    texts = encode_inputs.choose(encode_inputs.contents(documents), 32 if quick else TEXTS)
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    if quick:
        lines = documents.read_text(encoding="utf-8").split("\n")
        documents.write_text("\n".join(lines[:200]) + "\n", encoding="utf-8")
    return texts


def packages() -> dict[str, str]:
    """Versions of the peers."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def main(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="JSONL files and folders of BEIR; by default Python's documentation.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Only these rows: {', '.join(TASKS)}.")] = None,
    without: Annotated[list[str] | None, typer.Option(metavar="PEER", help="Leave out this peer.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few texts and runs, for a look.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when a ratio is below its target.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of Markdown.")] = False,
    output: Annotated[
        list[Path] | None, typer.Option(help="Write the table here as well: between its encode marks, if it has them.")
    ] = None,
    task: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    """Compare the encoder with its peers: medians of paired runs."""
    left_out = tuple(without or ())
    if unknown := set(left_out) - {*list(PEERS)[1:]}:
        raise typer.BadParameter(f"--without {', '.join(sorted(unknown))}; it takes {', '.join(list(PEERS)[1:])}")
    if task is not None:
        # Peers print while they load a model, and only the rows may be read here.
        with contextlib.redirect_stdout(sys.stderr):
            rows = list(TASKS[task].rows(Setup(folder, quick, TASKS[task].threads, left_out)))
        typer.echo(json.dumps(rows, default=vars))
        return
    names = only or list(TASKS)
    if unknown := set(names) - set(TASKS):
        raise typer.BadParameter(f"there are no rows {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    results: list[Result | NotRun] = []
    with tempfile.TemporaryDirectory() as place:
        typer.echo("texts ...", err=True)
        texts = inputs(paths or [], Path(place), quick)
        for name in names:
            typer.echo(f"{name} ...", err=True)
            results += rows_of(name, Setup(Path(place), quick, TASKS[name].threads, left_out))
    text = report(setting(**packages()), header(texts, quick), results, as_json=as_json)
    typer.echo(text)
    for path in output or []:
        write(text, path, "encode")
    failed = any(isinstance(result, NotRun) and result.failed for result in results)
    if failed or (check and any(result.missed for result in results)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
