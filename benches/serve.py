"""The server beside the encoder that it serves, on this machine: what the way over HTTP costs.

Throughput: 16 clients that send 32 texts a request, in base64, beside `Encoder.encode` of the same texts, as a ratio.
Latency: one client's short query beside `Encoder.encode_query`, as the milliseconds that the server adds. The sides
take turns, and the result is the median over the turns: other work on the machine slows both.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import httpx
import numpy as np
import typer
from table import setting

from jv5kit import Encoder

CLIENTS = 16
TEXTS_A_REQUEST = 32
LEAST_THROUGHPUT = 0.8
MOST_ADDED = 3.0
"""Milliseconds."""

QUERY = "read the members of a zip archive"


def texts(count: int) -> list[str]:
    """Texts of 5 to 80 words, the same in each run."""
    words = f"{QUERY} file or folder the standard library that is written as bytes".split()
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(words, int(size))) for size in generator.integers(5, 81, count)]


def offline_rate(encoder: Encoder, inputs: list[str]) -> float:
    """Texts a second of the encoder."""
    began = time.perf_counter()
    encoder.encode(inputs, task="text-matching", show_progress_bar=False)
    return len(inputs) / (time.perf_counter() - began)


def served_rate(http: httpx.Client, inputs: list[str]) -> float:
    """Texts a second of the server, for 16 clients."""

    def send(start: int) -> None:
        part = inputs[start : start + TEXTS_A_REQUEST]
        body = {"model": "pico", "input": part, "encoding_format": "base64"}
        http.post("/v1/embeddings", json=body).raise_for_status()

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, range(0, len(inputs), TEXTS_A_REQUEST)))
    return len(inputs) / (time.perf_counter() - began)


def query_milliseconds(http: httpx.Client, encoder: Encoder, queries: int) -> tuple[float, float]:
    """The medians of a short query: of the encoder, and of the server; asked in turn."""
    own, served = [], []
    body = {"model": "pico", "input": QUERY, "task": "retrieval.query", "encoding_format": "base64"}
    for _ in range(queries):
        began = time.perf_counter()
        encoder.encode_query(QUERY)
        between = time.perf_counter()
        http.post("/v1/embeddings", json=body).raise_for_status()
        own.append(1000 * (between - began))
        served.append(1000 * (time.perf_counter() - between))
    return statistics.median(own), statistics.median(served)


def main(
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 7,
    requests: Annotated[int, typer.Option(help="Requests of 32 texts in a turn.")] = 64,
    queries: Annotated[int, typer.Option(help="Short queries in a turn.")] = 200,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when a target is missed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of Markdown.")] = False,
) -> None:
    """Compare the server with the encoder that it serves."""
    encoder = Encoder.from_pretrained("pico", device="cpu")
    inputs = texts(requests * TEXTS_A_REQUEST)
    command = [sys.executable, "-m", "jv5kit", "serve", "-m", "pico", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as server:
        try:
            assert server.stderr is not None
            found = re.search(r"http://\S+", server.stderr.readline())
            if found is None:
                raise typer.Exit(1)
            limits = httpx.Limits(max_connections=CLIENTS)
            with httpx.Client(base_url=found[0], timeout=120, limits=limits) as http:
                # Each side once, so that adapters are loaded and connections open.
                (
                    offline_rate(encoder, inputs[:64]),
                    served_rate(http, inputs[:512]),
                    query_milliseconds(http, encoder, 5),
                )
                rates = [(offline_rate(encoder, inputs), served_rate(http, inputs)) for _ in range(turns)]
                times = [query_milliseconds(http, encoder, queries) for _ in range(turns)]
        finally:
            server.terminate()
    throughput = statistics.median(served / offline for offline, served in rates)
    added = statistics.median(served - own for own, served in times)
    results = {
        "throughput": round(throughput, 3),
        "throughput_at_least": LEAST_THROUGHPUT,
        "added_ms": round(added, 3),
        "added_ms_at_most": MOST_ADDED,
        "texts_a_second": [[round(one, 1) for one in turn] for turn in rates],
        "query_ms": [[round(one, 3) for one in turn] for turn in times],
    }
    missed = throughput < LEAST_THROUGHPUT or added > MOST_ADDED
    if as_json:
        typer.echo(json.dumps({"setting": setting(), "results": results}, indent=2))
    else:
        offline, served = (statistics.median(side) for side in zip(*rates, strict=True))
        own, answered = (statistics.median(side) for side in zip(*times, strict=True))
        typer.echo("\n".join(f"- {name}: {value}" for name, value in setting().items()))
        typer.echo(
            f"- {CLIENTS} clients, {TEXTS_A_REQUEST} texts a request, base64: {served:,.0f} texts/s, the encoder "
            f"{offline:,.0f}; ratio {throughput:.2f} (at least {LEAST_THROUGHPUT})"
        )
        typer.echo(
            f"- one client, a short query, p50: {answered:.2f} ms, the encoder {own:.2f} ms; "
            f"{added:.2f} ms more (at most {MOST_ADDED:g})"
        )
    if check and missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
