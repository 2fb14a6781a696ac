"""The command line, run as a user runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

COMMAND = [sys.executable, "-m", "jv5kit"]

Outcome = subprocess.CompletedProcess[str]


class Inside(Protocol):
    """``run``, in the process of the tests."""

    def __call__(self, *arguments: str | os.PathLike[str], code: int = 0) -> Outcome: ...


class RowsFile(Protocol):
    """Write training rows as JSON Lines: objects as they are, strings as whole lines."""

    def __call__(self, rows: Iterable[Mapping[str, object] | str], name: str = "rows.jsonl") -> Path: ...


def environment(**variables: str) -> dict[str, str]:
    """The environment of a run: no setting of ours but those given, and no network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JV5KIT_", "HF_"))}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"} | variables


def run(
    *arguments: str | os.PathLike[str],
    code: int = 0,
    stdin: str | bytes = b"",
    cwd: Path | None = None,
    **variables: str,
) -> Outcome:
    """Run ``jv5kit``, and check its exit status and that it shows no traceback.

    Args:
        *arguments: of the command line.
        code: the exit status that must come.
        stdin: what it reads from standard input.
        cwd: where it runs.
        **variables: of the environment.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    raw = subprocess.run(
        [*COMMAND, *(os.fspath(argument) for argument in arguments)],
        input=data,
        capture_output=True,
        cwd=cwd,
        env=environment(**variables),
        timeout=120,
        check=False,
    )
    return checked(raw, code)


def checked(raw: subprocess.CompletedProcess[bytes], code: int) -> Outcome:
    """A finished run as text, after the checks that every run must pass."""
    outcome = Outcome(raw.args, raw.returncode, raw.stdout.decode(), raw.stderr.decode())
    assert "Traceback" not in outcome.stderr, outcome.stderr
    assert outcome.returncode == code, outcome.stderr
    return outcome


def fails(*arguments: str | os.PathLike[str], cwd: Path | None = None, **variables: str) -> str:
    """Run ``jv5kit`` where it must fail with exit status 2, one line and nothing on stdout; returns the message."""
    outcome = run(*arguments, code=2, cwd=cwd, **variables)
    assert outcome.stdout == ""
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1, outcome.stderr
    assert lines[0].startswith("jv5kit: "), outcome.stderr
    return lines[0].removeprefix("jv5kit: ")


def random_rows(count: int, dim: int = 16, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def write_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def is_running(process: int) -> bool:
    """Whether a process is there, and not only waits to be asked how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
