"""Every past format of the index opens, and answers as it did when it was written.

A new format gets a new folder beside these; the old ones are never written again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models
import numpy as np
import pytest

from jv5kit import Encoder, Index
from jv5kit.errors import IndexDamagedError, InputError
from jv5kit.storage.connection import FORMAT
from jv5kit.storage.writer import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jv5kit.types import Precision

GOLDEN = Path(__file__).parent / "golden"
DELETED = (3, 33)
PRECISIONS: tuple[Precision, ...] = ("ubinary", "float32", "int8")


def golden_embeddings() -> NDArray[np.float32]:
    """Rows from integers alone, so that no change of a random generator moves them."""
    values = np.arange(40 * 16, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(2**32)
    return (values.astype(np.float64) / 2**31 - 1).reshape(40, 16).astype(np.float32)


def golden_documents() -> list[dict[str, Any]]:
    """Every fourth is one passage, the others are more and more of them."""
    texts = [f"document {i} ✓" + " the penguin swims in the cold sea." * (i % 4 * i) for i in range(40)]
    return [{"id": f"d{i}", "text": texts[i], "title": f"T{i}" if i % 2 else None, "n": i} for i in range(40)]


def answers(folder: Path) -> list[list[dict[str, object]]]:
    with Index.open(folder) as index:
        return [[hit.to_dict() for hit in hits] for hits in index.search(golden_embeddings()[::7, :8], 3)]


def write_golden() -> None:
    """Write the newest format, that of passages; run once for each, by hand: ``python tests/test_golden.py``."""
    encoder = Encoder.from_pretrained(models.as_sentence_transformers(models.bert(Path("/tmp/golden-model"))))
    for precision in PRECISIONS:
        folder = GOLDEN / f"{precision}-{FORMAT}"
        documents = golden_documents()
        index = Index.build(folder, documents[:30], encoder, dim=8, precision=precision, passages=96)
        # One is deleted before the segments are merged, and one after.
        index.delete([f"d{DELETED[0]}"])
        index.add(documents[30:])
        index.delete([f"d{DELETED[1]}"])
        index.close()
        (GOLDEN / f"{precision}-{FORMAT}.json").write_text(json.dumps(answers(folder), indent=1) + "\n")
        # The last connection to close takes what is in the write-ahead log into the file.
        Writer.open(folder).close()
        (folder / "lock").unlink()


@pytest.mark.parametrize("expected", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_a_past_format_answers_as_it_did(expected: Path, tmp_path: Path) -> None:
    folder = tmp_path / expected.stem
    shutil.copytree(expected.with_suffix(""), folder)
    for hits, before in zip(answers(folder), json.loads(expected.read_text()), strict=True):
        for hit, old in zip(hits, before, strict=True):
            assert hit.pop("score") == pytest.approx(old.pop("score"), abs=1e-6)
            assert hit == {"passage": None} | old


@pytest.mark.parametrize("expected", sorted(GOLDEN.glob("*-3.json")), ids=lambda path: path.stem)
def test_past_passages_are_whole_documents(expected: Path, tmp_path: Path) -> None:
    folder = tmp_path / expected.stem
    shutil.copytree(expected.with_suffix(""), folder)
    with Index.open(folder) as index:
        assert index.settings.passages == 96
        assert len(index) == 38 < index.row_count
        for i, found in enumerate(index.get([f"d{i}" for i in range(40)])):
            assert (None if found is None else found.text) == (None if i in DELETED else golden_documents()[i]["text"])
        assert index.delete(filter="n < 7") == 6
        index.compact()
        assert len(index) == 32


@pytest.mark.parametrize("expected", sorted(GOLDEN.glob("*-1.json")), ids=lambda path: path.stem)
def test_format_1_is_brought_to_the_present_one_by_its_next_writer(expected: Path, tmp_path: Path) -> None:
    folder = tmp_path / expected.stem
    shutil.copytree(expected.with_suffix(""), folder)
    before = answers(folder)
    with Index.open(folder) as index:
        with pytest.raises(InputError, match=r"has format 1, .* jv5kit compact"):
            index.search(golden_embeddings()[0], filter="n = 7")
        with pytest.raises(InputError, match="has format 1"):
            index.get(["d7"])
        index.compact()
        (found,) = index.get(["d7"])
        assert found is not None and found.metadata == {"n": 7}
        assert [hit.id for hit in index.search(golden_embeddings()[0], filter="n = 7")] == ["d7"]
        assert index.search(golden_embeddings()[::7], 3) == Index.open(folder).search(golden_embeddings()[::7], 3)
        assert index.delete(["d7"]) == 1
    for old, new in zip(before, answers(folder), strict=True):
        kept = [hit["id"] for hit in old if hit["id"] != "d7"]
        assert [hit["id"] for hit in new][: len(kept)] == kept


@pytest.mark.parametrize("expected", sorted(GOLDEN.glob("*-1.json")), ids=lambda path: path.stem)
def test_format_1_is_replaced_in_one_transaction(expected: Path, tmp_path: Path) -> None:
    folder = tmp_path / expected.stem
    shutil.copytree(expected.with_suffix(""), folder)
    before = answers(folder)
    documents = [{"id": "new", "text": "new"}, {"id": "bad"}]
    with pytest.raises(InputError, match="'text' is missing"):
        Index.build(folder, documents, embeddings=golden_embeddings()[:2], force=True)
    assert answers(folder) == before
    with Index.build(folder, documents[:1], embeddings=golden_embeddings()[:1], force=True) as index:
        assert [hit.id for hit in index.search(golden_embeddings()[0])] == ["new"]


@pytest.mark.parametrize("lost", ["row = 7", "row >= 30", "row = 39"])
def test_format_1_with_a_lost_document_stays_as_it_is(lost: str, tmp_path: Path) -> None:
    folder = tmp_path / "float32-1"
    shutil.copytree(GOLDEN / "float32-1", folder)
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as connection:
        connection.execute(f"DELETE FROM documents WHERE {lost}")
    with Index.open(folder) as index, pytest.raises(IndexDamagedError, match=r"the document of row \d+ is missing"):
        index.compact()
    with Index.open(folder) as index:
        (found,) = index.search(golden_embeddings()[11], 1)
        assert found.id == "d11"


def test_this_format_has_a_golden_copy() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} >= {f"{precision}-{FORMAT}" for precision in PRECISIONS}


if __name__ == "__main__":
    write_golden()
