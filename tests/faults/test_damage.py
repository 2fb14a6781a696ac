"""Damage to any file of an index: an error of ours that names the file, or the same answer as before.

``JV5KIT_TEST_MUTATIONS`` sets the number of random mutations of each index, ``JV5KIT_TEST_HEADER_FLIPS=all`` flips
every bit of the headers, and ``JV5KIT_TEST_TRUNCATIONS`` sets the number of lengths to which each file is cut.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command import environment, random_rows

from jv5kit import Index, sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from jv5kit import Encoder

MUTATIONS = int(os.environ.get("JV5KIT_TEST_MUTATIONS", "400"))
TRUNCATIONS = int(os.environ.get("JV5KIT_TEST_TRUNCATIONS", "200"))
STRIDE = 1 if os.environ.get("JV5KIT_TEST_HEADER_FLIPS") == "all" else 101
SECONDS = 5
SCRIPT = Path(__file__).with_name("damaged.py")
DIM = 64
KINDS = ["closed", "live", "graph", "passages"]


def add(folder: Path, first: int, count: int, on_commit: Callable[[int], None] | None = None, **options: Any) -> None:
    """Add documents with titles and metadata, to an index of these options, and delete some.

    With an encoder among the options, the documents are encoded; otherwise they come with embeddings.
    """
    records = [
        {
            "id": f"d{i}",
            "text": f"text {i} " + "ü" * (i % 50),
            "title": f"title {i}" if i % 3 else None,
            "year": 2000 + i % 20,
            "tags": ["a", "b"][: i % 3],
        }
        for i in range(first, first + count)
    ]
    rows = None if "encoder" in options else random_rows(count, DIM, seed=first)
    if not folder.exists():
        Index.build(folder, records, embeddings=rows, **options).close()
        return
    with Index.open(folder) as index:
        index.add(records, embeddings=rows, on_commit=on_commit)
        index.delete([f"d{first + count // 3}", f"d{first // 2}"])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> dict[str, Path]:
    """An index of several segments, once closed and once as a running writer leaves it, with its log; others."""
    folder = tmp_path_factory.mktemp("sound")
    closed, live, graph, passages = (folder / name / "x.jv5" for name in KINDS)
    add(closed, 0, 400, rotate=True, lexical=True)
    add(closed, 400, 200)
    add(graph, 0, 200, precision="float32", hnsw=True)
    add(graph, 200, 100)
    add(passages, 0, 200, encoder=encoder, passages=24, lexical=True)
    add(passages, 200, 60, encoder=None)
    shutil.copytree(closed, folder / "growing.jv5")
    add(closed, 600, 100)
    log = closed / "index.sqlite-wal"
    assert not log.exists() or not log.stat().st_size, "a closed index has all in one file"

    def copy(_: int) -> None:
        shutil.rmtree(live, ignore_errors=True)
        shutil.copytree(folder / "growing.jv5", live)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BATCH_BYTES", 25 * 4 * DIM)
        add(folder / "growing.jv5", 600, 100, copy)
    assert (live / "index.sqlite-wal").stat().st_size > 10_000
    found = dict(zip(KINDS, (closed, live, graph, passages), strict=True))
    for path in found.values():
        np.save(path.parent / "queries.npy", random_rows(8, DIM, seed=99))
    return found


def outcomes(sound: Path, folder: Path, kind: str, *arguments: int) -> Counter[str]:
    """How many cases ended how.

    Raises:
        AssertionError: one gave another answer, crashed, took too much memory, or was silent for long.
    """
    variables = environment(PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    command = [sys.executable, str(SCRIPT), str(sound), str(folder / "x.jv5"), kind, json.dumps(arguments)]
    counts: Counter[str] = Counter()
    problems = []
    case = "the start"
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables) as child:
        assert child.stdout is not None
        while True:
            patience = SECONDS if case != "the start" else 60
            if not select.select([child.stdout], [], [], patience)[0]:
                child.kill()
                pytest.fail(f"{case}: nothing was heard for {patience} s")
            line = child.stdout.readline()
            if not line:
                break
            said = json.loads(line)
            case = said.get("case", case)
            if "outcome" in said:
                outcome = said["outcome"]
                counts[outcome if outcome in ("refused", "same") else "wrong"] += 1
                if outcome not in ("refused", "same"):
                    problems.append(outcome)
    assert child.returncode == 0, f"{case}: the process ended with {child.returncode}"
    print(f"{kind} of {sound.parent.name}: {dict(counts)}, peak {said['peak_kib'] / 1024:.0f} MiB")
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:20])
    assert counts["refused"]
    return counts


@pytest.mark.parametrize("which", KINDS)
def test_truncated_files(sound: dict[str, Path], tmp_path: Path, which: str) -> None:
    outcomes(sound[which], tmp_path, "truncations", TRUNCATIONS)


@pytest.mark.parametrize("which", KINDS)
def test_flipped_bits_of_the_headers(sound: dict[str, Path], tmp_path: Path, which: str) -> None:
    outcomes(sound[which], tmp_path, "header_flips", STRIDE)


@pytest.mark.parametrize("which", KINDS)
def test_random_mutations(sound: dict[str, Path], tmp_path: Path, which: str) -> None:
    outcomes(sound[which], tmp_path, "mutations", MUTATIONS, 1)
