"""Models that the tests share: made once in a run."""

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Read by the hub's client when it is imported: no test may need a network.
os.environ["HF_HUB_OFFLINE"] = "1"

import models
import numpy as np
from command import Inside, Outcome, RowsFile, random_rows, run, write_jsonl

if TYPE_CHECKING:
    from jv5kit import Encoder

# A shell lets what it runs in the background ignore Ctrl-C, and so would the commands that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ("clusters", "store_fixtures")

PROMPTS = {"query": "Query: ", "document": "Document: ", "clustering": "Cluster: "}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults, whatever the developer's shell sets."""
    for name in ("JV5KIT_MODEL", "JV5KIT_CACHE", "JV5KIT_LOG", "JV5KIT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with prompts: mean pooling, unit length."""
    return models.as_sentence_transformers(models.bert(tmp_path_factory.mktemp("models") / "tiny"), prompts=PROMPTS)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``tiny_model``, with other weights."""
    folder = models.bert(tmp_path_factory.mktemp("models") / "other", seed=1)
    return models.as_sentence_transformers(folder, prompts=PROMPTS)


@pytest.fixture(scope="session")
def encoder(tiny_model: Path) -> "Encoder":
    """The encoder of ``tiny_model``, as the command line has it."""
    from jv5kit import Encoder

    return Encoder.from_pretrained(tiny_model, device="cpu")


@pytest.fixture
def model_copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of ``tiny_model`` to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The command line sends the log to stderr; the next test must not see that."""
    logger = logging.getLogger("jv5kit")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def inside(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Inside:
    """Run the command line in this process, where the model is loaded once; see ``command.run``."""

    def run_inside(*arguments: str | os.PathLike[str], code: int = 0) -> Outcome:
        from jv5kit.cli import main

        monkeypatch.setattr(sys, "argv", ["jv5kit", *(os.fspath(argument) for argument in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert (caught.value.code or 0) == code, err
        return Outcome(arguments, code, out, err)

    return run_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ``docs.jsonl`` (5 documents) and ``x.npy`` (their embeddings, of 16 dimensions)."""
    records = [{"id": f"d{i}", "text": f"a penguin {i}", "year": 2020 + i} for i in range(5)]
    write_jsonl(tmp_path / "docs.jsonl", records)
    np.save(tmp_path / "x.npy", random_rows(5))
    return tmp_path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with ``docs.jsonl`` and ``docs.jv5``, its index with the tiny model; not to be written."""
    folder = tmp_path_factory.mktemp("built")
    animals = ["penguin", "bird", "sea", "ice"]
    records = [
        {"id": f"d{i}", "title": "Warm" if i % 2 else None, "text": f"the {animals[i % 4]} {i}\nof ice", "year": i}
        for i in range(12)
    ]
    records.append({"id": "é", "text": "Ünïcode … 漢字 🐧"})
    write_jsonl(folder / "docs.jsonl", records)
    outcome = run("index", "docs.jsonl", "-m", tiny_model, "--json", cwd=folder)
    assert outcome.stdout.splitlines() == [
        '{"committed": 13}',
        '{"index": "docs.jv5", "documents": 13, "skipped": 0}',
    ]
    return folder


@pytest.fixture
def rows_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where training rows are kept that a test opens."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("JV5KIT_CACHE", str(folder))
    return folder


@pytest.fixture
def rows_file(tmp_path: Path, rows_cache: Path) -> RowsFile:
    """Write training rows, to be kept in a cache of their own."""

    def make(rows: Iterable[Mapping[str, object] | str], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return make
