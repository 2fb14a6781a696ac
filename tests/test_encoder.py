import inspect
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TEXTS
from references import assert_same_direction, sentence_transformer, unit

from jv5kit import Encoder, Index
from jv5kit import encoder as encoder_module
from jv5kit.errors import InputError

MINILM = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    """The encoder of ``tiny_model``, in the type of those that it is compared with."""
    return Encoder.from_pretrained(tiny_model, device="cpu", dtype="float32")


def test_minilm_equals_sentence_transformers() -> None:
    ours = Encoder.from_pretrained(MINILM, device="cpu")
    assert (ours.dim, ours.checkpoint.name) == (384, MINILM)
    assert ours.backend.name == "native"
    theirs = sentence_transformer(ours.checkpoint.folder).encode(TEXTS)
    assert_same_direction(ours.encode(TEXTS), theirs, ours.backend.dtype)
    np.testing.assert_allclose(Encoder.from_pretrained(MINILM, dtype="float32").encode(TEXTS), theirs, atol=1e-5)
    np.testing.assert_allclose(Encoder.from_pretrained(MINILM, backend="torch").encode(TEXTS), theirs, atol=1e-5)


def test_a_model_saved_by_sentence_transformers_is_read(tiny_model: Path, encoder: Encoder, tmp_path: Path) -> None:
    sentence_transformer(tiny_model).save(str(tmp_path / "saved"))
    saved = Encoder.from_pretrained(tmp_path / "saved", device="cpu", dtype="float32")
    assert saved.checkpoint.prompts == encoder.checkpoint.prompts
    np.testing.assert_allclose(saved.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_a_text_without_a_token_is_embedded(tmp_path: Path) -> None:
    """A tokenizer that adds no special tokens makes nothing of an empty text."""
    encoder = Encoder.from_pretrained(models.qwen3(tmp_path / "model", end=""), device="cpu")
    embeddings = encoder.encode(["", "a penguin"])
    assert np.isfinite(embeddings).all()
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


def test_shapes_follow_the_input(encoder: Encoder) -> None:
    assert encoder.encode("a penguin").shape == (64,)
    assert encoder.encode(["a penguin"]).shape == (1, 64)
    assert encoder.encode(("a penguin", "a bird")).shape == (2, 64)
    assert encoder.encode([]).shape == (0, 64)
    assert encoder.encode([], truncate_dim=24).shape == (0, 24)
    assert encoder.encode([], precision="ubinary", truncate_dim=24).shape == (0, 3)
    assert encoder.encode("a penguin", precision="ubinary").shape == (8,)
    np.testing.assert_allclose(encoder.encode("a penguin"), encoder.encode(["a penguin"])[0], atol=1e-6)


@pytest.mark.parametrize(
    "inputs",
    [
        np.array(["a penguin", "the cold sea"]),
        np.array(["a penguin", "the cold sea"], dtype=object),
        {"a penguin": 1, "the cold sea": 2}.keys(),
        iter(["a penguin", "the cold sea"]),
    ],
)
def test_strings_of_any_iterable_are_texts(encoder: Encoder, inputs: Any) -> None:
    np.testing.assert_array_equal(encoder.encode(inputs), encoder.encode(["a penguin", "the cold sea"]))


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 120), min_size=1, max_size=40),
    batch_size=st.sampled_from([None, 1, 3, 64]),
    window=st.integers(1, 17),
)
def test_the_order_is_restored(encoder: Encoder, lengths: list[int], batch_size: int | None, window: int) -> None:
    texts = [f"{models.WORDS[i % len(models.WORDS)]} " * length for i, length in enumerate(lengths)]
    one_by_one = np.stack([encoder.encode(text) for text in texts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "WINDOW", window)
        together = encoder.encode(texts, batch_size=batch_size)
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


@pytest.mark.parametrize("pads", [False, True])
def test_batches_keep_the_budget_and_the_size(encoder: Encoder, monkeypatch: pytest.MonkeyPatch, pads: bool) -> None:
    """Of tokens where nothing is padded, and of padded ones where the longest text sets the length of all."""
    batches: list[list[int]] = []
    embed = encoder.backend.embed

    def record(batch: Any, adapter: Any, output: Any) -> Any:
        batches.append([len(tokens) for tokens in batch])
        return embed(batch, adapter, output)

    monkeypatch.setattr(encoder.backend, "embed", record)
    monkeypatch.setattr(encoder.backend, "pads", pads)
    monkeypatch.setattr(encoder.backend, "batch_tokens", 100)
    texts = ["a " * (i % 60) for i in range(50)]
    lengths = [i % 60 + 2 for i in range(50)]
    encoder.encode(texts)
    if pads:
        assert [length for batch in batches for length in batch] == sorted(lengths, reverse=True)
        assert all(len(batch) * batch[0] <= 100 for batch in batches)
    else:
        assert [length for batch in batches for length in batch] == lengths
        assert all(sum(batch) <= 100 for batch in batches)
        assert all(sum(batch) + following[0] > 100 for batch, following in pairwise(batches))
    batches.clear()
    encoder.encode(texts, batch_size=7)
    assert [len(batch) for batch in batches] == [7] * 7 + [1]


@pytest.mark.parametrize("pads", [False, True])
def test_a_text_beyond_the_budget_is_a_batch_of_its_own(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, pads: bool
) -> None:
    monkeypatch.setattr(encoder.backend, "pads", pads)
    texts = ["a " * 60, "a", "a " * 60]
    expected = encoder.encode(texts)
    monkeypatch.setattr(encoder.backend, "batch_tokens", 50)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(dim=st.integers(1, 64), normalize=st.booleans())
def test_truncate_then_normalize_then_quantize(encoder: Encoder, dim: int, normalize: bool) -> None:
    """Against NumPy, from the model's whole embeddings on."""
    texts = TEXTS[:4]
    whole = encoder.encode(texts, normalize_embeddings=False)
    expected = whole[:, :dim].astype(np.float64)
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    embeddings = encoder.encode(texts, truncate_dim=dim, normalize_embeddings=normalize)
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    codes = encoder.encode(texts, truncate_dim=dim, normalize_embeddings=normalize, precision="ubinary")
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.packbits(expected > 0, axis=1))


def test_a_model_that_does_not_normalize_keeps_its_lengths(tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(models.bert(tmp_path / "model"), device="cpu")
    texts = ["a penguin", "the cold sea"]
    raw = encoder.encode(texts, normalize_embeddings=False)
    lengths = np.linalg.norm(raw, axis=1)
    assert (np.abs(lengths - 1) > 0.5).all()
    np.testing.assert_allclose(encoder.encode(texts), raw / lengths[:, None], atol=1e-6)
    np.testing.assert_array_equal(encoder.encode(texts, normalize_embeddings=False, truncate_dim=5), raw[:, :5])


def test_precisions_equal_sentence_transformers(tiny_model: Path, encoder: Encoder) -> None:
    theirs = sentence_transformer(tiny_model)
    ours = encoder.encode(TEXTS, precision="ubinary", truncate_dim=32)
    expected = theirs.encode(TEXTS, precision="ubinary", truncate_dim=32)
    # Rounding may turn the sign of a value next to 0.
    assert np.unpackbits(ours ^ expected).sum() <= 1


# Prompts


def test_prompts_go_before_the_text(encoder: Encoder) -> None:
    text = "a penguin"
    as_query, as_document, bare = (encoder.encode(prefix + text) for prefix in ("Query: ", "Document: ", ""))
    assert not np.allclose(as_query, as_document, atol=0.05)
    assert not np.allclose(as_query, bare, atol=0.05)
    for expected, actual in [
        (bare, encoder.encode(text, prompt="")),
        (as_query, encoder.encode(text, prompt="Query: ")),
        (as_query, encoder.encode(text, prompt_name="query")),
        (as_query, encoder.encode(text, prompt="Query: ", prompt_name="document")),
        (as_query, encoder.encode_query(text)),
        (as_document, encoder.encode_document(text)),
        (as_document, encoder.encode_query(text, task="clustering")),
        (as_document, encoder.encode_document(text, task="clustering")),
        (as_document, encoder.encode_query(text, prompt_name="document")),
        (as_query, encoder.encode_document(text, prompt="Query: ")),
        (bare, encoder.encode_query(text, prompt="")),
        (bare, encoder.encode(text, task="classification")),
    ]:
        np.testing.assert_array_equal(actual, expected)


def test_prompts_equal_sentence_transformers(tiny_model: Path, encoder: Encoder) -> None:
    theirs = sentence_transformer(tiny_model)
    assert_same_direction(encoder.encode_query(TEXTS), theirs.encode_query(TEXTS))
    assert_same_direction(encoder.encode_document(TEXTS), theirs.encode_document(TEXTS))
    assert_same_direction(
        encoder.encode(TEXTS, prompt_name="clustering"), theirs.encode(TEXTS, prompt_name="clustering")
    )


def test_an_unknown_prompt_name_is_an_error(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"'poem' .*'query', 'document', 'clustering'"):
        encoder.encode("a penguin", prompt_name="poem")
    with pytest.raises(InputError, match="'poem'"):
        encoder.encode_query("a penguin", prompt_name="poem")


def test_the_default_prompt_is_for_encode_alone(tmp_path: Path) -> None:
    prompts = {"query": "Query: ", "document": "", "cluster": "Cluster: "}
    folder = models.as_sentence_transformers(
        models.bert(tmp_path / "model"), prompts=prompts, default_prompt_name="cluster"
    )
    encoder, theirs = Encoder.from_pretrained(folder, device="cpu", dtype="float32"), sentence_transformer(folder)
    for method, name in [("encode", None), ("encode_query", None), ("encode_document", None), ("encode", "document")]:
        ours = getattr(encoder, method)("a penguin", prompt_name=name)
        assert_same_direction(ours, getattr(theirs, method)("a penguin", prompt_name=name))
    np.testing.assert_array_equal(encoder.encode("a bird"), encoder.encode("a bird", prompt="Cluster: "))


def test_a_model_without_prompts_takes_texts_as_they_are(tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(models.bert(tmp_path / "model"), device="cpu")
    bare = encoder.encode("a penguin")
    np.testing.assert_array_equal(encoder.encode_query("a penguin"), bare)
    np.testing.assert_array_equal(encoder.encode_document("a penguin"), bare)
    np.testing.assert_array_equal(encoder.encode("a penguin", prompt_name="query"), bare)


def test_similarity_is_the_cosine(encoder: Encoder) -> None:
    rows = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32) * 3
    cosines = encoder.similarity(rows, rows[:2])
    assert cosines.shape == (5, 2)
    assert cosines.dtype == np.float32
    np.testing.assert_allclose(cosines, unit(rows) @ unit(rows[:2]).T, atol=1e-6)
    assert encoder.similarity(rows[0], rows).shape == (1, 5)
    assert encoder.similarity(rows[0].tolist(), rows[1].tolist()).shape == (1, 1)
    with pytest.raises(InputError, match="64 dimensions and b has 8"):
        encoder.similarity(rows, rows[:, :8])


# Texts beyond the context


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_one_warning_counts_the_texts_that_were_cut(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    # 94 words and two special tokens fill the context.
    encoder.encode(["sea " * 94, "short", "sea " * 95, "sea " * 5000, ""], batch_size=1)
    assert warnings_of(caplog) == ["2 of 5 texts are longer than the model's 96 tokens and were cut"]


def test_no_warning_where_nothing_was_cut(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    encoder.encode(["sea " * 94, "short"])
    assert warnings_of(caplog) == []


def test_a_prompt_counts_toward_the_context(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    encoder.encode_query(["sea " * 94])
    assert warnings_of(caplog) == ["1 of 1 texts are longer than the model's 96 tokens and were cut"]


def test_an_index_of_several_batches_warns_once(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BATCH_DOCUMENTS", "MAX_BATCH_DOCUMENTS"):
        monkeypatch.setattr(f"jv5kit.sources.{name}", 4)
    documents = [{"text": "sea " * (200 if i % 2 else 3) + str(i)} for i in range(10)]
    commits: list[int] = []
    Index.build(tmp_path / "x.jv5", documents, encoder, on_commit=commits.append).close()
    assert commits == [4, 8, 10]
    assert warnings_of(caplog) == ["5 of 10 texts are longer than the model's 96 tokens and were cut"]


def test_a_cut_text_is_the_beginning_of_it(encoder: Encoder) -> None:
    beginning = "penguin " * 94
    np.testing.assert_array_equal(encoder.encode(beginning + "sea " * 9), encoder.encode(beginning))


# Arguments


def test_the_signature_is_that_of_the_design() -> None:
    parameters = inspect.signature(Encoder.encode).parameters.values()
    assert [(p.name, p.default) for p in parameters if p.name not in ("self", "inputs")] == [
        ("task", "retrieval"),
        ("prompt_name", None),
        ("prompt", None),
        ("batch_size", None),
        ("precision", "float32"),
        ("normalize_embeddings", True),
        ("truncate_dim", None),
        ("show_progress_bar", None),
    ]
    kinds = [p.kind for p in parameters]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2 + [inspect.Parameter.KEYWORD_ONLY] * 8


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (b"a penguin", {}, "inputs is bytes; it must be a string or a sequence of strings"),
        (b"", {}, "inputs is bytes"),
        (None, {}, "inputs is NoneType"),
        (7, {}, "inputs is int"),
        ([b"a penguin"], {}, r"inputs\[0\] is bytes; it must be a string"),
        (["a penguin", None], {}, r"inputs\[1\] is NoneType"),
        ([["a", "b"]], {}, r"inputs\[0\] is list"),
        (["a", "half \ud83d"], {}, r"inputs\[1\] has half of a surrogate pair"),
        ("half \ud83d", {}, "has half of a surrogate pair"),
        ("a", {"prompt": "half \ud83d"}, "prompt has half of a surrogate pair"),
        ("a", {"prompt": b"Query: "}, "prompt is bytes; it must be a string"),
        ("a", {"batch_size": 0}, "batch_size=0; it must be at least 1"),
        ("a", {"batch_size": -3}, "batch_size=-3"),
        ("a", {"precision": "int4"}, "precision='int4' is not known; choose 'float32' or 'ubinary'"),
        ("a", {"truncate_dim": 0}, "truncate_dim=0 is outside 1..64"),
        ("a", {"truncate_dim": 65}, "truncate_dim=65 is outside 1..64, the model's dimensions"),
    ],
)
def test_wrong_arguments_are_named(encoder: Encoder, inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder.encode(inputs, **options)


def test_a_wrong_argument_is_found_before_anything_is_encoded(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder.backend, "embed", lambda *_: pytest.fail("encoded"))
    with pytest.raises(InputError, match=r"inputs\[5000\] is int"):
        # The wrong type is what is tested.
        encoder.encode(["a"] * 5000 + [1])  # type: ignore[list-item]
