"""sentence-transformers: our models load there, theirs here, and a search of codes finds the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from command import Inside, random_rows
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import semantic_search_faiss

from jv5kit import Encoder, quantize_embeddings, rescored_search, truncate_embeddings
from jv5kit.weights import read_weights

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["which bird never lands", "Swifts sleep, eat and drink on the wing.", "how to open a zip archive"]
Backend = Literal["native", "torch"]


@pytest.fixture(scope="module")
def pico() -> Encoder:
    return Encoder.from_pretrained("pico", dtype="float32")


@pytest.mark.parametrize("task", ["retrieval", "clustering"])
def test_the_model_in_the_package_loads_there(inside: Inside, tmp_path: Path, pico: Encoder, task: str) -> None:
    """It has int8 rows, which they would take for weights: an export for other libraries has floats."""
    inside("export", "pico", "-o", tmp_path / "model", "--merge", task)
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    expected = pico.encode(TEXTS, task=task)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)
    # And from there it comes back.
    model.save(str(tmp_path / "saved"))
    back = Encoder.from_pretrained(tmp_path / "saved", dtype="float32")
    np.testing.assert_allclose(back.encode(TEXTS), expected, atol=1e-5)


def test_an_export_of_int8_rows_has_floats_unless_it_is_asked_for_rows(
    inside: Inside, tmp_path: Path, pico: Encoder
) -> None:
    for name, options in (("floats", []), ("rows", ["--int8"])):
        inside("export", "pico", "-o", tmp_path / name, *options)
        kinds = {kind for kind, _, _ in read_weights((tmp_path / name).glob("*.safetensors")).values()}
        assert kinds == ({"F32"} if name == "floats" else {"F32", "I8"})
        for backend in ("native", "torch"):
            again = Encoder.from_pretrained(tmp_path / name, backend=backend, dtype="float32", device="cpu")
            for task in ("retrieval", "text-matching"):
                np.testing.assert_allclose(again.encode(TEXTS, task=task), pico.encode(TEXTS, task=task), atol=1e-5)


def test_a_folder_goes_before_a_name(inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pico").mkdir()
    assert "pico is no jv5kit index" in inside("export", "pico", "-o", "out", code=2).stderr


def test_codes_are_searched_and_rescored_alike() -> None:
    """Where it is clear which rows are candidates: of those with one distance either library may take any."""
    rows, queries = (truncate_embeddings(random_rows(count, 512, seed=count), 512) for count in (1500, 60))
    codes, top_k, oversample = quantize_embeddings(rows), 5, 4
    scores, found = rescored_search(queries, codes, top_k, oversample=oversample)
    hits = semantic_search_faiss(
        queries, corpus_embeddings=codes, corpus_precision="ubinary", top_k=top_k, rescore_multiplier=oversample
    )[0]
    query_codes = quantize_embeddings(queries)
    clear = 0
    for i, theirs in enumerate(hits):
        distances = np.sort(np.unpackbits(codes ^ query_codes[i], axis=1).sum(axis=1))
        if distances[top_k * oversample - 1] == distances[top_k * oversample]:
            continue
        clear += 1
        assert found[i].tolist() == [hit["corpus_id"] for hit in theirs]
        # Their bits are 0 and 1, ours ±1 / √dim, which makes a score an estimate of the cosine.
        estimates = (2 * np.array([hit["score"] for hit in theirs]) - queries[i].sum()) / np.sqrt(512)
        np.testing.assert_allclose(scores[i], estimates, atol=1e-5)
    assert clear > 10
