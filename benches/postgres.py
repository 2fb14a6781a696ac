"""An index in PostgreSQL beside SQL written by hand, and beside an index in a folder.

Loading, rows a second: by hand the same tables are filled by COPY in binary, in transactions of as many rows as ours;
and, as the least that there could be, one table of documents with a ``bit(n)`` column, by one COPY. Queries, the median
milliseconds of ten hits with their documents, exact and by HNSW (of fewer rows, for making the graph takes long): by
hand one SELECT, from the same tables and from that one. The ratio is that to the same tables. The sides take turns. The
server is one of the tests' unless --url names another.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import psycopg
import typer
from table import setting

from jv5kit import Index
from jv5kit.storage.state import Settings
from jv5kit.stores.postgres import PostgresIndex
from jv5kit.stores.postgres.adapters import Code, CodeDumper
from jv5kit.stores.postgres.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

LEAST = 0.9
"""Of the speed of SQL written by hand."""

DIM, TOP_K, ROWS_A_TRANSACTION = 256, 10, 16384

BY_HAND = (
    "CREATE TABLE by_hand (id text PRIMARY KEY, title text, text text NOT NULL, metadata jsonb NOT NULL, "
    f"code bit({DIM}) NOT NULL)"
)
ONE_TABLE = "SELECT id, title, text, metadata, code <~> %s FROM by_hand ORDER BY code <~> %s LIMIT 10"
TWO_TABLES = (
    "SELECT d.id, d.title, d.text, d.metadata, c.distance FROM "
    "(SELECT row, code <~> %s AS distance FROM {codes} ORDER BY code <~> %s LIMIT 10) c JOIN {documents} d USING (row)"
)


def codes_of(count: int, seed: int) -> NDArray[np.uint8]:
    """Codes around 1,000 centres, as those of texts are: a tenth of the bits differ."""
    centres = np.random.default_rng(0).integers(0, 2, (1000, DIM), np.uint8)
    generator = np.random.default_rng(seed)
    codes = np.empty((count, DIM // 8), np.uint8)
    for start in range(0, count, 65536):
        part = centres[generator.integers(0, 1000, min(65536, count - start))]
        codes[start : start + len(part)] = np.packbits(part ^ (generator.random(part.shape) < 0.1), axis=1)
    return codes


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """The URL of a server, ours unless one is named."""
    if url is not None:
        yield url
        return
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from postgres_server import Place, PostgresServer

    place = Place()
    started = PostgresServer.made(place, "bench")
    started.configure("shared_buffers = 1GB\nmaintenance_work_mem = 1GB\nmax_wal_size = 8GB\n")
    started.start()
    try:
        yield started.url("bench")
    finally:
        started.stop()
        place.remove()


def connected(url: str) -> psycopg.Connection:
    """A connection to the server of an index's URL."""
    connection = psycopg.connect(url.replace("index=bench", ""), autocommit=True)
    connection.adapters.register_dumper(Code, CodeDumper)
    return connection


def load_by_hand(connection: psycopg.Connection, codes: NDArray[np.uint8]) -> float:
    """Rows a second of one COPY in binary."""
    connection.execute("DROP TABLE IF EXISTS by_hand")
    connection.execute(BY_HAND)
    began = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy("COPY by_hand FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["text", "text", "text", "jsonb", "bit"])
        for row, code in enumerate(codes):
            copy.write_row((str(row), None, "", {}, Code(code.tobytes())))
    taken = time.perf_counter() - began
    connection.execute("ANALYZE by_hand")
    return len(codes) / taken


def load_tables_by_hand(connection: psycopg.Connection, codes: NDArray[np.uint8]) -> float:
    """Rows a second of COPY into the tables that ours has, which are made as ours are."""
    tables, settings = Tables(0), Settings(DIM, "ubinary", DIM, rescore="none")
    tables.drop(connection)
    tables.create(connection, settings)
    began = time.perf_counter()
    for start in range(0, len(codes), ROWS_A_TRANSACTION):
        part = codes[start : start + ROWS_A_TRANSACTION]
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy(f"COPY {tables.documents} FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "text", "text", "text", "text"])
                for row in range(start, start + len(part)):
                    copy.write_row((row, str(row), None, "", "{}"))
            with cursor.copy(f"COPY {tables.codes} FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "bit", "jsonb"])
                for row, code in enumerate(part, start):
                    copy.write_row((row, Code(code.tobytes()), None))
    tables.analyze(connection)
    taken = time.perf_counter() - began
    tables.drop(connection)
    return len(codes) / taken


def load_ours(connection: psycopg.Connection, url: str, codes: NDArray[np.uint8]) -> float:
    """Rows a second of :meth:`PostgresIndex.build`, where there was no such index, as there were no tables by hand."""
    if connection.execute("SELECT to_regclass('jv5kit_indexes')").fetchone() != (None,):
        for (number,) in connection.execute("DELETE FROM jv5kit_indexes WHERE name = 'bench' RETURNING number"):
            Tables(number).drop(connection)
    began = time.perf_counter()
    PostgresIndex.build(url, embeddings=codes, show_progress_bar=False).close()
    return len(codes) / (time.perf_counter() - began)


def milliseconds(ask: Callable[[NDArray[np.uint8]], Any], query: NDArray[np.uint8]) -> float:
    """How long a question takes."""
    began = time.perf_counter()
    ask(query)
    return 1000 * (time.perf_counter() - began)


def in_turn(sides: dict[str, Callable[[NDArray[np.uint8]], Any]], queries: NDArray[np.uint8]) -> dict[str, list[float]]:
    """The milliseconds of each query on each side, which take turns; the first few are not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number, query in enumerate(queries):
        for name, ask in sides.items():
            taken = milliseconds(ask, query)
            if number >= 3:
                times[name].append(taken)
    return times


def by_hand(connection: psycopg.Connection, statement: str) -> Callable[[NDArray[np.uint8]], list[str]]:
    """One SELECT."""

    def ask(query: NDArray[np.uint8]) -> list[str]:
        code = Code(query.tobytes())
        return [row[0] for row in connection.execute(statement, (code, code))]

    return ask


def sides_of(connection: psycopg.Connection, index: PostgresIndex) -> dict[str, Callable[[NDArray[np.uint8]], Any]]:
    """What asks the server: by hand in one table, by hand in the tables of an index, and the index."""
    found = connection.execute("SELECT number FROM jv5kit_indexes WHERE name = 'bench'").fetchone()
    assert found is not None
    tables = Tables(found[0])
    return {
        "one table": by_hand(connection, ONE_TABLE),
        "by hand": by_hand(connection, TWO_TABLES.format(codes=tables.codes, documents=tables.documents)),
        "ours": ours(index),
    }


def ours(index: PostgresIndex | Index) -> Callable[[NDArray[np.uint8]], list[str]]:
    """One search."""
    return lambda query: [hit.id for hit in index.search(query, TOP_K)]


def recall(found: list[list[str]], expected: list[list[str]]) -> float:
    """Of the nearest, how many were found."""
    pairs = zip(found, expected, strict=True)
    return statistics.mean(len(set(one) & set(other)) / len(other) for one, other in pairs)


def main(
    rows: Annotated[int, typer.Option(help="Rows to load and to search exactly.")] = 1_000_000,
    graph_rows: Annotated[int, typer.Option(help="Rows to search by HNSW.")] = 200_000,
    turns: Annotated[int, typer.Option(help="Times that each side loads.")] = 5,
    queries: Annotated[int, typer.Option(help="Queries of each kind.")] = 50,
    url: Annotated[
        str | None, typer.Option(help="A server to use, with index=bench (default: one of our own).")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when a target is missed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of Markdown.")] = False,
) -> None:
    """Compare an index in PostgreSQL with SQL written by hand."""
    codes, asked = codes_of(rows, 1), codes_of(queries + 3, 2)
    with server(url) as place, connected(place) as connection, tempfile.TemporaryDirectory() as folder:
        rates: list[tuple[float, float, float]] = []
        for _ in range(turns):
            turn = []
            for fill in (load_by_hand, load_tables_by_hand):
                turn.append(fill(connection, codes))
                # What the one wrote is not for the other to put on disk.
                connection.execute("CHECKPOINT")
            rates.append((turn[0], turn[1], load_ours(connection, place, codes)))
            connection.execute("CHECKPOINT")
        own = Index.build(f"{folder}/x.jv5", embeddings=codes, show_progress_bar=False)
        with PostgresIndex.open(place) as index:
            exact = in_turn(sides_of(connection, index) | {"folder": ours(own)}, asked)
        few = codes[:graph_rows]
        load_by_hand(connection, few)
        connection.execute("CREATE INDEX ON by_hand USING hnsw (code bit_hamming_ops)")
        began = time.perf_counter()
        options: dict[str, Any] = {"embeddings": few, "hnsw": True, "force": True, "show_progress_bar": False}
        with PostgresIndex.build(place, **options) as index:
            built = time.perf_counter() - began
            sides = sides_of(connection, index)
            graph = in_turn(sides, np.concatenate([asked] * 4))
            truth = [[hit.id for hit in index.search(query, TOP_K, mode="ubinary")] for query in asked]
            kept = {name: recall([ask(query) for query in asked], truth) for name, ask in sides.items()}
    medians = {name: statistics.median(times) for name, times in exact.items()}
    by_graph = {name: statistics.median(times) for name, times in graph.items()}
    load = statistics.median(ours / tables for _, tables, ours in rates)
    least = statistics.median(ours / table for table, _, ours in rates)
    results: dict[str, Any] = {
        "load_rows_a_second": [[round(one) for one in turn] for turn in rates],
        "load_ratio": round(load, 3),
        "load_ratio_to_one_table": round(least, 3),
        "exact_ms": {name: round(time, 2) for name, time in medians.items()},
        "exact_ratio": round(medians["by hand"] / medians["ours"], 3),
        "hnsw_rows": graph_rows,
        "hnsw_build_s": round(built, 1),
        "hnsw_ms": {name: round(time, 2) for name, time in by_graph.items()},
        "hnsw_ratio": round(by_graph["by hand"] / by_graph["ours"], 3),
        "hnsw_recall": {name: round(one, 3) for name, one in kept.items()},
    }
    if as_json:
        typer.echo(json.dumps({"setting": setting(), "results": results}, indent=2))
    else:
        typer.echo("\n".join(f"- {name}: {value}" for name, value in setting().items()) + "\n")
        typer.echo(markdown(results, rows, rates, medians, by_graph))
    if check and min(results[f"{name}_ratio"] for name in ("load", "exact", "hnsw")) < LEAST:
        raise typer.Exit(1)


def markdown(
    results: dict[str, Any],
    rows: int,
    rates: list[tuple[float, float, float]],
    medians: dict[str, float],
    by_graph: dict[str, float],
) -> str:
    """The results as a table."""
    load = (statistics.median(side) for side in zip(*rates, strict=True))
    kept = results["hnsw_recall"]
    rows_a_second = " | ".join(f"{rate:,.0f}" for rate in load)

    def times(of: dict[str, float]) -> str:
        return " | ".join(f"{of[name]:.2f}" for name in ("one table", "by hand", "ours"))

    return "\n".join(
        [
            f"| {DIM} bits, ten hits | by hand, one table | by hand, our tables | ours | ratio | index in a folder |",
            "|---|---|---|---|---|---|",
            f"| load {rows:,} codes, rows/s | {rows_a_second} | {results['load_ratio']:.2f} | |",
            f"| exact, of {rows:,}, ms | {times(medians)} | {results['exact_ratio']:.2f} | {medians['folder']:.2f} |",
            f"| HNSW, of {results['hnsw_rows']:,}, ms | {times(by_graph)} | {results['hnsw_ratio']:.2f} | |",
            f"| recall of HNSW | {times(kept)} | | |",
        ]
    )


if __name__ == "__main__":
    typer.run(main)
