"""An index on a Ray cluster of three raylets on this machine, beside the same documents in one index.

The hits are compared, to the last bit, before anything is timed. The sides take turns, and the result is the median
over the turns: other work on the machine slows both. Then a raylet is killed, with the shard that it has, and the first
answer is waited for; it is compared as well.
"""

import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from table import setting

from jv5kit import Index
from jv5kit.sharding.ray_cluster import attach, load_ray
from jv5kit.sharding.ray_shards import publish
from jv5kit.stores import Store
from jv5kit.stores.ray import RayIndex
from jv5kit.stores.sharded import ShardedIndex

RAYLETS = 3
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
DIM = 256
BATCH = 200

WATCHED = 10.0
"""Seconds after a raylet was killed in which queries are asked, at least."""


def milliseconds(search: Callable[[], Any]) -> float:
    """How long a search takes."""
    began = time.perf_counter()
    search()
    return 1000 * (time.perf_counter() - began)


def times(sides: dict[str, Store], queries: Any, turns: int) -> dict[str, float]:
    """The median of each side, in milliseconds; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            found[name].append(milliseconds(lambda: side.search(queries, 10)))  # noqa: B023  # called at once
    return {name: statistics.median(each) for name, each in found.items()}


def wait_after_kill(cluster: Any, raylet: Any, index: Store, query: Any, expected: Any) -> float:
    """Kill a raylet while queries are asked, whose answers must stay the same; returns the longest wait, in seconds."""
    killing = threading.Thread(target=cluster.remove_node, args=(raylet,), kwargs={"allow_graceful": False})
    killing.start()
    longest, until = 0.0, time.perf_counter() + WATCHED
    while killing.is_alive() or time.perf_counter() < until:
        began = time.perf_counter()
        assert index.search(query, 10) == expected
        longest = max(longest, time.perf_counter() - began)
    return longest


def main(
    documents: Annotated[int, typer.Option(help="Documents in the index.")] = 200_000,
    turns: Annotated[int, typer.Option(help="Turns of each side.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of Markdown.")] = False,
) -> None:
    """Measure what searching on Ray costs beside one index, and the wait after a machine is lost."""
    ray = load_ray()
    from ray.cluster_utils import Cluster

    make: Any = Cluster
    cluster = make(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    raylets = [cluster.add_node(**NODE) for _ in range(RAYLETS - 1)]
    generator = np.random.default_rng(0)
    embeddings = generator.standard_normal((documents, DIM)).astype(np.float32)
    queries = generator.standard_normal((BATCH, DIM)).astype(np.float32)
    with TemporaryDirectory() as folder:
        one = Index.build(Path(folder) / "one.jv5", embeddings=embeddings)
        parts = ShardedIndex.build(Path(folder) / "parts.jv5s", embeddings=embeddings, shards=RAYLETS)
        attach(cluster.address)
        publish(ray, parts.folder, "one-actor")
        on_ray = RayIndex.open(f"jv5+ray://{cluster.address}/one-actor")
        sides: dict[str, Store] = {"one index": one, "three shards, here": parts, "three shards, Ray": on_ray}
        expected = one.search(queries, 10)
        assert all(side.search(queries, 10) == expected for side in sides.values())
        assert all(side.search(queries[0], 10) == expected[0] for side in sides.values())
        rows = {
            "one query": times(sides, queries[0], 5 * turns),
            f"{BATCH} queries": times(sides, queries, turns),
        }
        waits = {"one actor a shard": wait_after_kill(cluster, raylets[0], on_ray, queries[0], expected[0])}
        cluster.add_node(**NODE)
        publish(ray, parts.folder, "two-actors", replicas=2)
        doubled = RayIndex.open(f"jv5+ray://{cluster.address}/two-actors")
        assert doubled.search(queries, 10) == expected
        waits["two actors a shard"] = wait_after_kill(cluster, raylets[1], doubled, queries[0], expected[0])
        assert doubled.search(queries, 10) == expected
        ray.shutdown()
        cluster.shutdown()
    facts = setting(ray=ray.__version__, documents=f"{documents:,} of {DIM} bits, rescored with int8 rows; top 10")
    if as_json:
        typer.echo(json.dumps({"setting": facts, "milliseconds": rows, "seconds_after_kill": waits}, indent=2))
        return
    typer.echo("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    typer.echo(f"\n| ms | {' | '.join(sides)} | overhead of Ray |\n|---|--:|--:|--:|--:|")
    for what, each in rows.items():
        figures = " | ".join(f"{time:.2f}" for time in each.values())
        typer.echo(f"| {what} | {figures} | {each['three shards, Ray'] - each['one index']:.2f} |")
    typer.echo("\n| a raylet is killed | longest wait for an answer, s |\n|---|--:|")
    for what, seconds in waits.items():
        typer.echo(f"| {what} | {seconds:.2f} |")


if __name__ == "__main__":
    typer.run(main)
