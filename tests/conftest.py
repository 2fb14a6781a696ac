"""Models that the tests share: made once in a run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Read by the hub's client when it is imported: no test may need a network.
os.environ["HF_HUB_OFFLINE"] = "1"

import models

if TYPE_CHECKING:
    from jv5kit import Encoder

PROMPTS = {"query": "Query: ", "document": "Document: ", "clustering": "Cluster: "}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults, whatever the developer's shell sets."""
    for name in ("JV5KIT_MODEL", "JV5KIT_CACHE", "JV5KIT_LOG"):
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
    """The encoder of ``tiny_model``."""
    from jv5kit import Encoder

    return Encoder.from_pretrained(tiny_model, device="cpu")


@pytest.fixture
def model_copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of ``tiny_model`` to break."""
    import shutil

    return Path(shutil.copytree(tiny_model, tmp_path / "model"))
