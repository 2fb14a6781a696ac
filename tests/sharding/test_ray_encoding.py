"""Encoding on a Ray cluster: the bytes of an undisturbed run in one process, whatever is killed on the way."""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from clusters import actors, kill
from command import run, write_jsonl

from jv5kit.errors import InputError, Jv5kitError, MissingExtraError
from jv5kit.sharding.encode_job import EncodeJob
from jv5kit.sharding.encoding import Encoding
from jv5kit.sharding.engines import ThisProcess
from jv5kit.sharding.ranges import cut
from jv5kit.sharding.ray_cluster import RayWorkers, connected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusters import Cluster
    from command import Inside

    from jv5kit.sharding.engines import Engine

SHARDS = 24
COUNT = 3000


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "docs.jsonl", [{"text": f"the penguin {i} " + "swims " * (i % 30)} for i in range(COUNT)])
    return tmp_path / "docs.jsonl"


@pytest.fixture
def job(docs: Path, tiny_model: Path) -> Callable[[str], EncodeJob]:
    """A job that writes to a folder of that name."""
    return lambda name: EncodeJob(docs, cut(docs, SHARDS), Encoding.of(str(tiny_model)), docs.parent / name)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def done(job: EncodeJob, engine: Engine, disturb: Callable[[], object] = lambda: None) -> dict[str, bytes]:
    """What a job writes; the disturbance comes when a quarter of it is done."""
    with job.open() as there:
        for number, _ in enumerate(chain(there, job.run(there, engine)), 1):
            if number == SHARDS // 4:
                disturb()
    assert number == SHARDS
    return contents(job.folder)


def test_a_killed_worker_and_a_killed_machine(cluster: Cluster, job: Callable[[str], EncodeJob]) -> None:
    undisturbed = done(job("undisturbed"), ThisProcess())
    engine = RayWorkers(cluster.address, 2)
    assert done(job("worker"), engine, lambda: kill(actors("_Actor")[0])) == undisturbed
    assert done(job("machine"), engine, cluster.kill_node) == undisturbed
    cluster.add_node()


def test_the_command_beside_a_cluster(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    """From another process, which names the address; what it finds wrong ends in one line, as ever."""
    write_jsonl(tmp_path / "docs.jsonl", [{"text": "ice"}, {"text": "sea"}, {"text": 7}])
    arguments = ["encode", "docs.jsonl", "-o", "shards", "--shards", "2", "--ray", cluster.address]
    bad = "docs.jsonl:3 (byte 32): 'text' must be a string, but is 7"
    outcome = run(*arguments, cwd=tmp_path, code=2, JV5KIT_MODEL=str(tiny_model))
    assert outcome.stderr.splitlines()[0] == f"jv5kit: {bad}"
    outcome = run(*arguments, "--skip-invalid", cwd=tmp_path, JV5KIT_MODEL=str(tiny_model))
    assert outcome.stderr == f"jv5kit: skipped: {bad}\n1 documents were skipped\nshards: 2 embeddings in 2 shards\n"
    assert outcome.stdout == ""


def test_an_address_where_there_is_no_cluster(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(Jv5kitError, match=r"no Ray cluster at 127.0.0.1:1: .*refused; start one with 'ray start"):
        next(RayWorkers("127.0.0.1:1").run(lambda: str, [1]))
    with (
        pytest.raises(Jv5kitError, match=r"no Ray cluster at nowhere.invalid:6379: "),
        connected("nowhere.invalid:6379"),
    ):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(Jv5kitError, match=r"no Ray cluster at 127.0.0.1:1"), connected("auto"):
        pass
    with pytest.raises(InputError, match="'somewhere' is no address of a Ray cluster: give HOST:PORT, auto or local"):
        next(RayWorkers("somewhere").run(lambda: str, [1]))


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"^a Ray cluster needs ray: pip install 'jv5kit\[ray\]'$"):
        next(RayWorkers("auto").run(lambda: str, [1]))
