"""What 10⁸, 10⁹ and 10¹⁰ documents take, from slopes that are measured here: `python benches/scale.py`.

Each slope is measured at sizes that this machine holds, in CPU-seconds of one thread, and multiplied: nothing here was
run at those sizes. The codes that are scanned are larger than the caches, so that a scan is what memory allows. The
texts are the language reference that comes with Python, cut into paragraphs.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from table import setting, write

from jv5kit import Document, Encoder, Index, hamming_search

DIM, TOP_K, TOGETHER = 256, 10, 64
SIZES = (10**8, 10**9, 10**10)
TOKENS = 100
"""Of a document, for the cost of encoding."""

SECONDS = 0.1
"""An answer's, that the number of cores is for."""


@dataclass(frozen=True)
class Slopes:
    """What a document costs, and what measured it.

    Attributes:
        scan: CPU-seconds for one query.
        scan_together: CPU-seconds for each of several queries that are answered together.
        code: bytes of its code.
        row: bytes of its int8 row and scale.
        record: bytes beside these, without its text: id, hash, catalogue.
        text: bytes on disk for each byte of text.
        build: CPU-seconds to index it, given its embedding.
        encode: CPU-seconds for each token.
    """

    scan: float
    scan_together: float
    code: float
    row: float
    record: float
    text: float
    build: float
    encode: float


def cpu_seconds(run: Callable[[], Any], runs: int) -> float:
    """The median of some runs, after one that warms up."""
    run()
    times = []
    for _ in range(runs):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def paragraphs() -> list[str]:
    """Texts in English, the same wherever Python is."""
    return [part.strip() for text in topics.values() for part in text.split("\n\n") if len(part.strip()) > 40]


def bytes_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def built(folder: Path, **options: Any) -> tuple[float, int]:
    """CPU-seconds to build an index, and its bytes."""
    start = time.process_time()
    Index.build(folder, show_progress_bar=False, **options).close()
    return time.process_time() - start, bytes_of(folder)


def scanning(codes: NDArray[np.uint8]) -> tuple[float, float]:
    """CPU-seconds of a code for one query, and for each of several."""
    queries = np.random.default_rng(1).integers(0, 256, (TOGETHER, codes.shape[1]), np.uint8)
    one = cpu_seconds(lambda: hamming_search(queries[:1], codes, TOP_K, threads=1), 7)
    together = cpu_seconds(lambda: hamming_search(queries, codes, TOP_K, threads=1), 3)
    return one / len(codes), together / len(codes) / TOGETHER


def measure(rows: int) -> Slopes:
    """Measure each slope, at so many documents, and at twice as many, so that what is fixed does not count."""
    generator = np.random.default_rng(0)
    one, together = scanning(generator.integers(0, 256, (8 * rows, DIM // 8), np.uint8))
    embeddings = generator.standard_normal((2 * rows, DIM), np.float32)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        once = built(folder / "once.jv5", embeddings=embeddings[:rows])
        twice = built(folder / "twice.jv5", embeddings=embeddings)
        plain = [built(folder / f"plain{i}.jv5", embeddings=embeddings[: i * rows], rescore="none")[1] for i in (1, 2)]
        texts = paragraphs()
        documents = [Document(str(i), text) for i, text in enumerate(texts)]
        written = built(folder / "texts.jv5", documents=documents, embeddings=embeddings[: len(texts)])[1]
        silent = built(folder / "silent.jv5", embeddings=embeddings[: len(texts)])[1]
    row = DIM + 4
    record = (twice[1] - once[1]) / rows - row - DIM / 8
    assert abs((plain[1] - plain[0]) / rows - record - DIM / 8) < 2, "the int8 rows take other room than is said"
    encoder = Encoder.from_pretrained()
    sample = texts[: max(64, rows // 500)]
    tokens = sum(map(len, encoder.tokenize(sample, "")[0]))
    encode = cpu_seconds(lambda: encoder.encode(sample, show_progress_bar=False), 3) / tokens
    content = sum(len(text.encode()) for text in texts)
    return Slopes(
        scan=one,
        scan_together=together,
        code=DIM / 8,
        row=row,
        record=record,
        text=(written - silent) / content,
        build=(twice[0] - once[0]) / rows,
        encode=encode,
    )


def figure(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def lines(slopes: Slopes) -> list[str]:
    """The slopes, and a table of what follows from them."""
    per_core = 1 / slopes.encode
    found = [
        "",
        f"One document: {slopes.code:.0f} bytes of code, {slopes.row:.0f} of int8 row, {slopes.record:.0f} of id and "
        f"catalogue, and {slopes.text:.2f} bytes for each byte of text. A scan takes {1e9 * slopes.scan:.2f} ns of a "
        f"core for a query alone and {1e9 * slopes.scan_together:.2f} ns for each of {TOGETHER} together; indexing "
        f"{1e6 * slopes.build:.1f} µs, given the embedding; pico encodes {per_core:,.0f} tokens a core-second.",
        "",
        "| | " + " | ".join(f"{size:.0e}".replace("e+", "e") for size in SIZES) + " |",
        "|---|" + "--:|" * len(SIZES),
    ]
    rows: list[tuple[str, Callable[[int], float]]] = [
        ("codes, GB of memory", lambda n: n * slopes.code / 1e9),
        ("int8 rows, GB of disk", lambda n: n * slopes.row / 1e9),
        ("ids and catalogue, GB of disk", lambda n: n * slopes.record / 1e9),
        ("one query, core-seconds", lambda n: n * slopes.scan),
        (f"cores for an answer in {SECONDS:g} s", lambda n: n * slopes.scan / SECONDS),
        ("queries a second and core, one by one", lambda n: 1 / (n * slopes.scan)),
        (f"queries a second and core, {TOGETHER} together", lambda n: 1 / (n * slopes.scan_together)),
        ("indexing given embeddings, core-hours", lambda n: n * slopes.build / 3600),
        (f"encoding {TOKENS} tokens each, core-hours", lambda n: n * TOKENS * slopes.encode / 3600),
    ]
    return found + [f"| {name} | " + " | ".join(figure(value(size)) for size in SIZES) + " |" for name, value in rows]


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Documents that the slopes are measured at.")] = 200_000,
    as_json: Annotated[bool, typer.Option("--json", help="The slopes in JSON instead of Markdown.")] = False,
    output: Annotated[
        list[Path] | None, typer.Option(help="Write the table here as well: between its scale marks, if it has them.")
    ] = None,
) -> None:
    """Measure what a document costs, and say what many do."""
    slopes = measure(rows)
    if as_json:
        typer.echo(json.dumps({"setting": setting(), "slopes": asdict(slopes)}))
        return
    text = "\n".join([*(f"- {name}: {value}" for name, value in setting().items()), *lines(slopes)])
    typer.echo(text)
    for path in output or []:
        write(text, path, "scale")


if __name__ == "__main__":
    typer.run(main)
