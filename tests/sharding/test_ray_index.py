"""An index on a Ray cluster: exact, whatever is killed, and never without a shard."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alike import assert_same, both, rows
from clusters import actors, kill
from command import Inside, run, write_jsonl

from jv5kit import Index, retrieval
from jv5kit.errors import IndexDamagedError, IndexNotFoundError, InputError, Jv5kitError
from jv5kit.sharding.ray_shards import publish, published, unpublish
from jv5kit.stores import store_class
from jv5kit.stores.ray import RayIndex
from jv5kit.stores.sharded import ShardedIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusters import Cluster

NAME = "parts"


@pytest.fixture(scope="module")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index, of which the same in two shards is published, each by two actors."""
    folder = tmp_path_factory.mktemp("ray")
    one, parts = both(folder, 2)
    parts.close()
    publish(cluster.ray, folder / "parts.jv5s", NAME, replicas=2)
    yield one
    unpublish(cluster.ray, NAME)


@pytest.fixture
def index(cluster: Cluster, whole: Index) -> RayIndex:
    return RayIndex.open(f"jv5+ray://{cluster.address}/{NAME}")


def test_it_is_the_index(whole: Index, index: RayIndex) -> None:
    assert_same(whole, index, sizes=[1, 50])
    assert index.name.endswith("/parts")
    assert index.folder == whole.path.parent / "parts.jv5s"


def test_what_is_deleted_by_either_name_is_taken_up(whole: Index, index: RayIndex) -> None:
    with ShardedIndex.open(index.folder) as by_path:
        for one, ids in ((index, ["d1", "d390"]), (by_path, ["d2", "d300"])):
            assert one.delete(ids) == whole.delete(ids) == 2
            assert_same(whole, index, sizes=[9])
    for changed in (whole, index):
        changed.upsert([{"id": "d5", "text": "new"}], embeddings=rows(1, seed=9))
    assert_same(whole, index, sizes=[500])


def test_a_killed_actor_is_not_waited_for(whole: Index, index: RayIndex) -> None:
    """The other one of its shard answers, and it comes back."""
    queries = rows(5, seed=2)
    expected = whole.search(queries, 20)
    before = actors("ShardActor")
    assert len(before) == 4
    for process in before[::2]:
        kill(process)
        began = time.monotonic()
        assert index.search(queries, 20) == expected
        assert time.monotonic() - began < 60
    for _ in range(600):
        if len(actors("ShardActor")) == 4:
            break
        time.sleep(0.1)
    assert len(actors("ShardActor")) == 4
    assert_same(whole, index, sizes=[9])


def test_an_actor_that_hangs_is_not_waited_for(whole: Index, index: RayIndex) -> None:
    queries = rows(5, seed=5)
    expected = whole.search(queries, 20)
    for process in actors("ShardActor"):
        os.kill(process, signal.SIGSTOP)
        try:
            assert index.search(queries, 20) == expected
        finally:
            os.kill(process, signal.SIGCONT)


def test_a_killed_machine(cluster: Cluster, whole: Index, index: RayIndex) -> None:
    queries = rows(5, seed=3)
    expected = whole.search(queries, 20)
    cluster.kill_node()
    for _ in range(3):
        assert index.search(queries, 20) == expected
    cluster.add_node()
    assert_same(whole, RayIndex.open(index.name), sizes=[9])


def test_without_replicas_a_killed_shard_is_waited_for(cluster: Cluster, whole: Index) -> None:
    publish(cluster.ray, whole.path.parent / "parts.jv5s", "alone")
    index = RayIndex.open(f"jv5+ray://{cluster.address}/alone")
    own = set(actors("ShardActor"))
    queries = rows(5, seed=4)
    expected = whole.search(queries, 20)
    # Those of the other name have answered before: the two youngest are these.
    for process in sorted(own)[-2:]:
        kill(process)
    assert index.search(queries, 20) == expected
    assert unpublish(cluster.ray, "alone") == 2
    with pytest.raises(IndexNotFoundError, match=r"no index is published as 'alone' at .* \(there is: parts\)"):
        index.search(queries, 20)


def test_a_shard_without_an_actor_is_an_error_in_the_end(
    cluster: Cluster, index: RayIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jv5kit.sharding.ray_shards.WAIT_SECONDS", -1.0)
    with pytest.raises(Jv5kitError, match=r"no actor of shard 0 of 'parts' has answered for .*see with 'ray status"):
        index.search(rows(1))


def test_a_missing_part_is_named_and_nothing_is_published(cluster: Cluster, tmp_path: Path) -> None:
    both(tmp_path, 2)
    segments = tmp_path / "parts.jv5s" / "000001" / "00001" / "segments"
    segments.rename(tmp_path / "elsewhere")
    with pytest.raises(IndexDamagedError, match=r"000001/00001/segments/000001.safetensors is damaged: it is missing"):
        publish(cluster.ray, tmp_path / "parts.jv5s", "broken")
    assert "broken" not in published(cluster.ray)
    with pytest.raises(IndexNotFoundError, match="holds no index in shards"):
        publish(cluster.ray, tmp_path / "nothing", "broken")


def test_the_command_line(
    cluster: Cluster, tmp_path: Path, tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JV5KIT_MODEL", str(tiny_model))
    write_jsonl(tmp_path / "docs.jsonl", [{"text": f"the penguin {i % 11}", "n": i} for i in range(60)])
    inside("index", "docs.jsonl")
    outcome = inside("index", "docs.jsonl", "--shards", "2", "--workers", "2", "--ray", cluster.address, "--json")
    url = f"jv5+ray://{cluster.address}/docs"
    last = json.loads(outcome.stdout.splitlines()[-1])
    assert last == {"index": "docs.jv5s", "documents": 60, "skipped": 0, "published": url}
    expected = json.loads(inside("search", "a penguin", "-k", "20", "--json").stdout)["hits"]
    # From a process that knows the address alone.
    found = run("search", "a penguin", "-k", "20", "--json", "--index", url, cwd=tmp_path, JV5KIT_MODEL=str(tiny_model))
    assert json.loads(found.stdout)["hits"] == expected
    assert found.stderr == ""
    # By the function, which keeps what is open, and takes up what another one has deleted.
    assert [hit.to_dict() for hit in retrieval.search("a penguin", url, top_k=20)] == expected
    inside("delete", "--where", "n < 30", "--index", url)
    inside("delete", "--where", "n < 30")
    found_now = [hit.to_dict() for hit in retrieval.search("a penguin", url, top_k=60)]
    assert found_now == json.loads(inside("search", "a penguin", "-k", "60", "--json").stdout)["hits"]
    assert len(found_now) == 30
    assert inside("publish", "docs.jv5s", "--ray", cluster.address, "--stop").stderr == "docs: 2 actors ended\n"
    outcome = inside("search", "ice", "--index", url, code=2)
    assert f"no index is published as 'docs' at {cluster.address}" in outcome.stderr
    outcome = inside("publish", "docs.jv5s", "--ray", cluster.address, "--stop", code=2)
    assert f"no index is published as 'docs' at {cluster.address}; there is: parts" in outcome.stderr


def test_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Which ends with the process, and publishes what it is asked for."""
    pytest.importorskip("ray")
    whole, _ = both(tmp_path, 2)
    np.save(tmp_path / "q.npy", rows(3, seed=6))
    arguments = ["search", "--embeddings", "q.npy", "--json", "--index", "jv5+ray://local/parts"]
    # Ray leaves a token in the home of who starts a cluster so.
    outcome = run(*arguments, cwd=tmp_path, HOME=str(tmp_path))
    found = [json.loads(line)["hits"] for line in outcome.stdout.splitlines()]
    assert found == [[hit.to_dict() for hit in hits] for hits in whole.search(rows(3, seed=6))]


def test_wrong_names(tmp_path: Path, inside: Inside) -> None:
    pytest.importorskip("ray")
    wrong: list[tuple[Any, str]] = [
        ("jv5+ray://auto", r"jv5\+ray://auto is no jv5\+ray://ADDRESS/NAME"),
        ("jv5+ray:///name", r"is no jv5\+ray://ADDRESS/NAME"),
    ]
    for url, message in wrong:
        assert store_class(url) is RayIndex
        with pytest.raises(InputError, match=message):
            RayIndex.open(url)
    outcome = inside("publish", str(tmp_path), "--ray", "local", code=2)
    assert "--ray local ends with this command, and what it publishes too" in outcome.stderr
