"""Models of the hub: what is downloaded, what the cache is good for, and what is said where nothing is to be had."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import released
from command import fails, run
from hub_server import COMMIT, Hub, serve

from jv5kit.pretrained import load_checkpoint

ID = "jinaai/jina-embeddings-v5-text-small"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released layout, and what else such repositories have."""
    folder = released.unified(tmp_path_factory.mktemp("hub") / "small", "small")
    for name in ("onnx/model.onnx", "onnx/config.json", "v5-small-Q8_0.gguf", "pytorch_model.bin", "assets/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("large")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with serve(Hub({ID: repository})) as hub:
        yield hub


def test_only_what_is_needed_is_downloaded(hub: Hub, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"text": "a penguin"}\n')
    command: list[str | Path] = ["encode", tmp_path / "docs.jsonl", "--task", "clustering", "-m"]
    fetched = run(*command, ID, **hub.environment(tmp_path / "home")).stdout
    assert fetched == run(*command, repository).stdout
    adapters = {
        f"adapters/{task}/adapter_{name}" for task in released.TASKS for name in ("config.json", "model.safetensors")
    }
    wanted = adapters | {
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    snapshot = next((tmp_path / "home").glob(f"hub/models--*/snapshots/{COMMIT}"))
    assert {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()} == wanted
    # Files of the same content are fetched once.
    assert hub.fetched <= wanted

    hub.fetched.clear()
    assert run(*command, ID, **hub.environment(tmp_path / "home")).stdout == fetched
    assert hub.fetched == set(), "the cache has it"
    offline = hub.environment(tmp_path / "home", HF_HUB_OFFLINE="1")
    assert run(*command, ID, **offline).stdout == fetched
    gone = hub.environment(tmp_path / "home", HF_ENDPOINT="http://127.0.0.1:9")
    assert run(*command, ID, **gone).stdout == fetched
    facts = json.loads(run("info", "-m", ID, "--json", **offline).stdout)
    assert facts["model_license"] == "CC BY-NC 4.0: non-commercial use only"
    assert facts["model_fingerprint"] == load_checkpoint(repository).fingerprint()
    assert not (repository / released.MARKER).exists()


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_may_be_named(hub: Hub, tmp_path: Path, revision: str) -> None:
    """And is remembered, by an index too."""
    (tmp_path / "docs.jsonl").write_text('{"text": "a penguin"}\n')
    variables = hub.environment(tmp_path / "home")
    run("index", "docs.jsonl", "-m", f"{ID}@{revision}", cwd=tmp_path, **variables)
    facts = json.loads(run("info", "docs.jv5", "-m", f"{ID}@{revision}", "--json", cwd=tmp_path, **variables).stdout)
    assert facts["model"] == facts["index_model"] == f"{ID}@{revision}"
    offline = hub.environment(tmp_path / "home", HF_HUB_OFFLINE="1")
    assert "a penguin" in run("search", "penguin", cwd=tmp_path, **offline).stdout


def test_a_card_that_is_missing_is_no_obstacle(hub: Hub, tmp_path: Path, tiny_model: Path) -> None:
    hub.folders["org/tiny"] = tiny_model
    for offline in ("0", "1"):
        variables = hub.environment(tmp_path / "home", HF_HUB_OFFLINE=offline)
        facts = json.loads(run("info", "-m", "org/tiny", "--json", **variables).stdout)
        assert facts["model_dim"] == 64
        assert "model_license" not in facts


@pytest.mark.parametrize(
    ("model", "refused", "message"),
    [
        (ID, "GatedRepo", "it is gated; accept its terms on its page of the hub, then log in with 'hf auth login'"),
        (ID, "RepoNotFound", "the hub has no such model; check the name, or if it is private log in with 'hf auth"),
        (f"{ID}@v9", None, "it has no such revision; name a branch, a tag or a commit of it"),
        ("jinaai/jina-embeddings-v5-text-tiny", None, "the hub has no such model; check the name"),
    ],
)
def test_what_the_hub_refuses(hub: Hub, tmp_path: Path, model: str, refused: str | None, message: str) -> None:
    if refused is not None:
        hub.refused[ID] = refused
    said = fails("info", "-m", model, **hub.environment(tmp_path / "home"))
    assert said.startswith(f"model {model!r} is no folder here and could not be fetched from the hub: {message}")


def test_without_a_network_it_is_said_what_to_do(hub: Hub, tmp_path: Path) -> None:
    said = fails("info", "-m", ID, **hub.environment(tmp_path / "home", HF_ENDPOINT="http://127.0.0.1:9"))
    assert said.endswith(f"fetch it elsewhere (hf download {ID} --local-dir FOLDER) and name that folder")
    said = fails("info", "-m", ID, **hub.environment(tmp_path / "home", HF_HUB_OFFLINE="1"))
    assert said.endswith("HF_HUB_OFFLINE forbids to fetch it; unset that, or name a folder")
    assert hub.fetched == set()


def test_a_download_that_broke_off_is_no_model(hub: Hub, tmp_path: Path) -> None:
    """A cache that lacks an adapter: another program may have filled it."""
    run("info", "-m", ID, **hub.environment(tmp_path / "home"))
    for path in (tmp_path / "home").rglob("adapters/clustering/adapter_config.json"):
        path.unlink()
    said = fails("info", "-m", ID, **hub.environment(tmp_path / "home", HF_HUB_OFFLINE="1"))
    # The hub's client found it out, or, where it is an older one, we did.
    assert "not all of it is in the cache" in said or "has no adapter for its task 'clustering'" in said
    run("info", "-m", ID, **hub.environment(tmp_path / "home"))
    run("info", "-m", ID, **hub.environment(tmp_path / "home", HF_HUB_OFFLINE="1"))


@pytest.mark.parametrize("name", [f"{ID}@", f"{ID}@a@b", "@main", f"{ID}@ main"])
def test_names_that_are_none(name: str) -> None:
    assert "neither a folder nor a hub id (ORGANIZATION/NAME or ORGANIZATION/NAME@REVISION)" in fails(
        "info", "-m", name
    )
