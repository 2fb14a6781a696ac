"""The README shows what is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command import Inside, write_jsonl
from typer.testing import CliRunner

from jv5kit import _native, retrieval
from jv5kit.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (
    *("index", "search", "get", "delete", "compact", "export", "encode", "train", "mine", "eval", "serve", "publish"),
    "info",
)

BIRDS = [
    {
        "id": "emperor",
        "text": "Emperor penguins huddle to stay warm in the Antarctic winter.",
        "year": 2021,
        "lang": "en",
    },
    {"id": "swift", "text": "Swifts sleep, eat and drink on the wing.", "year": 2019, "lang": "en"},
    {"id": "tern", "text": "Arctic terns fly from pole to pole and back every year.", "year": 2023, "lang": "en"},
    {"id": "kiwi", "text": "Kiwis cannot fly, and find worms by their smell.", "year": 2022, "lang": "en"},
    {"id": "adler", "text": "Seeadler bauen Horste.", "year": 2020, "lang": "de"},
]

GUIDE = [
    {
        "id": "emperor",
        "title": "The emperor penguin",
        "text": (
            "Emperor penguins are the tallest of all penguins, and the heaviest. They live in Antarctica alone, and "
            "walk up to a hundred kilometers over the ice to the places where they breed. Krill, fish and squid are "
            "what they eat; they dive for them deeper than five hundred meters, and stay under for half an hour.\n\n"
            "In the winter the males stand on the ice for two months, each with an egg on its feet, and eat nothing. "
            "Against the cold they huddle together, thousands of them, and take turns on the outside, where the wind "
            "is. A thick layer of fat and four layers of feathers do the rest.\n\n"
            "The chicks hatch in July. At first their fathers feed them with a kind of milk; then the mothers come "
            "back from the sea, and each finds its own among thousands by its voice. In December the ice breaks, and "
            "the young ones swim away."
        ),
    },
    {"id": "swift", "text": "Swifts sleep, eat and drink on the wing."},
]


def test_its_table_is_what_the_bench_printed() -> None:
    shown = README.split("<!-- bench -->")[1].split("<!-- end of bench -->")[0]
    newest = max((ROOT / "benches" / "results").glob("*.md"))
    assert shown.strip() == newest.read_text(encoding="utf-8").strip()


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JV5KIT_MODEL", raising=False)
    asks, builds = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(builds, names)
    assert [hit.id for hit in names["hits"]] == ["swift"]  # type: ignore[attr-defined]
    exec(asks, {})
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0\.\d{3}  emperor  Emperor penguins huddle .*", first)
    assert "swift" in second
    retrieval._open.clear()


@pytest.mark.parametrize("block", ["commands", "passages"])
def test_its_commands_print_what_it_shows(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    """But for numbers: bytes, milliseconds and the last digits of scores are not the same everywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write_jsonl(Path("birds.jsonl"), BIRDS)
    write_jsonl(Path("guide.jsonl"), GUIDE)
    text = "Swifts sleep, eat and drink on the wing, and land to breed."
    write_jsonl(Path("corrected.jsonl"), [{"id": "swift", "text": text, "year": 2024, "lang": "en"}])
    shown = re.split(r"^\$ jv5kit (.*)\n", README.split(f"<!-- {block} -->")[1].split("```")[1], flags=re.MULTILINE)
    for command, output in zip(shown[1::2], shown[2::2], strict=True):
        outcome = inside(*shlex.split(command), code=2 if output.startswith("jv5kit: --") else 0)
        number = re.compile(r"\d[\d,.]*")
        assert number.sub("#", outcome.stderr + outcome.stdout) == number.sub("#", output), command
    retrieval._open.clear()


def test_it_has_every_command_and_tier() -> None:
    printed = CliRunner().invoke(app, ["--help"]).output
    commands = re.findall(r"^  (\w+)  ", printed.partition("Commands:")[2], re.MULTILINE)
    assert set(COMMANDS) == set(commands)
    for command in commands:
        assert f"`jv5kit {command}" in README
    for tier in _native.simd_tier()[2]:
        assert f"`{tier}`" in README


def test_every_option_it_names_exists() -> None:
    runner = CliRunner()
    printed = "".join(runner.invoke(app, [command, "--help"]).output for command in COMMANDS)
    shell = "".join(re.findall(r"`jv5kit[^`]*`|^\$ .*$", README, re.MULTILINE))
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", shell))
    assert named
    assert {option for option in named if option not in printed} == set()


def test_every_variable_it_names_is_read() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("python", "rust")
        for path in (ROOT / folder).rglob("*.[pr][ys]")
    )
    for variable in set(re.findall(r"JV5KIT_\w+", README)):
        assert f'"{variable}"' in sources, variable


def test_its_first_lines_are_the_two_commands() -> None:
    assert README.splitlines()[:5][2:] == [
        "```sh",
        "make demo   # index the documentation of Python's standard library on this machine, and ask it something",
        "make test   # every test, Rust and Python",
    ]
