"""Encoding on a Ray cluster: the bytes of an undisturbed run in one process, whatever is killed on the way."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from clusters import actors, kill
from command import checked, environment, run, write_jsonl

from jv5kit.errors import Jv5kitError
from jv5kit.sharding.encode_job import EncodeJob
from jv5kit.sharding.encoding import Encoding
from jv5kit.sharding.engines import ThisProcess
from jv5kit.sharding.ranges import cut
from jv5kit.sharding.ray_cluster import RayWorkers, attach

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


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"no Ray cluster at 127.0.0.1:1, .*refused; start one with 'ray start --head'"),
        ("nowhere.invalid:6379", r"no Ray cluster at nowhere.invalid:6379, "),
        ("auto", r"no Ray cluster at 127.0.0.1:2, "),
        ("somewhere", "'somewhere' is no address of a Ray cluster: give HOST:PORT, auto or local"),
    ],
)
def test_an_address_where_there_is_no_cluster(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    with pytest.raises(Jv5kitError, match=message):
        next(RayWorkers(address).run(lambda: str, [1]))
    # Nothing is begun then.
    write_jsonl(tmp_path / "docs.jsonl", [{"text": "ice"}])
    arguments = ["encode", str(tmp_path / "docs.jsonl"), "-o", str(tmp_path / "shards"), f"--ray={address}"]
    inside(*arguments, code=2 if address == "somewhere" else 1)
    assert not (tmp_path / "shards").exists()


def test_a_process_is_connected_with_one_cluster(cluster: Cluster) -> None:
    with pytest.raises(Jv5kitError, match=f"connected with the Ray cluster at {cluster.address}, and cannot be with"):
        attach("127.0.0.1:3")
    assert attach("auto") is cluster.ray


WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
from jv5kit.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments", [["encode", "x.jsonl", "-o", "y", "--ray"], ["search", "x", "--index", "jv5+ray://auto/x"]]
)
def test_without_ray(arguments: list[str]) -> None:
    """In a process of its own: one that is connected cannot do without."""
    command = [sys.executable, "-c", WITHOUT_RAY, *arguments]
    outcome = checked(subprocess.run(command, env=environment(), capture_output=True, timeout=100, check=False), 1)
    assert outcome.stderr == "jv5kit: a Ray cluster needs ray: pip install 'jv5kit[ray]'\n"
