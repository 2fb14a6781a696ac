from __future__ import annotations

import gzip
import logging
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from jv5kit import Document
from jv5kit.errors import DocumentError, InputError
from jv5kit.evaluation.beir import read_beir

if TYPE_CHECKING:
    from pathlib import Path

CORPUS = b"""\
{"_id": "d1", "title": "Penguins", "text": "They huddle.", "metadata": {}}
{"_id": "d2", "title": "", "text": "Swifts sleep on the wing."}
{"_id": 3, "text": "Owls hunt at night."}
"""
QUERIES = b"""\
{"_id": "q1", "text": "how do penguins stay warm", "metadata": {}}
{"_id": "q2", "text": "which bird never lands"}
{"_id": "q3", "text": "not judged"}
"""
QRELS = b"query-id\tcorpus-id\tscore\nq2\td2\t2\nq1\td1\t1\nq2\t3\t0\n"


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(folder: Path, corpus: bytes = CORPUS, queries: bytes = QUERIES, qrels: bytes = QRELS) -> Path:
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "corpus.jsonl").write_bytes(corpus)
    (folder / "queries.jsonl").write_bytes(queries)
    (folder / "qrels" / "test.tsv").write_bytes(qrels)
    return folder


def test_a_folder_is_read(beir: Path) -> None:
    collection = read_beir(beir)
    assert collection.documents == [
        Document("d1", "They huddle.", "Penguins", {"metadata": {}}),
        Document("d2", "Swifts sleep on the wing."),
        Document("3", "Owls hunt at night."),
    ]
    assert collection.documents[1].origin == "corpus.jsonl:2"
    assert collection.qrels == {"q2": {"d2": 2, "3": 0}, "q1": {"d1": 1}}
    assert list(collection.queries.items()) == [("q2", "which bird never lands"), ("q1", "how do penguins stay warm")]


def test_gzip_other_splits_and_line_ends(beir: Path) -> None:
    expected = read_beir(beir)
    for name in ("corpus", "queries"):
        path = beir / f"{name}.jsonl"
        path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
        path.unlink()
    (beir / "qrels" / "dev.tsv").write_bytes(b"\xef\xbb\xbf" + QRELS.replace(b"\n", b"\r\n").rstrip())
    assert read_beir(beir, "dev") == expected


def test_a_document_without_text_is_its_title_or_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = b'{"_id": "a", "text": " ", "title": "Title"}\n{"_id": "b", "text": ""}\n{"_id": "c", "text": "c"}\n'
    folder = write(tmp_path, corpus, qrels=b"query-id\tcorpus-id\tscore\nq1\tb\t1\n")
    with caplog.at_level(logging.WARNING, "jv5kit"):
        collection = read_beir(folder)
    assert collection.documents == [Document("a", "Title"), Document("c", "c")]
    assert collection.qrels == {"q1": {"b": 1}}
    assert "left out 1 of 3 documents, which have no text" in caplog.text


BAD = {
    "corpus": [
        (b'{"_id": "a", "text": "a"}\n{"text": "b"}\n', "corpus.jsonl:2: '_id' is missing"),
        (b'{"_id": "a"}\n', "corpus.jsonl:1: 'text' is missing"),
        (b'{"_id": "a", "text": "", "title": 7}\n', "corpus.jsonl:1: 'text' is empty"),
        (b'{"_id": "", "text": ""}\n', "corpus.jsonl:1: 'id' must be a string that is not empty"),
        (b'{"_id": "a", "text": "a"}\n{"_id": "a", "text": ""}\n', "corpus.jsonl:2: document 'a' is there twice"),
        (b'{"_id": "a", "text"\n', "corpus.jsonl:1: not JSON"),
    ],
    "queries": [
        (b'{"text": "b"}\n', "queries.jsonl:1: '_id' is missing"),
        (b'{"_id": "q", "text": ""}\n', "queries.jsonl:1: 'text' is empty"),
        (b'{"_id": "q", "text": "a"}\n{"_id": "q", "text": "b"}\n', "queries.jsonl:2: query 'q' is there twice"),
        (b"[]\n", "queries.jsonl:1: not a JSON object"),
    ],
    "qrels": [
        (b"", "test.tsv:1: the header must be query-id, corpus-id, score"),
        (b"q1\td1\t1\n", "test.tsv:1: the header must be query-id, corpus-id, score"),
        (b"query-id\tcorpus-id\tscore\n", "test.tsv has no judgement"),
        (QRELS + b"\n", "test.tsv:5: 1 fields; there must be 3"),
        (QRELS + b"q1 0 d2 1\n", "test.tsv:5: 1 fields; there must be 3"),
        (QRELS + b"q1\t0\td2\t1\n", "test.tsv:5: 4 fields; there must be 3"),
        (QRELS + b"q1\td2\t1.5\n", "test.tsv:5: the score is '1.5'; it must be a whole number"),
        (QRELS + b"q1\td2\t\n", "test.tsv:5: the score is ''; it must be a whole number"),
        (QRELS + b"q1\td2\t1\nq1\td2\t1\n", "test.tsv:6: document 'd2' is judged twice for query 'q1'"),
        (QRELS + b"q9\td2\t1\n", "test.tsv:5: there is no query 'q9'"),
        (QRELS + b"q1\td9\t1\n", "test.tsv:5: there is no document 'd9'"),
        (QRELS + b"q1\t\xff\t1\n", "test.tsv:5: not UTF-8: invalid start byte at byte 4 of the line"),
    ],
}


@pytest.mark.parametrize(
    ("part", "data", "message"), [(part, data, message) for part, cases in BAD.items() for data, message in cases]
)
def test_bad_input_is_named(tmp_path: Path, part: str, data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_beir(write(tmp_path, **{part: data}))
    assert message in str(caught.value)


def test_what_is_missing_is_named(beir: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*train.tsv; the splits are test$"):
        read_beir(beir, "train")
    with pytest.raises(InputError, match=r"there is no .*test.tsv; a folder in the layout of BEIR has corpus.jsonl"):
        read_beir(beir / "nowhere")
    for name in ("queries", "corpus"):
        (beir / f"{name}.jsonl").unlink()
        with pytest.raises(InputError, match=rf"has no {name}.jsonl or {name}.jsonl.gz; a folder in the layout"):
            read_beir(beir)


@settings(deadline=None)
@given(part=st.sampled_from(["corpus", "queries", "qrels"]), data=st.binary(max_size=80), cut=st.integers(0, 250))
def test_any_bytes_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, part: str, data: bytes, cut: int
) -> None:
    good = {"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS}[part]
    folder = write(tmp_path_factory.mktemp("beir"), **{part: good[:cut] + data})
    try:
        collection = read_beir(folder)
    except DocumentError as error:
        assert ".jsonl:" in str(error) or ".tsv:" in str(error)
    except InputError as error:
        assert "has no judgement" in str(error)
    else:
        assert collection.qrels.keys() == collection.queries.keys()
