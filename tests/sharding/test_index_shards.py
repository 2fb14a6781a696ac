"""``jv5kit index --shards N``: the index that the command makes without it, in parts."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import COMMAND, Inside, checked, environment, run, write_jsonl

from jv5kit import Index
from jv5kit.sharding.building import build_shard
from jv5kit.sources import Source
from jv5kit.storage.state import Settings
from jv5kit.stores.sharded import ShardedIndex

QUERIES = ["the penguin 3", "a bird that swims in the cold sea", "ice"]


def documents(count: int = 120) -> list[dict[str, Any]]:
    """Documents, every third without an id, many of them with the same text."""
    return [
        ({"id": f"é{i}"} if i % 3 else {}) | {"text": f"the penguin {i % 11} " + "swims " * (i % 7), "n": i}
        for i in range(count)
    ]


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``docs.jsonl``; the tiny model is the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JV5KIT_MODEL", str(tiny_model))
    write_jsonl(tmp_path / "docs.jsonl", documents())
    return tmp_path


def assert_same(whole: str = "docs.jv5", parts: str = "docs.jv5s") -> None:
    """Both indexes give the same hits, to the last bit."""
    with Index.open(whole) as one, ShardedIndex.open(parts) as other:
        for top_k in (1, 10, 1000):
            assert other.search(QUERIES, top_k) == one.search(QUERIES, top_k)
            assert other.search(QUERIES, top_k, filter="n >= 30") == one.search(QUERIES, top_k, filter="n >= 30")
        assert len(other) == len(one)
        assert other.settings == one.settings


OPTIONS = [
    [],
    ["--precision", "int8", "--dim", "24"],
    ["--precision", "float32"],
    ["--rescore", "none"],
    ["--passages", "24"],
    ["--rotate"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_index_without_shards(here: Path, inside: Inside, options: list[str]) -> None:
    inside("index", "docs.jsonl", *options)
    outcome = inside("index", "docs.jsonl", "--shards", "3", "--json", *options)
    *shards, last = map(json.loads, outcome.stdout.splitlines())
    assert [one["shard"] for one in shards] == [f"0000{i}-of-00003" for i in range(3)]
    assert sum(one["documents"] for one in shards) == last["documents"] == 120
    assert last["index"] == "docs.jv5s"
    assert_same()


def test_several_processes_build_it(here: Path, inside: Inside) -> None:
    inside("index", "docs.jsonl")
    outcome = inside("index", "docs.jsonl", "--shards", "5", "--workers", "2")
    assert outcome.stderr.startswith("docs.jv5s: 120 documents, 64 dimensions, ubinary, ")
    assert_same()


def test_the_other_commands_take_it(here: Path, inside: Inside) -> None:
    inside("index", "docs.jsonl", "--shards", "3")
    inside("index", "docs.jsonl")
    for name in ("docs.jv5", "docs.jv5s"):
        inside("delete", "é1", "121", "--index", name)
        inside("delete", "--where", "n >= 100", "--index", name)
        write_jsonl(here / "more.jsonl", [{"id": "é2", "text": "new"}, {"id": "more", "text": "ice", "n": 400}])
        inside("index", "more.jsonl", "-o", name, "--upsert")
    assert_same()
    assert json.loads(inside("get", "more", "--index", "docs.jv5s").stdout) == {"id": "more", "text": "ice", "n": 400}
    facts = json.loads(inside("info", "docs.jv5s", "--json").stdout)
    assert (facts["documents"], facts["precision"]) == (100, "ubinary")
    found = [inside("search", "ice", "-k", "3", "--json", "--index", name).stdout for name in ("docs.jv5", "docs.jv5s")]
    assert json.loads(found[0])["hits"] == json.loads(found[1])["hits"]


@pytest.mark.parametrize("arguments", [["compact"], ["export", "-o", "x"]])
def test_what_is_not_for_shards_says_so(here: Path, inside: Inside, arguments: list[str]) -> None:
    inside("index", "docs.jsonl", "--shards", "2")
    outcome = inside(*arguments, "docs.jv5s", code=2)
    assert outcome.stderr.endswith("it is one in shards, which this is not for\n")


def test_every_shard_is_verified(here: Path, inside: Inside) -> None:
    inside("index", "docs.jsonl", "--shards", "3")
    before = {path: path.read_bytes() for path in Path("docs.jv5s").rglob("*") if path.is_file()}
    assert "every block, document and id" in inside("info", "docs.jv5s", "--verify").stdout
    # Nothing is written where nothing ever is.
    assert {path: path.read_bytes() for path in Path("docs.jv5s").rglob("*") if path.is_file()} == before
    first, second, third = sorted(Path("docs.jv5s").glob("0*/*"))
    data = bytearray((segment := next((first / "segments").iterdir())).read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    shutil.rmtree(third)
    outcome = inside("info", "docs.jv5s", "--verify", "--json", code=1)
    damaged = json.loads(outcome.stdout)["damaged"]
    assert outcome.stderr.splitlines() == [f"jv5kit: {problem}" for problem in damaged]
    assert [str(segment) in damaged[0], f"{third} is damaged: shard 2 of 3 is missing" in damaged[1]] == [True, True]
    connection = sqlite3.connect(second / "index.sqlite")
    connection.execute("UPDATE documents SET text = 'forged' WHERE row = (SELECT max(row) FROM documents)")
    connection.commit()
    connection.close()
    assert len(json.loads(inside("info", "docs.jv5s", "--verify", "--json", code=1).stdout)["damaged"]) == 3
    (Path("docs.jv5s") / "shards.json").write_text("{}")
    assert "shards.json is damaged" in inside("info", "docs.jv5s", "--verify", code=1).stderr


def test_a_disk_that_is_full_at_the_very_end(here: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shards are built; they wait for the same command."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jv5kit.sharding.building.publish", full)
        assert "No space left" in inside("index", "docs.jsonl", "--shards", "2", code=1).stderr
    built = {path: path.stat().st_mtime_ns for path in Path("docs.jv5s/building").glob("0*/head")}
    assert len(built) == 2
    inside("index", "docs.jsonl", "--shards", "2")
    assert {path.stat().st_mtime_ns for path in Path("docs.jv5s").glob("000001/0*/head")} == set(built.values())
    assert [path.name for path in Path("docs.jv5s/000001").iterdir()].count("manifest.json") == 0


def test_a_shard_that_another_attempt_has_built(tmp_path: Path) -> None:
    settings, source = Settings(16, "ubinary", 16, rescore="none"), Source(embeddings=np.eye(5, 16, dtype=np.float32))
    for _ in range(2):
        assert build_shard(tmp_path / "00000", settings, source) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["00000"]


@pytest.mark.parametrize("arguments", [["--replicas", "3"], ["--replicas", "2", "--ray", "local"], ["--replicas", "0"]])
def test_replicas_that_nobody_would_be(here: Path, inside: Inside, arguments: list[str]) -> None:
    outcome = inside("index", "docs.jsonl", "--shards", "2", *arguments, code=2)
    assert "how many actors of a cluster answer for each shard, at least 1" in outcome.stderr


def test_bad_lines_and_ids_that_are_taken(here: Path, inside: Inside) -> None:
    lines = (here / "docs.jsonl").read_bytes().splitlines(keepends=True)
    lines[50:50] = [b"[7]\n"]
    # Taken in the same shard, in another one, and by a line number.
    lines += [
        b'{"id": "\xc3\xa9118", "text": "again"}\n',
        b'{"id": "\xc3\xa91", "text": "again"}\n',
        b'{"id": "4", "text": "x"}\n',
    ]
    (here / "docs.jsonl").write_bytes(b"".join(lines))
    outcome = inside("index", "docs.jsonl", "--shards", "3", code=2)
    at = len(b"".join(lines[:50]))
    assert outcome.stderr.splitlines()[0] == f"jv5kit: docs.jsonl:51 (byte {at}): not a JSON object, but a list"
    outcome = inside("index", "docs.jsonl", "--shards", "3", "--skip-invalid", "--force")
    assert outcome.stderr.splitlines()[-2].endswith("4 documents were skipped")
    assert "the id 'é118' is taken by an earlier document" in outcome.stderr
    assert "skipped: the id 'é1' of a document in shard 2 is taken by an earlier one" in outcome.stderr
    inside("index", "docs.jsonl", "--skip-invalid")
    assert_same()
    del lines[50]
    (here / "docs.jsonl").write_bytes(b"".join(lines[:120] + lines[121:]))
    outcome = inside("index", "docs.jsonl", "--shards", "3", "--force", code=2)
    assert "the id '4' of a document in shard 2 is taken by an earlier one" in outcome.stderr
    # What was there is there still.
    assert_same()


@pytest.fixture
def many(here: Path, inside: Inside) -> Path:
    """A folder with more documents, and the index of them."""
    write_jsonl(here / "docs.jsonl", documents(3000))
    inside("index", "docs.jsonl")
    return here


def begun(folder: Path, model: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A job that has a shard done, and has others to do."""
    command = [*COMMAND, "index", "docs.jsonl", "--shards", "12", "--json", "-m", str(model), *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()).keys() == {"shard", "documents"}
    return process


def test_a_worker_is_killed(many: Path, tiny_model: Path) -> None:
    process = begun(many, tiny_model, "--workers", "2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    out, errors = process.communicate(timeout=100)
    checked(subprocess.CompletedProcess([], process.returncode, out, errors), 0)
    assert_same()


@pytest.mark.parametrize("force", [False, True])
def test_the_job_is_killed(many: Path, tiny_model: Path, inside: Inside, force: bool) -> None:
    arguments = ["--force"] if force else []
    if force:
        write_jsonl(many / "old.jsonl", documents(5))
        inside("index", "old.jsonl", "--shards", "2", "-o", "docs.jv5s")
    process = begun(many, tiny_model, *arguments)
    process.kill()
    process.communicate(timeout=60)
    built = sorted((many / "docs.jv5s" / "building").glob("0*"))
    assert 0 < len(built) < 12
    times = {path: path.stat().st_ino for path in built}
    if force:
        # The old index answers until the new one is whole.
        with ShardedIndex.open("docs.jv5s") as old:
            assert len(old) == 5
    else:
        assert "holds no index in shards" in run("search", "ice", "--index", "docs.jv5s", code=2, cwd=many).stderr
    outcome = run("index", "docs.jsonl", "--shards", "12", "--json", "-m", tiny_model, *arguments, cwd=many)
    assert len(outcome.stdout.splitlines()) == 12 - len(built) + 1
    version = "000002" if force else "000001"
    assert {path: (many / "docs.jv5s" / version / path.name).stat().st_ino for path in built} == times
    assert not (many / "docs.jv5s" / "building").exists()
    assert_same()


def test_an_interruption_says_how_to_go_on(many: Path, tiny_model: Path) -> None:
    process = begun(many, tiny_model)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    outcome = checked(subprocess.CompletedProcess([], process.returncode, out, errors), 130)
    assert outcome.stderr.splitlines()[0].endswith(" of 12 shards are in docs.jv5s; the same command goes on")


def test_a_full_disk(here: Path, tiny_model: Path, inside: Inside) -> None:
    """A limit on the size of a file, in the place of a disk that is full."""
    arguments = ["index", "docs.jsonl", "--shards", "2", "-m", str(tiny_model)]
    limited = subprocess.run(
        [*COMMAND, *arguments],
        cwd=here,
        env=environment(),
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384)),
        check=False,
        timeout=100,
    )
    outcome = checked(limited, 1)
    assert "/docs.jv5s/building/" in outcome.stderr
    assert outcome.stderr.splitlines()[-1].endswith(
        "shards are in docs.jv5s; once that is mended, the same command goes on"
    )
    run(*arguments, cwd=here)
    inside("index", "docs.jsonl")
    assert_same()


def test_another_job_is_refused_by_name(here: Path, inside: Inside) -> None:
    (here / "bad.jsonl").write_bytes((here / "docs.jsonl").read_bytes() + b"[7]\n")
    arguments = ("index", "bad.jsonl", "-o", "docs.jv5s", "--shards", "3")
    inside(*arguments, code=2)
    for options, message in [
        (("--dim", "8"), "was begun with dim 64, not 8"),
        (("--precision", "int8"), "was begun with precision 'ubinary', not 'int8'"),
        (("--rotate",), "was begun with rotation None, not "),
    ]:
        outcome = inside(*arguments, *options, "--skip-invalid", code=2)
        assert message in outcome.stderr
        assert outcome.stderr.endswith("go on with the same, name another folder, or replace it with --force\n")
    inside(*arguments, "--skip-invalid")
    outcome = inside(*arguments, "--skip-invalid", code=2)
    assert outcome.stderr.startswith("jv5kit: docs.jv5s is an index already (120 documents); ")
    inside("index", "docs.jsonl", "--shards", "2", "--force")
    inside("index", "docs.jsonl")
    assert_same()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["docs.jsonl", "--shards", "0"], "--shards 0: it must be at least 1"),
        (["docs.jsonl", "--workers", "2"], "--workers 2 is for an index in shards: say how many with --shards N"),
        (["docs.jsonl", "--ray"], "--ray auto is for an index in shards: say how many with --shards N"),
        (["docs.jsonl", "--replicas", "2"], "--replicas 2 is for an index in shards: say how many with --shards N"),
        (
            ["docs.jsonl", "--shards", "2", "--append"],
            "--shards cuts a file of DOCUMENTS, for a folder: it goes with no",
        ),
        (
            ["--embeddings", "x.npy", "--shards", "2"],
            "--shards cuts a file of DOCUMENTS, for a folder: it goes with no",
        ),
        (["docs.jsonl", "--shards", "2", "--lexical"], "shards have no lexical index"),
        (["docs.jsonl", "--shards", "2", "--hnsw", "--precision", "float32"], "shards have no graph"),
        (["docs.jsonl.gz", "--shards", "2"], "docs.jsonl.gz is gzipped, and cannot be split among workers"),
        (["-", "--shards", "2", "-o", "x.jv5s"], "standard input cannot be split among workers"),
        (["empty.jsonl", "--shards", "2"], "there is no document to index"),
        (["docs.jsonl", "--shards", "2", "-o", "taken"], "taken exists and is no index in shards"),
    ],
)
def test_wrong_use(here: Path, inside: Inside, arguments: list[str], message: str) -> None:
    (here / "empty.jsonl").touch()
    (here / "taken").mkdir()
    (here / "taken" / "precious").touch()
    outcome = inside("index", *arguments, code=2)
    assert message in outcome.stderr
    assert not list(here.glob("*.jv5s"))
