"""Kill -9 at random moments: what was acknowledged is there, and no batch is there in part.

``JV5KIT_TEST_KILLS`` raises the number of runs.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jv5kit import Index
from jv5kit.errors import IndexNotFoundError, Jv5kitError

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("JV5KIT_TEST_KILLS", "10"))
ROWS, DIM, BATCH = 120_000, 32, 500
ROUNDS_OF_THE_CANARY = 40

# The command itself, with smaller batches so that a kill meets every step of a commit many times.
COMMAND = f"""
import sys, jv5kit.sources
from jv5kit.cli import main
from jv5kit.storage.writer import Writer
jv5kit.sources.BATCH_BYTES = {BATCH} * 4 * {DIM}
{{patch}}
sys.argv = ["jv5kit", "index", *sys.argv[1:]]
main()
"""

# A commit in the wrong order: the transaction before the segment that it names.
WRONG_ORDER = """
import time
from jv5kit.storage.writer import SEGMENTS, write_segment
written = []
def write(self, number, parts):
    path = self.folder / SEGMENTS / f"{number:06d}.late"
    path.unlink(missing_ok=True)
    entry = write_segment(path, self.state.settings, number, parts)
    written.append((path, path.with_suffix(".safetensors")))
    return entry
register = Writer._register
def late(self, change):
    register(self, change)
    # Long enough that a kill meets it.
    time.sleep(0.02)
    for path, target in written:
        path.replace(target)
    written.clear()
Writer._write, Writer._register = write, late
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    documents, embeddings = folder / "docs.jsonl", folder / "x.npy"
    with documents.open("w") as file:
        for i in range(ROWS):
            file.write(json.dumps({"id": f"d{i}", "text": f"text number {i}", "n": i}) + "\n")
    np.save(embeddings, np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32))
    return documents, embeddings


def run_and_kill(inputs: tuple[Path, Path], folder: Path, delay: float, *, patch: str = "") -> int:
    """Index until ``delay`` seconds after the first commit, then kill; the documents acknowledged by then."""
    documents, embeddings = inputs
    command = [sys.executable, "-c", COMMAND.format(patch=patch), str(documents), "--embeddings", str(embeddings)]
    command += ["-o", str(folder), "--json"]
    if (folder / "index.sqlite").exists():
        command.append("--append")
    # Unbuffered, so that what is read here is all that the command has said.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        if not lines[0]:
            assert child.stderr is not None
            raise AssertionError(child.stderr.read().decode())
        time.sleep(delay)
        child.kill()
        # The last line may be cut off by the kill; what has no line end was not said.
        lines += [line for line in child.stdout if line.endswith(b"\n")]
    said = [json.loads(line) for line in lines]
    return int(max(line.get("committed", line.get("documents", 0)) for line in said))


def verify(folder: Path, inputs: tuple[Path, Path], acknowledged: int) -> int:
    """Open the index and check it; the number of documents in it."""
    index = Index.open(folder)
    assert len(index) >= acknowledged, f"{acknowledged} documents were acknowledged, {len(index)} are there"
    assert len(index) % BATCH == 0, "a batch is there in part"
    embeddings = np.load(inputs[1])
    # The first and the last document, and some between: each is found by its own embedding, with its text.
    rows = np.unique(np.linspace(0, len(index) - 1, 40).astype(int))
    for row, hits in zip(rows, index.search(embeddings[rows], 1, oversample=50), strict=True):
        assert hits[0].id == f"d{row}"
        assert hits[0].metadata == {"n": row}
    stored = index._snapshot.catalog._connection.execute("SELECT count(*), max(row) FROM documents").fetchone()
    assert stored == (len(index), len(index) - 1)
    index.close()
    return len(index)


def test_nothing_acknowledged_is_lost(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    chance = random.Random(2)
    counts = []
    for kill in range(KILLS):
        # Two lives an index: the second goes on where the first was killed.
        folder = tmp_path / f"{kill // 2}.jv5"
        acknowledged = run_and_kill(inputs, folder, chance.uniform(0, 0.6))
        counts.append(verify(folder, inputs, acknowledged))
    assert len(set(counts)) > 1, "the kills all came at the same moment"
    # The last index is finished by the plain command, and is then complete.
    documents, embeddings = inputs
    command = [sys.executable, "-m", "jv5kit", "index", str(documents), "--embeddings", str(embeddings)]
    subprocess.run([*command, "-o", str(folder), "--append"], check=True, capture_output=True)
    assert len(Index.open(folder)) == ROWS


def test_a_replacement_is_whole_or_not_at_all(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    """Killed at any moment of ``--force``, the old index is there as it was, or the new one as far as it came."""
    chance = random.Random(4)
    documents, embeddings = inputs
    command = [
        sys.executable,
        "-c",
        COMMAND.format(patch=""),
        str(documents),
        "--embeddings",
        str(embeddings),
        "--force",
    ]
    old = np.random.default_rng(9).standard_normal((777, 16)).astype(np.float32)
    outcomes = set()
    for kill in range(KILLS):
        folder = tmp_path / f"{kill}.jv5"
        Index.build(folder, embeddings=old, ids=[f"old{i}" for i in range(777)]).close()
        arguments = [*command, "-o", str(folder), "--json"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            if kill % 2:
                assert child.stdout is not None
                child.stdout.readline()
            # Around the first commit, which comes as soon as Python has started; the first kill comes before it.
            time.sleep(chance.uniform(0, 0.4) if kill else 0)
            child.kill()
        with Index.open(folder) as index:
            if len(index) == 777:
                assert [hit.id for hit in index.search(old[5], 1, oversample=50)] == ["old5"]
                outcomes.add("old")
                continue
        verify(folder, inputs, 0)
        outcomes.add("new")
    assert outcomes == {"old", "new"}


def test_the_wrong_order_is_caught(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    """The canary: with the transaction before the segment, the same kills leave an index that does not open."""
    chance = random.Random(3)
    for kill in range(ROUNDS_OF_THE_CANARY):
        folder = tmp_path / f"{kill}.jv5"
        acknowledged = run_and_kill(inputs, folder, chance.uniform(0, 0.3), patch=WRONG_ORDER)
        try:
            verify(folder, inputs, acknowledged)
        except (AssertionError, Jv5kitError) as error:
            assert not isinstance(error, IndexNotFoundError)
            return
    pytest.fail("commits in the wrong order went unnoticed")
