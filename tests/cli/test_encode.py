import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from command import COMMAND, Inside, checked, environment, run, write_jsonl

from jv5kit import Encoder

TEXTS = ["a penguin", "the cold sea " * 20, "Ünïcode\nand a line", "ice"]


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``docs.jsonl``: four documents, the last with a title; the tiny model is the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JV5KIT_MODEL", str(tiny_model))
    write_jsonl(tmp_path / "docs.jsonl", [{"text": text} for text in TEXTS[:3]] + [{"title": "Cold", "text": "ice"}])
    return tmp_path


CONTENTS = [*TEXTS[:3], "Cold\nice"]


def test_to_standard_output(here: Path, inside: Inside, encoder: Encoder) -> None:
    lines = inside("encode", "docs.jsonl").stdout.splitlines()
    np.testing.assert_allclose([json.loads(line) for line in lines], encoder.encode_document(CONTENTS), atol=1e-6)


def test_to_a_file(here: Path, inside: Inside, encoder: Encoder) -> None:
    outcome = inside("encode", "docs.jsonl", "-o", "x.npy")
    assert (outcome.stdout, outcome.stderr) == ("", "x.npy: 4 embeddings\n")
    embeddings = np.load("x.npy")
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, encoder.encode_document(CONTENTS), atol=1e-6)
    assert sorted(path.name for path in here.iterdir()) == ["docs.jsonl", "x.npy"]


def test_codes(here: Path, inside: Inside, encoder: Encoder) -> None:
    inside("encode", "docs.jsonl", "-o", "x.npy", "--binary", "--dim", "24")
    codes = np.load("x.npy")
    assert codes.dtype == np.uint8
    expected = encoder.encode_document(CONTENTS, truncate_dim=24, precision="ubinary")
    np.testing.assert_array_equal(codes, expected)
    lines = inside("encode", "docs.jsonl", "--precision", "ubinary", "--dim", "24").stdout.splitlines()
    np.testing.assert_array_equal([json.loads(line) for line in lines], expected)


def test_queries_tasks_and_dimensions(here: Path, inside: Inside, encoder: Encoder) -> None:
    for arguments, expected in [
        (["--query"], encoder.encode_query(CONTENTS)),
        (["--query", "--task", "clustering"], encoder.encode_document(CONTENTS)),
        (["--dim", "7"], encoder.encode_document(CONTENTS, truncate_dim=7)),
    ]:
        inside("encode", "docs.jsonl", "-o", "x.npy", "--force", *arguments)
        np.testing.assert_allclose(np.load("x.npy"), expected, atol=1e-6)


def test_what_was_encoded_can_be_indexed(here: Path, inside: Inside) -> None:
    """An index of the embeddings is the same as one of the documents."""
    inside("encode", "docs.jsonl", "-o", "x.npy")
    inside("index", "docs.jsonl", "--embeddings", "x.npy", "-o", "given.jv5")
    inside("index", "docs.jsonl", "-o", "encoded.jv5")
    given, encoded = (next(Path(f"{name}.jv5/segments").iterdir()).read_bytes() for name in ("given", "encoded"))
    differing = np.frombuffer(given, np.uint8) != np.frombuffer(encoded, np.uint8)
    assert len(given) == len(encoded)
    # Rounding may turn a last bit, and with it a checksum.
    assert differing.mean() < 0.1


def test_more_documents_than_a_batch(here: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.sharding.encoding.ENCODED_TOGETHER", 7)
    write_jsonl(here / "docs.jsonl", [{"text": "a " * words} for words in range(1, 101)])
    outcome = inside("encode", "docs.jsonl", "-o", "x.npy")
    assert np.load("x.npy").shape == (100, 64)
    # Two tokens of the prompt and two special ones leave room for 92 words.
    warning = "jv5kit: 8 of 100 texts are longer than the model's 96 tokens and were cut"
    assert outcome.stderr.splitlines() == [warning, "x.npy: 100 embeddings"]


def test_from_standard_input_as_a_process(here: Path, tiny_model: Path, encoder: Encoder) -> None:
    data = (here / "docs.jsonl").read_bytes()
    outcome = run("encode", "-", "-m", tiny_model, stdin=data, cwd=here)
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    np.testing.assert_allclose(rows, encoder.encode_document(CONTENTS), atol=1e-6)
    assert outcome.stderr == ""


def test_a_reader_that_has_gone(here: Path, tiny_model: Path) -> None:
    write_jsonl(here / "docs.jsonl", [{"text": "a penguin"}] * 2000)
    command = [*COMMAND, "encode", "docs.jsonl", "-m", str(tiny_model)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=here, env=environment(), stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"[")
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        process.wait(timeout=60)
    assert errors == b""
    assert process.returncode == 1


def test_nothing_is_overwritten_without_force(here: Path, inside: Inside) -> None:
    (here / "x.npy").write_text("precious")
    message = "jv5kit: x.npy exists; replace it with --force\n"
    assert inside("encode", "docs.jsonl", "-o", "x.npy", code=2).stderr == message
    assert (here / "x.npy").read_text() == "precious"
    inside("encode", "docs.jsonl", "-o", "x.npy", "--force")
    assert np.load("x.npy").shape == (4, 64)


def test_a_failure_leaves_the_old_file(here: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.sharding.encoding.ENCODED_TOGETHER", 2)
    inside("encode", "docs.jsonl", "-o", "x.npy")
    before = (here / "x.npy").read_bytes()
    with (here / "docs.jsonl").open("a") as file:
        file.write('{"text": 7}\n')
    outcome = inside("encode", "docs.jsonl", "-o", "x.npy", "--force", code=2)
    assert outcome.stderr == "jv5kit: docs.jsonl:5: 'text' must be a string, but is 7\n"
    assert (here / "x.npy").read_bytes() == before
    assert sorted(path.name for path in here.iterdir()) == ["docs.jsonl", "x.npy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["docs.jsonl", "--task", "poetry"], "--task poetry is not known; choose one of retrieval, text-matching"),
        (["docs.jsonl", "--precision", "int8"], "--precision int8 is not known; choose one of float32, ubinary"),
        (["docs.jsonl", "--binary", "--precision", "float32"], "--binary is --precision ubinary; it contradicts"),
        (["docs.jsonl", "--dim", "0"], "--dim 0 is outside 1..64"),
        (["docs.jsonl", "-o", "nowhere/x.npy"], "cannot write nowhere/x.npy: No such file or directory"),
        (["docs.jsonl", "-o", "..", "--force"], "/.. exists and holds no embeddings"),
        (["empty.jsonl"], "there is no document to encode"),
        (["empty.jsonl", "-o", "x.npy"], "there is no document to encode"),
        (["nothing.jsonl"], "cannot read nothing.jsonl: No such file or directory"),
        (["docs.jsonl", "-m", "./nowhere"], "model './nowhere' is neither a folder nor a hub id"),
    ],
)
def test_wrong_arguments(here: Path, inside: Inside, arguments: list[str], message: str) -> None:
    (here / "empty.jsonl").touch()
    outcome = inside("encode", *arguments, code=2)
    assert outcome.stdout == ""
    assert message in outcome.stderr
    assert not (here / "x.npy").exists()


def test_an_interrupted_run_leaves_nothing(here: Path, tiny_model: Path) -> None:
    """Standard input stays open, so that the run waits for its next document."""
    command = [*COMMAND, "encode", "-", "-o", "x.npy", "-m", str(tiny_model)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=here, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"text": "a penguin"}\n')
        process.stdin.flush()
        for _ in range(600):
            if list(here.glob(".x.npy.*.tmp")):
                break
            time.sleep(0.05)
        assert list(here.glob(".x.npy.*.tmp"))
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    checked(subprocess.CompletedProcess(command, process.returncode, out, errors), 130)
    assert [path.name for path in here.iterdir()] == ["docs.jsonl"]
