"""The examples, run as a user would run them, on real documents and the real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "JV5KIT_MODEL"}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "docs.jsonl"
    subprocess.run([sys.executable, str(EXAMPLES / "stdlib_docs.py"), str(path)], check=True, capture_output=True)
    return path


def jv5kit(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "jv5kit", *arguments]
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return result.stdout


def test_the_standard_library_has_thousands_of_public_documents(documents: Path) -> None:
    records = [json.loads(line) for line in documents.read_text(encoding="utf-8").splitlines()]
    assert len(records) > 5_000
    assert not any(part.startswith("_") and not part.endswith("__") for one in records for part in one["id"].split("."))
    assert len({record["id"] for record in records}) == len(records)
    assert {record["kind"] for record in records} == {"module", "class", "function"}
    by_id = {record["id"]: record for record in records}
    assert by_id["zipfile.ZipFile.namelist"]["text"] == "Return a list of file names in the archive."
    assert by_id["zipfile.ZipFile.namelist"]["module"] == "zipfile"
    assert "math.sqrt" in by_id, "modules written in C are there"


def test_two_commands_find_the_right_documentation(documents: Path, tmp_path: Path) -> None:
    modules = {"zipfile", "tarfile", "json", "csv", "shutil", "threading", "random", "smtplib"}
    lines = documents.read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = [line for line in lines if json.loads(line)["module"] in modules]
    assert len(chosen) > 200
    (tmp_path / "docs.jsonl").write_text("".join(chosen), encoding="utf-8")
    jv5kit(tmp_path, "index", "docs.jsonl", "--binary", "--dim", "256")
    for query, module in (
        ("read the members of a zip archive", "zipfile"),
        ("send an e-mail", "smtplib"),
        ("wait until another thread is done", "threading"),
        ("shuffle a list", "random"),
    ):
        (result,) = map(json.loads, jv5kit(tmp_path, "search", query, "-k", "3", "--json").splitlines())
        assert result["query"] == query
        assert result["hits"][0]["metadata"]["module"] == module
