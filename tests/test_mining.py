"""Hard negatives: near to the query, further than the positive, and not the positive in other words."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from numpy.typing import NDArray

from jv5kit import Encoder, Index
from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.mining import Settings, Tally, mine
from jv5kit.training.rows import Pair
from jv5kit.types import Document

ALL = Settings(negatives=60, ranks=(1, 60), relative_margin=0, similarity=2)
"""Everything that is not nearer than the positive."""


def texts(count: int, seed: int) -> list[str]:
    """Different texts of words that the tiny models know."""
    random = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(random.choice(models.WORDS, random.integers(3, 9)))] = None
    return list(found)


ANCHORS, POSITIVES = texts(60, 0), texts(60, 1)
PAIRS = [Pair(anchor, positive) for anchor, positive in zip(ANCHORS, POSITIVES, strict=True)]


def mined(rows: Iterable[Pair], index: Path, encoder: Encoder, settings: Settings = ALL, **options: Any) -> list[Pair]:
    kept = list(rows)
    return list(mine(lambda: kept, index / "mine.jv5", encoder, settings, **options))


def cosines(encoder: Encoder, queries: list[str], documents: list[str]) -> NDArray[np.float32]:
    cosines: NDArray[np.float32] = encoder.encode_query(queries) @ encoder.encode_document(documents).T
    return cosines


def test_everything_below_the_positive_in_its_order(encoder: Encoder, tmp_path: Path) -> None:
    tally = Tally()
    found = mined(PAIRS, tmp_path, encoder, tally=tally)
    assert [(row.anchor, row.positive) for row in found] == list(zip(ANCHORS, POSITIVES, strict=True))
    scores = cosines(encoder, ANCHORS, POSITIVES)
    for i, row in enumerate(found):
        own = [scores[i, POSITIVES.index(text)] for text in row.negatives]
        # In their order, to within the rounding of int8 rows, and below the positive.
        assert np.all(np.diff(own) < 0.02)
        assert max(own, default=-1) < scores[i, i] + 0.02
        missing = set(range(60)) - {POSITIVES.index(text) for text in row.negatives} - {i}
        assert all(scores[i, j] > scores[i, i] - 0.02 for j in missing)
    assert tally.documents == tally.rows == 60
    assert tally.negatives == sum(len(row.negatives) for row in found)
    assert tally.within_margin == 60 * 59 - tally.negatives
    assert tally.like_positive == 0
    assert tally.incomplete == 60


@pytest.mark.parametrize(("margin", "relative"), [(0.1, 0), (0, 0.3), (0.1, 0.2)])
def test_margins(encoder: Encoder, tmp_path: Path, margin: float, relative: float) -> None:
    settings = Settings(negatives=60, ranks=(1, 60), similarity=2, margin=margin, relative_margin=relative)
    found = mined(PAIRS, tmp_path, encoder, settings)
    scores = cosines(encoder, ANCHORS, POSITIVES)
    limits = scores.diagonal() - margin - relative * np.abs(scores.diagonal())
    counts = [len(row.negatives) for row in found]
    assert np.all(np.sum(scores < limits[:, None] - 0.02, axis=1) <= counts)
    assert np.all(counts <= np.sum(scores < limits[:, None] + 0.02, axis=1))
    assert 0 < sum(counts) < sum(len(row.negatives) for row in mined(PAIRS, tmp_path, encoder))


def test_ranks_and_number(encoder: Encoder, tmp_path: Path) -> None:
    """A positive is no rank; what is before the first rank, or after the last one, is not there."""
    whole = mined(PAIRS, tmp_path, encoder)
    tally = Tally()
    settings = Settings(negatives=4, ranks=(11, 20), relative_margin=0, similarity=2)
    some = mined(PAIRS, tmp_path, encoder, settings, tally=tally)
    for all_of_it, part in zip(whole, some, strict=True):
        # Ranks count those too that are nearer than the positive.
        first = max(0, 10 - (59 - len(all_of_it.negatives)))
        last = max(0, 20 - (59 - len(all_of_it.negatives)))
        assert part.negatives == all_of_it.negatives[first:last][:4]
    assert tally.incomplete == sum(len(row.negatives) < 4 for row in some)
    assert tally.without == sum(not row.negatives for row in some) > 0


def test_what_says_the_same_as_the_positive(encoder: Encoder, tmp_path: Path) -> None:
    tally = Tally()
    found = mined(PAIRS, tmp_path, encoder, Settings(negatives=60, ranks=(1, 60), similarity=0.7), tally=tally)
    embeddings = encoder.encode_document(POSITIVES)
    likeness = embeddings @ embeddings.T
    for i, row in enumerate(found):
        assert all(likeness[i, POSITIVES.index(text)] < 0.72 for text in row.negatives)
    assert tally.like_positive > 0
    kept = sum(len(row.negatives) for row in mined(PAIRS, tmp_path, encoder, Settings(negatives=60, ranks=(1, 60))))
    assert sum(len(row.negatives) for row in found) < kept


def test_other_positives_of_an_anchor(encoder: Encoder, tmp_path: Path) -> None:
    """Whatever the case and the spaces of the anchor, and however many there are."""
    rows = [Pair("the penguin", text) for text in POSITIVES[:20]]
    rows += [Pair(" The  PENGUIN", text) for text in POSITIVES[20:40]] + PAIRS[40:]
    found = mined(rows, tmp_path, encoder)
    for row in found[:40]:
        assert not set(row.negatives) & set(POSITIVES[:40])
    assert any(set(row.negatives) & set(POSITIVES[:40]) for row in found[40:])
    # They take no rank from the others.
    scores = cosines(encoder, ["the penguin"], POSITIVES)[0]
    settings = Settings(negatives=20, ranks=(1, 20), relative_margin=0, similarity=2)
    for row, score in zip(mined(rows, tmp_path, encoder, settings)[:20], scores, strict=False):
        assert len(row.negatives) >= np.sum(scores[40:] < score - 0.02)


def test_equal_texts(encoder: Encoder, tmp_path: Path) -> None:
    rows = [Pair("a penguin", "the cold sea"), Pair("ice", "THE  cold sea"), Pair("The cold SEA", "a bird"), *PAIRS]
    found = mined(rows, tmp_path, encoder, tally=(tally := Tally()))
    # Not the positive, nor the anchor, nor any text twice.
    for row in found:
        plain = [" ".join(text.lower().split()) for text in (row.anchor, row.positive, *row.negatives)]
        assert len(set(plain)) == len(plain)
    assert tally.like_positive > 0
    assert tally.documents == 63


def test_the_same_text_is_one_document(encoder: Encoder, tmp_path: Path) -> None:
    tally = Tally()
    found = mined([Pair(row.anchor, "the one positive") for row in PAIRS], tmp_path, encoder, tally=tally)
    assert tally.documents == 1
    assert tally.without == 60
    assert all(row.negatives == () for row in found)


def test_a_corpus(encoder: Encoder, tmp_path: Path) -> None:
    corpus = [Document(f"d{i}", text, title="Cold" if i % 2 else None) for i, text in enumerate(texts(30, 2))]
    corpus.append(Document("again", POSITIVES[0]))
    tally = Tally()
    found = mined(PAIRS, tmp_path, encoder, corpus=corpus, tally=tally)
    assert tally.documents == 90
    drawn = {text for row in found for text in row.negatives}
    assert drawn & {document.content for document in corpus[1::2]}
    assert drawn & {document.content for document in corpus[:30:2]}
    assert drawn <= {document.content for document in corpus} | set(POSITIVES)


def test_many_batches_are_one(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mined(PAIRS, tmp_path, encoder)
    monkeypatch.setattr("jv5kit.mining.QUERIES", 7)
    assert mined(PAIRS, tmp_path, encoder) == whole


def test_negatives_that_are_there_are_replaced(encoder: Encoder, tmp_path: Path) -> None:
    rows = [Pair(row.anchor, row.positive, ("an old negative",)) for row in PAIRS]
    assert mined(rows, tmp_path, encoder) == mined(PAIRS, tmp_path, encoder)


def test_an_index_that_is_kept(
    encoder: Encoder, other_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has is not encoded again; its dimensions, its kind and its model stay."""
    encoded: list[str] = []
    encode = Encoder.encode_document

    def counted(self: Encoder, inputs: Any, **options: Any) -> Any:
        encoded.extend(inputs)
        return encode(self, inputs, **options)

    monkeypatch.setattr(Encoder, "encode_document", counted)
    before = mined(PAIRS[:40], tmp_path, encoder, dim=32)
    assert len(encoded) == 40
    after = mined(PAIRS, tmp_path, encoder)
    assert encoded == POSITIVES
    assert [row.anchor for row in before] == ANCHORS[:40]
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert mined(PAIRS, fresh, encoder, dim=32) == after
    with pytest.raises(InputError, match="has 32 dimensions, not 64"):
        mined(PAIRS, tmp_path, encoder, dim=64)
    with pytest.raises(ModelNotFoundError, match="was built with another model"):
        mined(PAIRS, tmp_path, Encoder.from_pretrained(other_model, device="cpu"))
    Index.build(fresh / "mine.jv5", [Document("a", "b")], encoder, precision="float32", force=True).close()
    with pytest.raises(InputError, match="is no index of `jv5kit mine`"):
        mined(PAIRS, fresh, encoder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 0}, "negatives=0; it must be at least 1"),
        ({"ranks": (0, 9)}, "ranks=0-9; the first must be at least 1, and the last no less"),
        ({"ranks": (9, 8)}, "ranks=9-8; the first must be at least 1"),
        ({"ranks": (3, 8)}, "ranks=3-8 have no room for 7 negatives"),
        ({"margin": -0.1}, "margin=-0.1; it must be in 0..2"),
        ({"relative_margin": 1.5}, "relative_margin=1.5; it must be in 0..1"),
        ({"similarity": float("nan")}, "similarity=nan; it must be in 0..2"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Settings(**options)
    assert str(caught.value).startswith(message)
