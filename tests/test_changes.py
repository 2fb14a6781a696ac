"""Documents added, replaced, deleted and read back, against a dict and a naive search."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
from changes import sequences, take
from hypothesis import given, settings

from jv5kit import Document, Index, building, quantize_embeddings, quantize_rows, truncate_embeddings
from jv5kit.building import Added
from jv5kit.errors import DuplicateError, IndexLockedError, InputError, Jv5kitError
from jv5kit.index_settings import check_fits
from jv5kit.storage.catalog import Catalog
from jv5kit.storage.verify import verify
from jv5kit.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from changes import Step
    from numpy.typing import NDArray

    from jv5kit.sources import Source
    from jv5kit.storage.state import Settings

DIM = 16

KINDS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "int8": {"precision": "int8"},
    "ubinary": {},
    "codes": {"rescore": "codes"},
    "bits": {"rescore": "none"},
    "rotated": {"precision": "float32", "rotate": True},
}


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    return truncate_embeddings(np.random.default_rng(seed).standard_normal((count, DIM)), DIM)


def naive_scores(kind: str, stored: NDArray[Any], query: NDArray[Any]) -> NDArray[Any]:
    """The score of each row as the stored precision has it, in float64."""
    stored, query = stored.astype(np.float64), query.astype(np.float64)
    if kind in ("codes", "bits"):
        stored = np.where(stored > 0, 1.0, -1.0) / np.sqrt(DIM)
    if kind == "bits":
        query = np.where(query > 0, 1.0, -1.0) / np.sqrt(DIM)
    if kind in ("int8", "ubinary"):
        scales = np.abs(stored).max(axis=1, keepdims=True) / 127
        stored = np.rint(stored / scales) * scales
    return np.asarray(stored @ query)


class Truth:
    """What an index should hold: documents by id, in the order in which they came."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.documents: dict[str, Document] = {}
        self.rows: dict[str, NDArray[np.float32]] = {}

    def put(self, document: Document, row: NDArray[np.float32]) -> None:
        self.documents.pop(document.id, None)
        self.documents[document.id] = document
        self.rows[document.id] = row

    def check(self, index: Index, query: NDArray[np.float32], among: set[str] | None = None, **options: Any) -> None:
        """Every document that should be found is, with its content, its score and in its place."""
        kept = [identifier for identifier in self.documents if among is None or identifier in among]
        hits = index.search(query, max(1, len(self.documents)), oversample=1000, **options)
        assert sorted(hit.id for hit in hits) == sorted(kept)
        for hit in hits:
            document = self.documents[hit.id]
            assert (hit.title, hit.text, hit.metadata) == (document.title, document.text, document.metadata)
        if kept:
            scores = naive_scores(self.kind, np.stack([self.rows[one] for one in kept]), query)
            expected = dict(zip(kept, scores.tolist(), strict=True))
            assert np.allclose([hit.score for hit in hits], [expected[hit.id] for hit in hits], atol=2e-3)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(steps=sequences(ids=12, numbers=4, batch=6, most=12))
def test_any_sequence_of_changes(kind: str, steps: Sequence[Step]) -> None:
    """Where ids repeat and contents differ: an index is what a dict is, after every step, and sound on disk."""
    table = rows(5, seed=7)
    with tempfile.TemporaryDirectory() as folder:
        path, truth = Path(folder) / "x.jv5", Truth(kind)
        first = Document("first", "the first one", metadata={"n": 0})
        index = Index.build(path, [first], embeddings=table[:1], **KINDS[kind])
        truth.put(first, table[0])
        for action, argument in steps:
            if action in ("add", "upsert"):
                documents = [Document(i, f"text {n} of {row}", metadata={"n": n}) for i, n, row in argument]
                embeddings = table[[row for *_, row in argument]]
                if action == "upsert":
                    index.upsert(documents, embeddings=embeddings)
                    for document, row in _last(documents, embeddings):
                        same = truth.documents.get(document.id) == document
                        if not same or not np.array_equal(truth.rows[document.id], row):
                            truth.put(document, row)
                else:
                    skipped: list[InputError] = []
                    index.add(documents, embeddings=embeddings, skip=skipped.append)
                    for document, row in zip(documents, embeddings, strict=True):
                        if document.id not in truth.documents:
                            truth.put(document, row)
            else:
                index = take(index, (action, argument), truth.documents)
            assert len(index) == len(truth.documents)
            truth.check(index, table[3])
            among = {i for i, document in truth.documents.items() if document.metadata["n"] >= 2}
            truth.check(index, table[4], among, filter="n >= 2")
            asked = ["first", *map(str, range(13))]
            assert index.get(asked) == [truth.documents.get(i) for i in asked]
        index.close()
        assert verify(path) == []


def _last(documents: list[Document], embeddings: NDArray[np.float32]) -> list[tuple[Document, NDArray[np.float32]]]:
    """Each document that is the last one of its id, with its row."""
    last = {document.id: place for place, document in enumerate(documents)}
    return [(documents[place], embeddings[place]) for place in sorted(last.values())]


def test_the_naive_scores_are_those_of_the_kernels() -> None:
    stored, query = rows(50), rows(1, seed=1)[0]
    values, scales = quantize_rows(stored)
    assert np.allclose(naive_scores("int8", stored, query), values @ query * scales, atol=1e-5)
    bits = np.unpackbits(quantize_embeddings(stored), axis=1)
    assert np.array_equal(bits == 1, stored > 0)


class TestUpsert:
    def test_a_document_takes_the_place_of_its_predecessor(self, tmp_path: Path) -> None:
        documents = [{"id": str(i), "text": f"old {i}"} for i in range(6)]
        index = Index.build(tmp_path / "x.jv5", documents, embeddings=rows(6), lexical=True)
        with pytest.raises(DuplicateError):
            index.add([{"id": "2", "text": "new"}], embeddings=rows(1))
        new = [{"id": "2", "text": "new 2"}, {"id": "9", "text": "new 9"}, documents[3]]
        assert index.upsert(new, embeddings=np.concatenate([rows(8)[6:], rows(6)[3:4]])) == Added(2, 1, 1)
        assert len(index) == 7
        assert [hit.text for hit in index.search(rows(8)[6], 1)] == ["new 2"]
        assert index.get(["2"]) == [Document("2", "new 2")]

    def test_the_last_one_of_an_id_stays(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", [{"id": "a", "text": "0"}], embeddings=rows(1))
        documents = [{"id": "a", "text": "1"}, {"id": "b", "text": "2"}, {"id": "a", "text": "3"}]
        assert index.upsert(documents, embeddings=rows(3)) == Added(2, 0, 1)
        assert [document.text for document in index.get(["a", "b"]) if document] == ["3", "2"]
        assert index.upsert([*documents[:1], {"id": "a", "text": "3"}], embeddings=rows(3)[1:]) == Added(0, 1, 0)

    def test_another_embedding_alone_is_a_change(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", embeddings=rows(3), precision="int8")
        assert index.upsert(embeddings=rows(4)[1:], ids=[0, 1, 2]) == Added(3, 0, 3)
        assert [hit.id for hit in index.search(rows(4)[3], 1)] == ["2"]


class TestDelete:
    def test_ids_and_filters(self, tmp_path: Path) -> None:
        documents = [{"id": str(i), "text": "x", "n": i} for i in range(20)]
        index = Index.build(tmp_path / "x.jv5", documents, embeddings=rows(20))
        missing: list[str] = []
        assert index.delete(["3", "3", "nope", "4", "nope"], on_missing=missing.append) == 2
        assert missing == ["nope"]
        assert index.delete([]) == 0
        assert index.delete(filter="n < 5") == 3
        assert index.delete(filter={"n": [5, 6, 99]}) == 2
        assert index.delete(filter="n < 5") == 0
        assert len(index) == 13
        assert index.get(["3", "7"]) == [None, Document("7", "x", metadata={"n": 7})]
        index.add([documents[3]], embeddings=rows(4)[3:])
        assert index.search(rows(4)[3], 1)[0].id == "3"

    def test_any_iterable_of_ids(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", embeddings=rows(5))
        ids: Any = (str(i) for i in range(2))
        assert index.delete(ids) == 2
        found: Any = iter(["1", "3"])
        assert [one and one.id for one in index.get(found)] == [None, "3"]

    def test_wrong_arguments(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", [{"id": "a", "text": "x", "n": 1}], embeddings=rows(1))
        for arguments, message in (
            ({}, "say what to delete"),
            ({"ids": ["a"], "filter": "n = 1"}, "say what to delete"),
            ({"ids": "a"}, "ids is the string 'a'; give a list"),
            ({"ids": [1]}, "the id 1 is no string"),
            ({"ids": ["\udcff"]}, "'id' has half of a surrogate pair"),
            ({"filter": "n = "}, "expected a number, a string"),
            ({"filter": "n = 'x'"}, "compares the field 'n' with \"x\", a string, but its values are numbers"),
        ):
            with pytest.raises(InputError, match=message):
                index.delete(**arguments)
        with pytest.raises(InputError, match="ids is the string"):
            index.get("a")
        with pytest.raises(InputError, match="'id' has half of a surrogate pair"):
            index.get(["a", "\udcff"])
        assert len(index) == 1
        assert index.get([]) == []

    def test_everything(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", embeddings=rows(9), lexical=True)
        assert index.delete([str(i) for i in range(9)]) == 9
        assert index.search(rows(1)[0]) == []
        index.compact()
        assert index.segment_count == 0
        assert verify(tmp_path / "x.jv5") == []
        index.add(embeddings=rows(2))
        assert [hit.id for hit in index.search(rows(2)[1], 1)] == ["10"]

    def test_one_writer_at_a_time(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", embeddings=rows(3))
        writer = Writer.open(tmp_path / "x.jv5")
        for change in (lambda: index.delete(["1"]), index.compact, lambda: index.upsert(embeddings=rows(1))):
            with pytest.raises(IndexLockedError, match="is being written by process"):
                change()
        writer.close()
        assert index.delete(["1"]) == 1


class TestAReplacedIndex:
    """An open index whose place another one has taken, with rows of other dimensions."""

    def test_its_settings_are_not_those_of_what_is_added(self, tmp_path: Path) -> None:
        index = Index.build(tmp_path / "x.jv5", embeddings=rows(3), precision="float32")
        Index.build(tmp_path / "x.jv5", embeddings=rows(3)[:, :8], precision="float32", force=True)
        with pytest.raises(InputError, match="have 16 dimensions; those of this index had 8"):
            index.add(embeddings=rows(1), ids=["new"])
        assert len(Index.open(tmp_path / "x.jv5")) == 3

    def test_in_the_midst_of_an_addition(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index = Index.build(tmp_path / "x.jv5", embeddings=rows(3), precision="float32")

        def replacing(source: Source, settings: Settings) -> None:
            check_fits(source, settings)
            Index.build(tmp_path / "x.jv5", embeddings=rows(3)[:, :8], precision="float32", force=True)

        monkeypatch.setattr(building, "check_fits", replacing)
        with pytest.raises(Jv5kitError, match="was replaced by another index meanwhile; nothing was added"):
            index.add(embeddings=rows(1), ids=["new"])
        assert len(Index.open(tmp_path / "x.jv5")) == 3


def test_an_old_reader_keeps_its_state(tmp_path: Path) -> None:
    documents = [{"id": str(i), "text": f"old {i}", "n": i} for i in range(30)]
    index = Index.build(tmp_path / "x.jv5", documents, embeddings=rows(30), lexical=True)
    reader = Index.open(tmp_path / "x.jv5")
    before = reader.search(rows(3), 30)
    index.upsert([{"id": "3", "text": "new 3"}], embeddings=rows(1, seed=9))
    index.delete(filter="n >= 20")
    assert len(index) == 20
    assert len(reader) == 30
    assert reader.search(rows(3), 30) == before
    assert reader.get(["3", "25"]) == [Document(i, f"old {i}", metadata={"n": int(i)}) for i in ("3", "25")]
    assert len(reader.search(rows(1)[0], 30, filter="n >= 20")) == 10
    index.compact()
    # What it had is gone from the disk, so that it takes up what there is.
    assert reader.search(rows(3), 30) == index.search(rows(3), 30)
    assert len(reader) == 20


def test_compacting_wipes_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Catalog) -> NoReturn:
        raise KeyboardInterrupt

    steps: list[int] = []
    documents = [{"id": str(i), "text": f"a secret of {i}" if i < 3 else "nothing"} for i in range(30)]
    index = Index.build(tmp_path / "x.jv5", documents, embeddings=rows(30), lexical=True)
    index.delete(["0", "1", "2"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Catalog, "shrink", interrupted)
        index.compact(on_segment=steps.append)
    assert sum(steps) == 30
    assert verify(tmp_path / "x.jv5") == []
    # The one that was interrupted before the end left nothing to delete, but something to wipe.
    index.compact()
    assert verify(tmp_path / "x.jv5") == []
    index.close()
    for path in (tmp_path / "x.jv5").rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path
