from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jv5kit.encoder import load_tokenizer
from jv5kit.errors import InputError
from jv5kit.evaluation.long_documents import DOCUMENTS, LENGTHS, long_document_sets, make_set
from jv5kit.evaluation.metrics import mean, ndcg

if TYPE_CHECKING:
    from jv5kit import Encoder
    from jv5kit.evaluation.tasks import Retrieval


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    from jv5kit import Encoder

    return Encoder.from_pretrained("all-MiniLM-L6-v2", backend="native")


def lengths_of(encoder: Encoder, made: Retrieval) -> list[int]:
    """Tokens of each document, prompt and special tokens included."""
    tokenizer = load_tokenizer(encoder.checkpoint)
    tokenizer.no_truncation()
    texts = [encoder.document_prompt() + document.text for document in made.collection.documents]
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]


@pytest.mark.parametrize("kind", ["passkey", "needle"])
@pytest.mark.parametrize("length", [256, 1024])
def test_documents_are_as_long_as_can_be(minilm: Encoder, kind: str, length: int) -> None:
    made = make_set(minilm, kind, length)
    assert (made.kind, made.depth, len(made.collection.documents)) == ("long-documents", 1, DOCUMENTS)
    lengths = lengths_of(minilm, made)
    assert min(lengths) > length - 40 and max(lengths) <= length


def test_the_prompt_counts(encoder: Encoder) -> None:
    """The tiny model spells most words out: a fact has dozens of tokens."""
    made = make_set(encoder, "passkey", 300, documents=3)
    lengths = lengths_of(encoder, made)
    assert encoder.document_prompt() and min(lengths) > 200 and max(lengths) <= 300


def test_the_same_seed_makes_the_same_set(minilm: Encoder) -> None:
    for kind in ("passkey", "needle"):
        first = make_set(minilm, kind, 256)
        assert first == make_set(minilm, kind, 256)
        assert first != make_set(minilm, kind, 256, seed=1)


def test_a_passkey_is_told_once_and_asked_for_by_name(minilm: Encoder) -> None:
    made = make_set(minilm, "passkey", 256).collection
    people, places = set(), []
    for document, query in zip(made.documents, made.queries.values(), strict=True):
        name = query.removeprefix("what is the pass key of ")
        key = re.search(rf"The pass key of {name} is (\d{{5}})\. Remember it: \1 is", document.text)
        assert key
        assert [other.id for other in made.documents if name in other.text] == [document.id]
        people.add(name)
        places.append(key.start() / len(document.text))
    assert len(people) == DOCUMENTS
    # At every depth.
    assert min(places) < 0.2 and max(places) > 0.6 and np.std(places) > 0.15


def test_a_needle_is_asked_for_in_other_words_beside_others_like_it(minilm: Encoder) -> None:
    made = make_set(minilm, "needle", 256).collection
    assert len({document.text for document in made.documents}) == len(set(made.queries.values())) == DOCUMENTS
    towns = [query for query in made.queries.values() if "Dunmere" in query]
    assert len(towns) > 1
    assert sum("Dunmere" in document.text for document in made.documents) == len(towns)
    words = {"row", "chestnuts", "examinations", "ring", "glassblower", "surfboard", "storm", "snow"}
    assert not words & {word for query in made.queries.values() for word in query.split()}


def test_a_model_finds_what_it_reads(minilm: Encoder) -> None:
    for kind, least in (("passkey", 0.6), ("needle", 0.6)):
        made = make_set(minilm, kind, 128, documents=20)
        texts = made.texts()
        scores = minilm.encode(texts["queries"]) @ minilm.encode(texts["documents"]).T
        run = {f"q{i}": {f"d{j}": float(score) for j, score in enumerate(row)} for i, row in enumerate(scores)}
        found = mean(ndcg(made.collection.qrels, run, 1))
        assert found > least, kind


def test_lengths_beyond_the_context_are_left_out_with_a_word(minilm: Encoder) -> None:
    sets, skipped = long_document_sets(minilm)
    assert [one.name for one in sets] == ["passkey-256", "needle-256"]
    assert [line.partition(":")[0] for line in skipped] == [f"passkey-{n}, needle-{n}" for n in LENGTHS[1:]]
    assert skipped[0].endswith("the model reads 256 tokens at most")
    assert sets[0].read() == make_set(minilm, "passkey", 256)


def test_a_length_without_room(minilm: Encoder) -> None:
    with pytest.raises(InputError, match="a document of 8 tokens has no room for a fact of"):
        make_set(minilm, "needle", 8)
