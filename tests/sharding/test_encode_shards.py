"""``jv5kit encode -o DIR``: shards whose bytes depend on nothing but the documents and the settings."""

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from command import COMMAND, Inside, checked, environment, is_running, run, write_jsonl

from jv5kit.sharding.encoding import Encoding, encode_shard
from jv5kit.storage.lock import WriteLock

COUNT = 90
SHARDS = 6

JOB = ["encode", "docs.jsonl", "-o", "shards", "--shards", "40", "--workers", "2", "--json"]


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``docs.jsonl``; the tiny model is the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JV5KIT_MODEL", str(tiny_model))
    write_jsonl(tmp_path / "docs.jsonl", documents(COUNT))
    return tmp_path


def documents(count: int) -> list[dict[str, str]]:
    """Documents, every third without an id."""
    texts = [f"the penguin {i} " + "swims " * (i % 30) for i in range(count)]
    return [({"id": f"é{i}"} if i % 3 else {}) | {"text": text} for i, text in enumerate(texts)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def encode(inside: Inside, output: str, *arguments: str) -> dict[str, bytes]:
    inside("encode", "docs.jsonl", "-o", output, "--shards", str(SHARDS), *arguments)
    return contents(Path(output))


def test_shards_are_the_file_in_parts(here: Path, inside: Inside) -> None:
    inside("encode", "docs.jsonl", "-o", "x.npy")
    outcome = inside("encode", "docs.jsonl", "-o", "shards", "--shards", str(SHARDS), "--json")
    *shards, last = map(json.loads, outcome.stdout.splitlines())
    assert last == {"output": "shards", "embeddings": COUNT, "skipped": 0, "shards": SHARDS}
    assert [one["shard"] for one in shards] == [f"{i:05d}-of-{SHARDS:05d}" for i in range(SHARDS)]
    rows = [np.load(f"shards/embeddings-{one['shard']}.npy") for one in shards]
    assert list(map(len, rows)) == [one["documents"] for one in shards]
    np.testing.assert_array_equal(np.concatenate(rows), np.load("x.npy"))
    ids = [line for one in shards for line in Path(f"shards/ids-{one['shard']}.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in ids] == [f"é{i}" if i % 3 else str(i + 1) for i in range(COUNT)]


@pytest.mark.parametrize("options", [[], ["--binary", "--dim", "24"], ["--query", "--task", "clustering"]])
def test_any_number_of_processes_writes_the_same_bytes(here: Path, inside: Inside, options: list[str]) -> None:
    alone = encode(inside, "alone", *options)
    assert len(alone) == 2 * SHARDS + 1
    assert encode(inside, "several", "--workers", "2", *options) == alone


def test_a_shard_is_a_function_of_its_range(here: Path, inside: Inside) -> None:
    """Without an engine, a job, or the number of its first line."""
    shards = encode(inside, "shards")
    size = (here / "docs.jsonl").stat().st_size
    start, end = size // SHARDS, 2 * size // SHARDS
    rows, ids = here / "x.npy", here / "ids.jsonl"
    encode_shard(here / "docs.jsonl", start, end, rows, ids, Encoding.of())
    assert rows.read_bytes() == shards["embeddings-00001-of-00006.npy"]
    assert ids.read_bytes() == shards["ids-00001-of-00006.jsonl"]


def children(process: int) -> list[int]:
    """The processes that work for a job."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def begun(folder: Path, model: Path) -> subprocess.Popen[bytes]:
    """A job of two processes that has a shard done, and has others to do."""
    process = subprocess.Popen(
        [*COMMAND, *JOB, "-m", str(model)],
        cwd=folder,
        env=environment(JV5KIT_THREADS="2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()).keys() == {"shard", "documents"}
    return process


@pytest.fixture
def undisturbed(here: Path, inside: Inside) -> dict[str, bytes]:
    """What a job over many documents writes, if nothing happens."""
    write_jsonl(here / "docs.jsonl", documents(4000))
    inside("encode", "docs.jsonl", "-o", "undisturbed", "--shards", "40")
    return contents(here / "undisturbed")


def test_a_worker_is_killed(here: Path, tiny_model: Path, undisturbed: dict[str, bytes]) -> None:
    process = begun(here, tiny_model)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    out, errors = process.communicate(timeout=100)
    checked(subprocess.CompletedProcess([], process.returncode, out, errors), 0)
    assert errors == b""
    assert contents(here / "shards") == undisturbed


def test_the_job_is_killed(here: Path, tiny_model: Path, undisturbed: dict[str, bytes]) -> None:
    process = begun(here, tiny_model)
    workers = children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    for _ in range(200):
        if not any(map(is_running, workers)):
            break
        time.sleep(0.05)
    assert not any(map(is_running, workers))
    done = {path: path.stat().st_mtime_ns for path in (here / "shards").glob("embeddings-*")}
    assert 0 < len(done) < 40
    outcome = run(*JOB, "-m", tiny_model, cwd=here)
    assert contents(here / "shards") == undisturbed
    # What was there is done, and is not done again.
    assert {path: path.stat().st_mtime_ns for path in done} == done
    said = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert len(said) == 40 - len(done) + 1
    assert said[-1] == {"output": "shards", "embeddings": 4000, "skipped": 0, "shards": 40}


def test_an_interruption_says_how_to_go_on(here: Path, tiny_model: Path, undisturbed: dict[str, bytes]) -> None:
    process = begun(here, tiny_model)
    # As a terminal does: to all that run for the command.
    for one in (*children(process.pid), process.pid):
        os.kill(one, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    outcome = checked(subprocess.CompletedProcess([], process.returncode, out, errors), 130)
    assert outcome.stderr.splitlines()[0].startswith("jv5kit: interrupted; ")
    assert outcome.stderr.splitlines()[0].endswith(" of 40 shards are in shards; the same command goes on")
    run("encode", "docs.jsonl", "-o", "shards", "--shards", "40", "-m", tiny_model, cwd=here)
    assert contents(here / "shards") == undisturbed


def test_bad_lines(here: Path, inside: Inside) -> None:
    clean = encode(inside, "clean")
    lines = (here / "docs.jsonl").read_bytes().splitlines(keepends=True)
    lines[40:40] = [b"[7]\n"]
    lines += [b'{"text": 7}\n']
    (here / "docs.jsonl").write_bytes(b"".join(lines))
    at = len(b"".join(lines[:40]))
    arguments = ("encode", "docs.jsonl", "-o", "shards", "--shards", str(SHARDS))
    outcome = inside(*arguments, code=2)
    bad = f"docs.jsonl:41 (byte {at}): not a JSON object, but a list"
    hint = "2 of 6 shards are in shards; the same command with --skip-invalid goes on"
    assert outcome.stderr == f"jv5kit: {bad}\n{hint}\n"
    outcome = inside(*arguments, "--skip-invalid", "--workers", "2")
    last = len(b"".join(lines[:-1]))
    assert sorted(outcome.stderr.splitlines()[:-2]) == [
        f"jv5kit: skipped: {bad}",
        f"jv5kit: skipped: docs.jsonl:92 (byte {last}): 'text' must be a string, but is 7",
    ]
    assert outcome.stderr.splitlines()[-2:] == [
        "2 documents were skipped",
        f"shards: {COUNT:,} embeddings in {SHARDS} shards",
    ]
    rows = [
        np.concatenate([np.load(folder / name) for name in sorted(clean) if name.endswith("npy")])
        for folder in (here / "clean", here / "shards")
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    # Known as skipped by a run that finds all of it done, too.
    assert json.loads(inside(*arguments, "--skip-invalid", "--json").stdout)["skipped"] == 2


def test_a_shard_may_be_empty(here: Path, inside: Inside) -> None:
    (here / "docs.jsonl").write_text('{"text": "a penguin"}\n' + 200 * " ")
    inside("encode", "docs.jsonl", "-o", "shards", "--shards", "3", "--skip-invalid")
    shapes = [np.load(path).shape for path in sorted((here / "shards").glob("*.npy"))]
    assert shapes == [(1, 64), (0, 64), (0, 64)]


def test_longer_texts_are_counted_over_all_processes(here: Path, inside: Inside) -> None:
    write_jsonl(here / "docs.jsonl", [{"text": "a " * words} for words in range(1, 101)])
    outcome = inside("encode", "docs.jsonl", "-o", "shards", "--shards", "4", "--workers", "2")
    warning = "jv5kit: 8 of 100 texts are longer than the model's 96 tokens and were cut"
    assert outcome.stderr.splitlines() == [warning, "shards: 100 embeddings in 4 shards"]


def test_other_settings_are_refused_by_name(here: Path, inside: Inside, other_model: Path) -> None:
    before = encode(inside, "shards")
    for options, message in [
        (["--dim", "8"], "was begun with dim 64, not 8"),
        (["--binary"], "was begun with precision 'float32', not 'ubinary'"),
        (["--query"], "was begun with prompt 'Document: ', not 'Query: '"),
        (["-m", str(other_model)], "was begun with fingerprint"),
        (["--shards", "7"], "was begun with shards 6, not 7"),
    ]:
        arguments = ["encode", "docs.jsonl", "-o", "shards", "--shards", str(SHARDS), *options]
        outcome = inside(*arguments, code=2)
        assert message in outcome.stderr
        assert outcome.stderr.endswith("go on with the same, name another folder, or replace it with --force\n")
    assert contents(here / "shards") == before
    with (here / "docs.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    outcome = inside("encode", "docs.jsonl", "-o", "shards", "--shards", str(SHARDS), code=2)
    assert "was begun with bytes" in outcome.stderr
    inside("encode", "docs.jsonl", "-o", "shards", "--shards", "2", "--binary", "--force")
    assert sorted(contents(here / "shards")) == sorted(
        ["manifest.json", *(f"{kind[0]}-0000{i}-of-00002.{kind[1]}" for i in (0, 1) for kind in KINDS)]
    )


KINDS = [("embeddings", "npy"), ("ids", "jsonl")]


def test_a_model_that_was_moved_is_the_same(here: Path, inside: Inside, model_copy: Path) -> None:
    before = encode(inside, "shards")
    (here / "shards" / "embeddings-00002-of-00006.npy").unlink()
    assert encode(inside, "shards", "-m", str(model_copy)) == before


def test_a_file_that_is_written_meanwhile(here: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Encoding.load

    def late(self: Encoding) -> object:
        with (here / "docs.jsonl").open("a") as file:
            file.write("\n")
        return load(self)

    monkeypatch.setattr(Encoding, "load", late)
    outcome = inside("encode", "docs.jsonl", "-o", "shards", code=2)
    assert "when it was cut into shards: every machine has to read the same file" in outcome.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk(here: Path, tiny_model: Path, workers: str) -> None:
    """A limit on the size of a file, in the place of a disk that is full."""
    arguments = ["encode", "docs.jsonl", "-o", "shards", "--shards", "2", "--workers", workers, "-m", str(tiny_model)]
    limited = subprocess.run(
        [*COMMAND, *arguments],
        cwd=here,
        env=environment(),
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
        check=False,
        timeout=100,
    )
    outcome = checked(limited, 1)
    assert outcome.stderr.startswith("jv5kit: ")
    assert "/shards cannot be written: [Errno 27] File too large; what was committed is safe" in outcome.stderr
    hint = "0 of 2 shards are in shards; once that is mended, the same command goes on"
    assert outcome.stderr.splitlines()[1:] == [hint]
    assert sorted(contents(here / "shards")) == ["manifest.json"]
    run(*arguments, cwd=here)
    assert len(contents(here / "shards")) == 5


def test_one_job_at_a_time(here: Path, inside: Inside) -> None:
    (here / "shards").mkdir()
    lock = WriteLock(here / "shards")
    outcome = inside("encode", "docs.jsonl", "-o", "shards", code=1)
    assert f"shards is being written by process {os.getpid()} on " in outcome.stderr
    lock.release()
    inside("encode", "docs.jsonl", "-o", "shards")


def test_what_a_killed_process_left_is_swept(here: Path, inside: Inside) -> None:
    before = encode(inside, "shards")
    (here / "shards" / ".embeddings-00000-of-00006.npy.0123456789abcdef.tmp").write_bytes(b"half")
    assert encode(inside, "shards") == before


def test_what_is_in_the_folder_of_somebody_else_stays(here: Path, inside: Inside) -> None:
    (here / "mine").mkdir()
    for name in ("thesis.txt", "lock", ".draft.tmp"):
        (here / "mine" / name).write_text(name)
    for force in ([], ["--force"]):
        outcome = inside("encode", "docs.jsonl", "-o", "mine", *force, code=2)
        assert "mine exists and holds no embeddings of jv5kit; choose another folder" in outcome.stderr
    assert {one.name: one.read_text() for one in (here / "mine").iterdir()} == {
        name: name for name in ("thesis.txt", "lock", ".draft.tmp")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["docs.jsonl", "-o", "taken"], "taken exists and holds no embeddings of jv5kit; choose another folder"),
        (["docs.jsonl", "-o", "docs.jsonl"], "docs.jsonl cannot be written: [Errno 17] File exists"),
        (["docs.jsonl", "-o", "shards", "--workers", "0"], "--workers 0: it must be at least 1"),
        (["docs.jsonl", "-o", "shards", "--shards", "0"], "--shards 0: it must be at least 1"),
        (["docs.jsonl", "-o", "x.npy", "--workers", "2"], "--workers 2 makes a folder of shards: name one with -o DIR"),
        (["docs.jsonl", "--shards", "2"], "--shards 2 makes a folder of shards: name one with -o DIR"),
        (["docs.jsonl", "--ray"], "--ray auto makes a folder of shards: name one with -o DIR"),
        (["--ray", "docs.jsonl"], "--ray auto makes a folder of shards: name one with -o DIR"),
        (["--ray", "host:1", "docs.jsonl"], "--ray host:1 makes a folder of shards: name one with -o DIR"),
        (["docs.jsonl", "--json"], "--json says what was written: name a file or a folder with -o"),
        (["docs.jsonl.gz", "-o", "shards"], "docs.jsonl.gz is gzipped, and cannot be split among workers"),
        (["-", "-o", "shards"], "standard input cannot be split among workers: write it to a file"),
        (["empty.jsonl", "-o", "shards"], "there is no document to encode"),
        (["nothing.jsonl", "-o", "shards"], "nothing.jsonl: No such file or directory"),
    ],
)
def test_wrong_use(here: Path, inside: Inside, arguments: list[str], message: str) -> None:
    (here / "empty.jsonl").touch()
    (here / "taken").mkdir()
    (here / "taken" / "precious").touch()
    outcome = inside("encode", *arguments, code=2)
    assert message in outcome.stderr
    assert outcome.stdout == ""
    assert not (here / "shards").exists()
