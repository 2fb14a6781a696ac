"""The commands that encode, from the start of their process: a cold search, and the building of an index."""

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from encode_inputs import MINILM, contents
from encode_rows import QUERY, Setup, jv5kit_encoder
from table import NotRun, Result

from jv5kit.pretrained import load_checkpoint

HERE = Path(__file__).parent
JV5KIT = [sys.executable, "-m", "jv5kit"]

MOST_SECONDS, MOST_MB = 0.5, 150.0


def launch(*command: str | Path) -> dict[str, Any]:
    """Run a command, and say what it took."""
    arguments = [sys.executable, HERE / "launch.py", *command]
    took: dict[str, Any] = json.loads(subprocess.run(arguments, check=True, stdout=subprocess.PIPE).stdout)
    return took


PLAIN = ("--binary", "--dim", "256", "--force", "-q")


def build(folder: Path) -> dict[str, Any]:
    """Build the index of the documents, with a model that the peers have too."""
    output = folder / "docs.jv5"
    return launch(*JV5KIT, "index", folder / "docs.jsonl", "-o", output, *PLAIN, "-m", MINILM)


def index(setup: Setup) -> Iterator[Result | NotRun]:
    """`jv5kit index` beside the encoder alone, which is loaded already."""
    texts = contents(setup.folder / "docs.jsonl")
    encode = jv5kit_encoder(load_checkpoint(MINILM))
    encode(texts[:100])
    times = [
        (setup.seconds(lambda: encode(texts)), build(setup.folder)["seconds"]) for _ in range(1 if setup.quick else 3)
    ]
    name = f"`jv5kit index`, {len(texts):,} documents, end to end, all threads"
    yield Result.of(name, "`Encoder.encode`", times, lambda side: len(texts) / min(side), 0.8, "texts/s")


def search(setup: Setup) -> Iterator[Result | NotRun]:
    """`jv5kit search` from the start of the process to the hits, with its files in the page cache."""
    folder, model = setup.folder, load_checkpoint(MINILM).folder
    if not (folder / "docs.jv5").exists():
        build(folder)
    launch(*JV5KIT, "export", folder / "docs.jv5", "-o", folder / "exported", "--faiss", "--force")
    ours: list[str | Path] = [*JV5KIT, "search", QUERY, "--index", folder / "docs.jv5"]
    faiss_index = folder / "exported" / "index.faiss"
    peer: list[str | Path] = [
        sys.executable,
        HERE / "faiss_search.py",
        model,
        faiss_index,
        folder / "docs.jsonl",
        QUERY,
    ]
    found, peer_found = _ids(launch(*ours)), _ids(launch(*peer))
    # The peer compares bits alone: its hits are near, and not all the nearest.
    if not (len(found) == len(peer_found) == 10 and found & peer_found):
        raise SystemExit(f"cold search: jv5kit finds {sorted(found)}, its peer {sorted(peer_found)}")
    runs = [(launch(*peer), launch(*ours)) for _ in range(2 if setup.quick else 11)]
    seconds = [(theirs["answered"], our["answered"]) for theirs, our in runs]
    limits = [(MOST_SECONDS, time) for _, time in seconds]
    peaks = [(MOST_MB, our["peak_bytes"] / 1e6) for _, our in runs]
    name = "`jv5kit search`, process start to hits"
    yield Result.of(name, "sentence-transformers + FAISS", seconds, statistics.median, 8.0, "s")
    yield Result.of(name, "the limit", limits, statistics.median, 1.0, "s")
    yield Result.of(f"{name}, peak of memory", "the limit", peaks, max, 1.0, "MB")


def _ids(took: dict[str, Any]) -> set[str]:
    """Of the hits that were printed: rank, score and id."""
    return set(re.findall(r"^ ?\d+ +-?[\d.]+ +(\S+)$", took["output"], re.MULTILINE))
