"""Kill -9 at random moments of appends, replacements of documents, deletions, compactions and replaced indexes.

``JV5KIT_TEST_KILLS`` sets the number of kills.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from command import environment

KILLS = int(os.environ.get("JV5KIT_TEST_KILLS", "25"))
SCRIPT = Path(__file__).with_name("killed.py")


def run(folder: Path, kills: int, *options: str) -> subprocess.CompletedProcess[str]:
    variables = environment(PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    command = [sys.executable, str(SCRIPT), str(folder), str(kills), "1", *(options or ("honest",))]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    outcome = run(tmp_path, KILLS)
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    print(f"{KILLS} kills after {found['changes']} changes, in the midst of {found['interrupted']}")
    assert len(found["interrupted"]) > 2, "the kills all came at the same kind of moment"


def test_what_is_acknowledged_too_early_is_missed(tmp_path: Path) -> None:
    """The canary."""
    outcome = run(tmp_path, 40, "early")
    assert outcome.returncode == 1
    assert "killed in" in outcome.stderr
