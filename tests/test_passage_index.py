"""An index of passages: added, replaced, deleted and read back, against a dict of whole documents."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
from changes import sequences, take
from hypothesis import given, settings

from jv5kit import Document, Index, Passage, sources
from jv5kit.building import Added
from jv5kit.errors import InputError
from jv5kit.passages import Splitter
from jv5kit.storage.passages import passage_of
from jv5kit.storage.verify import verify
from jv5kit.storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from changes import Step

    from jv5kit import Encoder

TOKENS = 24
SENTENCE = "the penguin swims in the cold sea. "


def a_text(version: int, length: int) -> str:
    return f"text {version} " + "".join(f"{SENTENCE}{version + i} " for i in range(length))


class Truth:
    """What an index of passages should hold: documents by id."""

    def __init__(self, encoder: Encoder) -> None:
        self.documents: dict[str, Document] = {}
        self.encoder = encoder
        self.query = encoder.encode_query("the cold ice")
        self._splitter = Splitter(encoder, encoder.document_prompt(), TOKENS)

    def check(self, index: Index, among: set[str] | None = None, **options: Any) -> None:
        kept = [document for i, document in self.documents.items() if among is None or i in among]
        rows = self._splitter.split(kept)
        expected = {
            (row.id, passage_of(span)): (row, content)
            for row, content, span in zip(rows.documents, rows.contents, rows.spans, strict=True)
        }
        assert len(expected) == len(rows.documents)
        hits = index.search(self.query, 10_000, oversample=100, **options)
        assert len(hits) == len(expected)
        for hit in hits:
            row, _ = expected[hit.id, hit.passage]
            assert (hit.title, hit.text, hit.metadata) == (row.title, row.text, row.metadata)
            of_document = self.documents[hit.id].text
            assert hit.text == (of_document[hit.passage.start : hit.passage.end] if hit.passage else of_document)
        if hits:
            scores = self.encoder.encode_document([expected[hit.id, hit.passage][1] for hit in hits]) @ self.query
            assert np.allclose([hit.score for hit in hits], scores, atol=0.02)


KINDS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "ubinary": {"lexical": True, "rotate": True},
    "hnsw": {"precision": "float32", "hnsw": True},
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(steps=sequences(ids=8, numbers=6, batch=5, most=10))
def test_any_sequence_of_changes(kind: str, encoder: Encoder, steps: Sequence[Step]) -> None:
    """An index of passages is what a dict of documents is, after every step, and sound on disk."""
    truth = Truth(encoder)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jv5"
        truth.documents["first"] = Document("first", a_text(0, 4), "Of penguins", {"n": 0})
        index = Index.build(path, truth.documents.values(), encoder, passages=TOKENS, **KINDS[kind])
        for action, argument in steps:
            if action in ("add", "upsert"):
                documents = [Document(i, a_text(n, length), metadata={"n": n}) for i, n, length in argument]
                before = dict(truth.documents)
                for document in documents:
                    if action == "upsert" or document.id not in truth.documents:
                        truth.documents[document.id] = document
                changed = {i for i, document in truth.documents.items() if before.get(i) != document}
                added = index.upsert(documents) if action == "upsert" else index.add(documents, skip=lambda _: None)
                assert (added.documents, added.replaced) == (len(changed), len(changed & before.keys()))
            else:
                index = take(index, (action, argument), truth.documents)
            assert len(index) == len(truth.documents)
            truth.check(index)
            truth.check(index, {i for i, one in truth.documents.items() if one.metadata["n"] >= 2}, filter="n >= 2")
            asked = ["first", *map(str, range(9))]
            assert index.get(asked) == [truth.documents.get(i) for i in asked]
        if kind == "ubinary":
            words = {hit.id for hit in index.search("text", 10_000, hybrid=True)}
            assert words == truth.documents.keys()
        index.close()
        assert verify(path) == []


DOCUMENTS = [
    Document("long", a_text(0, 20), "Of penguins", {"n": 1}),
    Document("short", "ice", metadata={"n": 2}),
    Document("longer", a_text(5, 40), metadata={"n": 3}),
]


class TestIndex:
    def test_the_best_passage_comes_first(self, tmp_path: Path, encoder: Encoder) -> None:
        text = a_text(0, 20) + "a warm bird flies " + a_text(1, 20)
        index = Index.build(tmp_path / "x.jv5", [{"id": "d", "text": text}], encoder, passages=TOKENS)
        best = index.search("a warm bird flies", 3)
        assert {hit.id for hit in best} == {"d"}, "several passages of one document may be hits"
        assert len({hit.passage for hit in best}) == 3
        assert isinstance(best[0].passage, Passage)
        assert best[0].to_dict()["passage"] == {
            "number": best[0].passage.number,
            "start": best[0].passage.start,
            "end": best[0].passage.end,
        }
        index.build(tmp_path / "y.jv5", [{"id": "d", "text": text}], encoder)
        with Index.open(tmp_path / "y.jv5") as plain:
            assert [(hit.passage, hit.text) for hit in plain.search("a warm bird flies")] == [(None, text)]
            assert plain.row_count == 1

    def test_nothing_is_cut(self, tmp_path: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
        Index.build(tmp_path / "x.jv5", DOCUMENTS, encoder, passages=96).close()
        assert caplog.messages == []
        Index.build(tmp_path / "y.jv5", DOCUMENTS, encoder).close()
        assert caplog.messages == ["2 of 3 texts are longer than the model's 96 tokens and were cut"]

    def test_a_document_of_thousands_of_passages(self, tmp_path: Path, encoder: Encoder) -> None:
        """More of them than hashes in a block, all found by the one id."""
        text = " ".join(map(str, range(12_000)))
        documents = [*DOCUMENTS[:1], Document("huge", text), *DOCUMENTS[1:]]
        with Index.build(tmp_path / "x.jv5", documents, encoder, passages=16) as index:
            assert index.row_count > 5000
            assert index.get(["huge", "short", "long"]) == [documents[1], documents[2], documents[0]]
            assert index.add(documents) == Added(0, 4, 0)
            assert index.upsert([Document("huge", "small")]) == Added(1, 0, 1)
            assert len(index) == 4
            index.compact()
        assert verify(tmp_path / "x.jv5") == []

    def test_an_interruption_leaves_whole_documents(
        self, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "BATCH_DOCUMENTS", 1)
        monkeypatch.setattr(sources, "MAX_BATCH_DOCUMENTS", 1)
        commits: list[int] = []

        def interrupt(documents: int) -> None:
            commits.append(documents)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Index.build(tmp_path / "x.jv5", DOCUMENTS, encoder, passages=TOKENS, on_commit=interrupt)
        assert commits == [1]
        index = Index.open(tmp_path / "x.jv5")
        assert index.get(["long", "short"]) == [DOCUMENTS[0], None]
        assert index.add(DOCUMENTS, on_commit=commits.append) == Added(2, 1, 0)
        assert commits == [1, 2, 3]
        assert index.get(["long", "short", "longer"]) == DOCUMENTS
        assert verify(tmp_path / "x.jv5") == []

    def test_a_failure_before_the_commit_changes_nothing(
        self, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(*_: object) -> NoReturn:
            raise KeyboardInterrupt

        index = Index.build(tmp_path / "x.jv5", DOCUMENTS, encoder, passages=TOKENS)
        before = index.search("ice", 100)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Writer, "_register", failing)
            index.upsert([Document("long", a_text(7, 30))])
        assert len(list((tmp_path / "x.jv5" / "segments").iterdir())) == 2, "the new segment was written"
        assert Index.open(tmp_path / "x.jv5").search("ice", 100) == before
        index.upsert([Document("long", "now short")])
        assert index.get(["long"]) == [Document("long", "now short")]
        assert verify(tmp_path / "x.jv5") == []

    def test_an_old_reader_keeps_its_state(self, tmp_path: Path, encoder: Encoder) -> None:
        index = Index.build(tmp_path / "x.jv5", DOCUMENTS, encoder, passages=TOKENS)
        reader = Index.open(tmp_path / "x.jv5")
        before = reader.search("ice", 100)
        index.upsert([Document("long", a_text(7, 30))])
        index.delete(["longer"])
        assert (len(index), len(reader)) == (2, 3)
        assert reader.search("ice", 100) == before
        assert reader.get(["long", "longer"]) == [DOCUMENTS[0], DOCUMENTS[2]]
        index.compact()
        assert reader.search("ice", 100) == index.search("ice", 100)
        assert len(reader) == 2

    def test_replaced_by_one_without_and_back(self, tmp_path: Path, encoder: Encoder) -> None:
        """In one transaction, the format with it; a reader sees the one or the other."""
        path = tmp_path / "x.jv5"
        reader = Index.build(path, DOCUMENTS, encoder, lexical=True)
        for size in (TOKENS, 48, None, TOKENS):
            Index.build(path, DOCUMENTS, encoder, passages=size, force=True).close()
            assert reader.refresh()
            assert reader.settings.passages == size
            assert reader._snapshot.catalog._connection.execute("PRAGMA user_version").fetchone() == (3 if size else 2,)
            assert len(reader) == 3
            assert any(hit.passage for hit in reader.search("ice", 100)) is (size is not None)
            assert reader.get(["long", "short", "longer"]) == DOCUMENTS
            assert verify(path) == []

    def test_an_index_without_documents(self, tmp_path: Path, encoder: Encoder) -> None:
        index = Index.build(tmp_path / "x.jv5", [], encoder, passages=TOKENS)
        assert (len(index), index.row_count, index.search("ice"), index.delete(["x"])) == (0, 0, [], 0)
        assert index.add(DOCUMENTS) == Added(3, 0, 0)
        assert index.delete(["long", "short", "longer"]) == 3
        index.compact()
        assert (len(index), verify(tmp_path / "x.jv5")) == (0, [])

    def test_wrong_arguments(self, tmp_path: Path, encoder: Encoder) -> None:
        rows = np.ones((1, 64), np.float32)
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"passages": 7}, "passages=7: a passage has at least 8 tokens"),
            ({"passages": 0}, "passages=0: a passage has at least 8 tokens"),
            ({"passages": 8}, "passages=8 leaves no room for a text"),
            ({"passages": 97}, "passages=97 is more than the 96 tokens"),
            ({"passages": "many"}, "passages"),
            ({"passages": 32, "embeddings": rows}, "passages=32 takes a model, .* give each passage as a document"),
        ]
        for options, message in wrong:
            with pytest.raises(InputError, match=message):
                Index.build(tmp_path / "x.jv5", DOCUMENTS[:1], encoder, **options)
        assert not (tmp_path / "x.jv5").exists()
        index = Index.build(tmp_path / "x.jv5", DOCUMENTS[:1], encoder, passages=32)
        with pytest.raises(InputError, match=r"splits documents into passages of 32 tokens, .* without embeddings"):
            index.add([Document("new", "x")], embeddings=rows)
