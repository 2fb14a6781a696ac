"""The examples of other libraries print what they say they print."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from command import environment

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("with_*.py"))
DECIMAL = re.compile(r"-?\d+\.\d+")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def test_each_integration_has_one() -> None:
    names = {path.stem.removeprefix("with_") for path in EXAMPLES}
    assert names == {"faiss", "langchain", "llamaindex", "mteb", "sentence_transformers"}


def test_the_readme_names_what_is_there() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Where you already are")[2].partition("\n## ")[0]
    names = set(re.findall(r"`jv5kit\.integrations\.(\w+)`", section))
    assert names == {"faiss", "langchain", "llamaindex", "mteb"}
    modules = {name: importlib.import_module(f"jv5kit.integrations.{name}") for name in names}
    modules["sentence-transformers"] = importlib.import_module("jv5kit")
    area, takes = "", 0
    for line in section.splitlines():
        if line.startswith("| ") and "---" not in line and not line.startswith("| it has"):
            has, mine, example = (cell.strip() for cell in line.strip("|").split(" | "))
            area = area if has.startswith("…") else has.partition(":")[0]
            for called in re.findall(r"`([\w.]+)\(", mine):
                first, *rest = called.split(".")
                found = getattr(modules[area if area in modules else area.lower()], first)
                assert all(hasattr(found, name) for name in rest)
                takes += 1
            assert not example.strip("| ") or (Path(__file__).parents[2] / example.strip("| `")).is_file()
    assert takes == 9


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_prints_what_it_says(path: Path, tmp_path: Path) -> None:
    """Scores differ in their last digits between processors, distances by a bit; nothing is left behind."""
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=environment(TMPDIR=str(tmp_path / "temporary")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = textwrap.dedent((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("prints::")[1])
    assert NUMBER.sub("#", done.stdout).strip() == NUMBER.sub("#", said).strip()
    found, expected = ([float(number) for number in DECIMAL.findall(text)] for text in (done.stdout, said))
    assert found == pytest.approx(expected, abs=0.03)
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".jv5", ".safetensors")]
