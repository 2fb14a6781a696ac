"""The numbers that were published for jina-embeddings-v5-text, wherever its weights are: ``pytest -m hub``.

They are looked for in the folder that JV5KIT_RELEASED names (with a folder a model, by the last part of its id), else
in the cache of the hub. That the check itself can fail is tried on a tiny model.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import released
from references import released_embeddings

from jv5kit import Encoder
from jv5kit.errors import ModelNotFoundError
from jv5kit.pretrained import load_checkpoint

QUERY = "Which planet is known as the Red Planet?"
DOCUMENTS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]


@dataclass(frozen=True)
class Published:
    """What was published of a model.

    Attributes:
        cosines: of the query and each document.
        dim: values of an embedding.
        max_tokens: least context that its settings must allow.
    """

    cosines: tuple[float, ...]
    dim: int
    max_tokens: int


SMALL = Published((0.486, 0.76114, 0.5914, 0.6188), 1024, 32_768)
NANO = Published((0.50306, 0.79173, 0.61259, 0.57484), 768, 8_192)
PUBLISHED = {
    "jinaai/jina-embeddings-v5-text-small": SMALL,
    "jinaai/jina-embeddings-v5-text-small-retrieval": SMALL,
    "jinaai/jina-embeddings-v5-text-nano": NANO,
    "jinaai/jina-embeddings-v5-text-nano-retrieval": NANO,
}
"""Of sentence-transformers' tests of the retrieval repositories; those with adapters have the same in them."""


def check(encoder: Encoder, published: Published) -> None:
    """Compare a model with what was published of it, to a hundredth: the numbers are of bfloat16."""
    cosines = encoder.similarity(encoder.encode_query(QUERY), encoder.encode_document(DOCUMENTS))[0]
    np.testing.assert_allclose(cosines, published.cosines, rtol=0.01)
    assert encoder.dim == published.dim
    assert encoder.checkpoint.max_tokens >= published.max_tokens


def located(model: str) -> str:
    """The folder or the id that a released model is at, if it is anywhere here."""
    root = os.environ.get("JV5KIT_RELEASED")
    if root:
        folder = Path(root) / model.rpartition("/")[2]
        if not folder.is_dir():
            pytest.skip(f"{folder} is no folder: JV5KIT_RELEASED has no {model}")
        return str(folder)
    try:
        return load_checkpoint(model).name
    except ModelNotFoundError as error:
        pytest.skip(f"no weights; fetch them, or name their folder in JV5KIT_RELEASED: {error}")


@pytest.mark.hub
@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("model", PUBLISHED)
def test_a_released_model_has_its_published_numbers(model: str, backend: str) -> None:
    encoder = Encoder.from_pretrained(located(model), backend="native" if backend == "native" else "torch")
    check(encoder, PUBLISHED[model])
    assert encoder.checkpoint.license == "cc-by-nc-4.0"
    assert set(encoder.checkpoint.adapters) == (set() if model.endswith("-retrieval") else set(released.TASKS))


@pytest.mark.hub
@pytest.mark.parametrize("model", [model for model in PUBLISHED if "small" in model])
def test_the_tokens_of_small_are_the_published_ones(model: str) -> None:
    encoder = Encoder.from_pretrained(located(model), device="cpu")
    tokens, _ = encoder.tokenize(["How fast does light travel in a vacuum?"], "Query: ")
    assert tokens[0][:2] == [2859, 25]
    assert tokens[0][-2:] == [28202, 30]


def test_the_check_passes_what_peft_computes_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = released.unified(tmp_path / "jina-embeddings-v5-text-small", "small")
    rows = released_embeddings(folder, ["Query: " + QUERY, *("Document: " + text for text in DOCUMENTS)], "retrieval")
    cosines = tuple((rows[1:] @ rows[0]).tolist())
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    check(encoder, Published(cosines, released.DIM, released.CONTEXT))
    for wrong in (
        Published((*cosines[:3], cosines[3] * 1.03), released.DIM, released.CONTEXT),
        Published(cosines, released.DIM + 1, released.CONTEXT),
        Published(cosines, released.DIM, released.CONTEXT + 1),
    ):
        with pytest.raises(AssertionError):
            check(encoder, wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(encoder, SMALL)
    # Another task's adapter would not pass for it.
    monkeypatch.setattr(encoder, "adapter", lambda _: "clustering")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(encoder, Published(cosines, released.DIM, released.CONTEXT))


def test_weights_are_looked_for_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JV5KIT_RELEASED", str(tmp_path))
    folder = released.unified(tmp_path / "jina-embeddings-v5-text-nano", "nano")
    assert located("jinaai/jina-embeddings-v5-text-nano") == str(folder)
    with pytest.raises(pytest.skip.Exception, match="JV5KIT_RELEASED has no jinaai/jina-embeddings-v5-text-small"):
        located("jinaai/jina-embeddings-v5-text-small")
    monkeypatch.delenv("JV5KIT_RELEASED")
    monkeypatch.setenv("JV5KIT_CACHE", str(tmp_path / "empty"))
    with pytest.raises(pytest.skip.Exception, match="no weights; fetch them, or name their folder"):
        located("jinaai/jina-embeddings-v5-text-small")
