import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TEXTS
from numpy.typing import NDArray

from jv5kit import Encoder, Index
from jv5kit import encoder as encoder_module
from jv5kit.errors import InputError

Floats = NDArray[np.float32]

FOLDERS: dict[str, Callable[[Path], Path]] = {
    "mean, flags": lambda folder: models.as_sentence_transformers(models.bert(folder), layout="flags"),
    "mean, paths": lambda folder: models.as_sentence_transformers(models.bert(folder)),
    "cls, flags": lambda folder: models.as_sentence_transformers(models.bert(folder), pooling="cls", layout="flags"),
    "cls, paths": lambda folder: models.as_sentence_transformers(models.bert(folder), pooling="cls", normalize=False),
    "lasttoken, flags": lambda folder: models.as_sentence_transformers(
        models.bert(folder), pooling="lasttoken", layout="flags"
    ),
    "lower case": lambda folder: models.as_sentence_transformers(
        models.bert(folder, lower_case=False), do_lower_case=True, prompts={"query": "QUERY: "}
    ),
    "short context": lambda folder: models.as_sentence_transformers(models.bert(folder), max_seq_length=12),
    "plain bert": models.bert,
    "qwen3, paths": lambda folder: models.as_sentence_transformers(models.qwen3(folder), pooling="lasttoken"),
    "qwen3, mean": lambda folder: models.as_sentence_transformers(models.qwen3(folder), layout="flags"),
}


@pytest.fixture(scope="module", params=list(FOLDERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp("layouts") / "model")


def reference(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def assert_same_direction(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    assert ours.shape == theirs.shape
    cosines = (unit(ours) * unit(theirs)).sum(axis=-1)
    assert cosines.min() >= 0.99999, cosines


def test_every_layout_equals_sentence_transformers(folder: Path) -> None:
    theirs = reference(folder)
    ours = Encoder.from_pretrained(folder, device="cpu")
    embeddings = ours.encode(TEXTS)
    assert embeddings.dtype == np.float32
    assert_same_direction(embeddings, theirs.encode(TEXTS, normalize_embeddings=True))
    # The texts are well apart, so that a wrong pooling, cut or order could not pass.
    distinct = [i for i, text in enumerate(TEXTS) if text.strip()]
    cosines = embeddings[distinct] @ embeddings[distinct].T
    assert np.median(cosines) < 0.95

    raw = ours.encode(TEXTS, normalize_embeddings=False)
    np.testing.assert_allclose(raw, theirs.encode(TEXTS), rtol=1e-3, atol=1e-5)
    prompt = "QUERY: a penguin "
    assert_same_direction(ours.encode(TEXTS, prompt=prompt), theirs.encode(TEXTS, prompt=prompt))


def test_the_default_model_equals_sentence_transformers() -> None:
    ours = Encoder.from_pretrained(device="cpu")
    assert (ours.dim, ours.checkpoint.name) == (384, "all-MiniLM-L6-v2")
    theirs = reference(ours.checkpoint.folder)
    embeddings = ours.encode(TEXTS)
    assert_same_direction(embeddings, theirs.encode(TEXTS))
    np.testing.assert_allclose(embeddings, theirs.encode(TEXTS), atol=1e-5)


def test_a_model_saved_by_sentence_transformers_is_read(tiny_model: Path, encoder: Encoder, tmp_path: Path) -> None:
    reference(tiny_model).save(str(tmp_path / "saved"))
    saved = Encoder.from_pretrained(tmp_path / "saved", device="cpu")
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


def test_batches_keep_the_budget_and_the_size(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, int]] = []
    embed = encoder.backend.embed

    def record(batch: Any) -> Floats:
        shapes.append((len(batch), max(map(len, batch))))
        return embed(batch)

    monkeypatch.setattr(encoder.backend, "embed", record)
    monkeypatch.setattr(encoder.backend, "batch_tokens", 100)
    texts = ["a " * (i % 60) for i in range(50)]
    encoder.encode(texts)
    assert sum(size for size, _ in shapes) == 50
    assert all(size * longest <= 100 for size, longest in shapes)
    shapes.clear()
    encoder.encode(texts, batch_size=7)
    assert [size for size, _ in shapes] == [7] * 7 + [1]


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
    theirs = reference(tiny_model)
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
    theirs = reference(tiny_model)
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
    encoder, theirs = Encoder.from_pretrained(folder, device="cpu"), reference(folder)
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
    monkeypatch.setattr(encoder.backend, "embed", lambda batch: pytest.fail("encoded"))
    with pytest.raises(InputError, match=r"inputs\[5000\] is int"):
        # The wrong type is what is tested.
        encoder.encode(["a"] * 5000 + [1])  # type: ignore[list-item]
