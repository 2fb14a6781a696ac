"""What an index holds, read without a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command import random_rows

from jv5kit import Document, Encoder, Index, quantize_embeddings, truncate_embeddings
from jv5kit.contents import codes, documents, embeddings
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

KEPT = [i for i in range(60) if i % 7]


def build(path: Path, **options: Any) -> Index:
    """Sixty documents in three segments, every seventh deleted."""
    rows = random_rows(60)
    texts = [Document(str(i), f"text {i}", None, {"number": i}) for i in range(60)]
    index = Index.build(path, texts[:40], embeddings=rows[:40], **options)
    index.add(texts[40:55], embeddings=rows[40:55])
    index.add(texts[55:], embeddings=rows[55:])
    index.delete([str(i) for i in range(60) if i % 7 == 0])
    assert index.segment_count == 3
    return index


def test_documents(tmp_path: Path) -> None:
    index = build(tmp_path / "x.jv5")
    assert documents(index) == index.get([str(i) for i in KEPT])
    assert [one.id for one in documents(index, "number >= 30 and number < 40")] == [
        str(i) for i in KEPT if 30 <= i < 40
    ]
    assert documents(index, {"number": 7}) == []
    with pytest.raises(InputError, match="its values are numbers"):
        documents(index, {"number": "x"})


def test_codes(tmp_path: Path) -> None:
    ids, found = codes(build(tmp_path / "x.jv5", dim=8))
    assert ids == [str(i) for i in KEPT]
    np.testing.assert_array_equal(found, quantize_embeddings(truncate_embeddings(random_rows(60), 8))[KEPT])
    with pytest.raises(InputError, match=r"y\.jv5 has precision 'int8', and codes are of 'ubinary': build it with"):
        codes(build(tmp_path / "y.jv5", precision="int8"))
    empty = Index.build(tmp_path / "z.jv5", embeddings=np.empty((0, 16), np.float32))
    assert codes(empty)[0] == []
    assert codes(empty)[1].shape == (0, 2)


@pytest.mark.parametrize(
    ("options", "tolerance"), [({"precision": "float32"}, 1e-7), ({"precision": "int8"}, 0.004), ({}, 0.004)]
)
def test_embeddings(tmp_path: Path, options: Any, tolerance: float) -> None:
    index = build(tmp_path / "x.jv5", dim=8, **options)
    expected = truncate_embeddings(random_rows(60), 8)
    # In any order, from all segments, without those that are deleted or never were.
    found = embeddings(index, ["58", "7", "3", "no", "41"])
    assert set(found) == {"3", "41", "58"}
    for identifier, row in found.items():
        np.testing.assert_allclose(row, expected[int(identifier)], atol=tolerance)
    assert embeddings(index, []) == {}


def test_embeddings_of_codes_are_signs(tmp_path: Path) -> None:
    index = build(tmp_path / "x.jv5", rescore="none")
    (row,) = embeddings(index, ["3"]).values()
    np.testing.assert_array_equal(row, np.where(random_rows(60)[3] > 0, 0.25, -0.25))


def test_an_index_of_passages_has_several_of_a_document(tmp_path: Path, encoder: Encoder) -> None:
    index = Index.build(tmp_path / "x.jv5", [{"id": "a", "text": "the sea " * 60}], encoder, passages=32)
    passages = documents(index)
    assert {one.id for one in passages} == {"a"}
    assert len(passages) == index.row_count > 1
    with pytest.raises(InputError, match=r"x\.jv5 has passages, and a document as many embeddings"):
        embeddings(index, ["a"])
    with pytest.raises(InputError, match="ids is the string 'a'; give a list"):
        embeddings(index, "a")
