"""The native embedding of a text is the same to the last bit in any batch, in any order, by however many threads."""

import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest
from command import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TEXTS

from jv5kit import Encoder, _native
from jv5kit.backends import DType
from jv5kit.errors import InputError

MODELS = {
    "bert": {"hidden_size": 52, "intermediate_size": 100},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32, "hidden_size": 72},
}


@pytest.fixture(scope="module", params=list(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose context holds texts that all threads share."""
    folder = tmp_path_factory.mktemp("exact") / "model"
    vocabulary = models.write_tokenizer(folder, template="$A [SEP]", context=4096)
    settings = {"vocab_size": vocabulary, "max_position_embeddings": 4096, "pad_token_id": 0} | MODELS[request.param]
    return models.random_model(folder, request.param, **settings)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def exact(request: pytest.FixtureRequest, folder: Path) -> Encoder:
    return Encoder.from_pretrained(folder, backend="native", dtype=request.param)


@settings(max_examples=25, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=150),
    batch_size=st.sampled_from([None, 1, 7]),
    threads=st.sampled_from(["1", "2", "3"]),
)
def test_a_text_is_the_same_in_any_company(
    exact: Encoder, chosen: list[int], batch_size: int | None, threads: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JV5KIT_THREADS", "1")
        alone = np.stack([exact.encode(text) for text in TEXTS])
        patch.setenv("JV5KIT_THREADS", threads)
        together = exact.encode([TEXTS[i] for i in chosen], batch_size=batch_size)
    np.testing.assert_array_equal(together, alone[chosen])


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(len(TEXTS))), dim=st.sampled_from([5, 32, None]))
def test_codes_and_truncated_embeddings_are_too(exact: Encoder, order: list[int], dim: int | None) -> None:
    for options in ({"precision": "ubinary"}, {"normalize_embeddings": False}, {}):
        expected = exact.encode(TEXTS, truncate_dim=dim, **options)
        found = exact.encode([TEXTS[i] for i in order], truncate_dim=dim, **options)
        np.testing.assert_array_equal(found, expected[order])


FORCED = """
import os, sys
import numpy as np
from jv5kit import Encoder, _native
folder, dtype = sys.argv[1:]
encoder = Encoder.from_pretrained(folder, backend="native", dtype=dtype)
words = ["sea", "penguin", "ice", "bird", "a warm"]
lengths = [1, 3, 60, 700, 2, 383, 384, 385, 95, 96, 97, 1, 2100, *range(20, 60)]
texts = [f"{words[i % 5]} " * length for i, length in enumerate(lengths)]
os.environ["JV5KIT_THREADS"] = "1"
alone = np.stack([encoder.encode(text) for text in texts])
rng = np.random.default_rng(0)
for threads, batch_size in ("1", None), ("2", None), ("3", None), ("2", 1), ("3", 7):
    os.environ["JV5KIT_THREADS"] = threads
    order = rng.permutation(len(texts))
    together = encoder.encode([texts[i] for i in order], batch_size=batch_size)
    assert np.array_equal(together, alone[order]), (threads, batch_size)
assert len(np.unique(alone, axis=0)) == len(texts)
print(*_native.simd_tier()[:2], encoder.backend.dtype)
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tier", _native.simd_tier()[2])
def test_it_is_so_on_every_tier(folder: Path, tier: str, dtype: DType) -> None:
    """Texts among them that all threads share, and as many as the threads take pieces of."""
    result = subprocess.run(
        [sys.executable, "-c", FORCED, str(folder), dtype],
        env=environment(JV5KIT_SIMD=tier),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.stdout == f"{tier} True {dtype}\n", result.stderr


def test_threads_that_are_no_number_are_named(exact: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JV5KIT_THREADS", "many")
    with pytest.raises(InputError, match="JV5KIT_THREADS=many is not a positive number"):
        exact.encode("a penguin")
