from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jv5kit.evaluation.encoding import TextEncoder

if TYPE_CHECKING:
    from jv5kit import Encoder


@pytest.fixture
def encoded(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, Any]]]:
    """What the model was asked to encode."""
    asked: list[tuple[list[str], dict[str, Any]]] = []
    encode = encoder.encode

    def remember(texts: list[str], **options: Any) -> Any:
        asked.append((list(texts), options))
        return encode(texts, **options)

    monkeypatch.setattr(encoder, "encode", remember)
    return asked


def test_a_text_is_encoded_once(encoder: Encoder, encoded: list[tuple[list[str], dict[str, Any]]]) -> None:
    texts = TextEncoder(encoder)
    first = texts(["a penguin", "ice", "a penguin"], "text-matching")
    again = texts(["ice", "the sea", "a penguin"], "text-matching")
    assert [asked for asked, _ in encoded] == [["a penguin", "ice"], ["the sea"]]
    assert (texts.texts, first.shape, again.shape) == (3, (3, encoder.dim), (3, encoder.dim))
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[:2][::-1], again[[0, 2]])
    assert texts.seconds > 0
    texts.forget()
    texts(["ice"], "text-matching")
    assert texts.texts == 4


def test_prompts_and_adapters_are_kept_apart(
    encoder: Encoder, encoded: list[tuple[list[str], dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = TextEncoder(encoder)
    document, query = texts(["ice"], "retrieval"), texts(["ice"], "retrieval", queries=True)
    np.testing.assert_array_equal(document, encoder.encode_document(["ice"]))
    np.testing.assert_array_equal(query, encoder.encode_query(["ice"]))
    assert not np.array_equal(document, query)
    before = texts.texts
    # Without adapters a task changes nothing: a query that is none of retrieval is a document, too.
    np.testing.assert_array_equal(texts(["ice"], "clustering"), document)
    np.testing.assert_array_equal(texts(["ice"], "text-matching", queries=True), document)
    assert texts.texts == before


def test_embeddings_of_all_that_is_known_are_not_copied(encoder: Encoder) -> None:
    texts = TextEncoder(encoder)
    corpus = ["a", "b", "c"]
    assert texts(corpus, "retrieval") is texts(corpus, "retrieval")


def test_one_warning_counts_the_texts_that_were_cut(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "jv5kit"):
        TextEncoder(encoder)(["ice " * 500, "ice", "sea " * 500], "retrieval")
    assert caplog.text.count("2 of 3 texts are longer than the model's 96 tokens and were cut") == 1
