import gzip
import io
import json
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Inside, fails, random_rows, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jv5kit import Document
from jv5kit.documents import MAX_LINE_BYTES, STDIN, check_document, metadata_json, read_documents
from jv5kit.errors import DocumentError, InputError

GOOD = b'{"id": "a", "text": "a penguin"}\n'

DEEP = b'{"text": "deep", "m": ' + b"[" * 3000 + b"]" * 3000 + b"}\n"

BAD_LINES = {
    "broken JSON": (b'{"text": "a penguin"\n', "not JSON: Expecting ',' delimiter at column"),
    "two values": (b'{"text": "a"} {"text": "b"}\n', "not JSON: Extra data at column 15"),
    "no JSON at all": (b"a penguin\n", "not JSON: Expecting value at column 1"),
    "a list": (b'["a penguin"]\n', "not a JSON object, but a list"),
    "a string": (b'"a penguin"\n', "not a JSON object, but 'a penguin'"),
    "null": (b"null\n", "not a JSON object, but null"),
    "nested 3,000 deep": (DEEP, "the JSON is nested deeper than 500"),
    "nested 501 deep": (
        b'{"text": "a", "m": ' + b'{"a":' * 500 + b"1" + b"}" * 501 + b"\n",
        "the JSON is nested deeper than 500",
    ),
    "objects 3,000 deep": (
        b'{"text": "a", "m": ' + b'{"a":' * 3000 + b"1" + b"}" * 3001 + b"\n",
        "the JSON is nested deeper than 500",
    ),
    "text missing": (b'{"id": "b"}\n', "'text' is missing"),
    "text null": (b'{"text": null}\n', "'text' must be a string, but is null"),
    "text a number": (b'{"text": 7}\n', "'text' must be a string, but is 7"),
    "text a list": (b'{"text": ["a"]}\n', "'text' must be a string, but is a list"),
    "text empty": (b'{"text": ""}\n', "'text' is empty"),
    "text of spaces": (b'{"text": " \\n\\t\\u00a0 "}\n', "'text' is empty"),
    "title a number": (b'{"text": "a", "title": 7}\n', "'title' must be a string, but is 7"),
    "title zero": (b'{"text": "a", "title": 0}\n', "'title' must be a string, but is 0"),
    "title false": (b'{"text": "a", "title": false}\n', "'title' must be a string, but is False"),
    "title an empty list": (b'{"text": "a", "title": []}\n', "'title' must be a string, but is a list"),
    "bad UTF-8": (b'{"text": "\xff\xfe"}\n', "not UTF-8: invalid start byte at byte 11 of the line"),
    "Latin-1": ('{"text": "café"}\n'.encode("latin-1"), "not UTF-8: invalid continuation byte at byte 14 of the line"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16") + b"\n", "not UTF-8"),
    "blank": (b"\n", "the line is blank"),
    "spaces": (b"  \t \r\n", "the line is blank"),
    "too long": (b'{"text": "' + b"a" * MAX_LINE_BYTES + b'"}\n', "the line is longer than 32 MiB"),
    "NaN": (b'{"text": "a", "n": NaN}\n', "NaN is not JSON"),
    "Infinity": (b'{"text": "a", "n": [-Infinity]}\n', "-Infinity is not JSON"),
    "a number beyond float": (b'{"text": "a", "n": 1e999}\n', "the metadata is not JSON"),
    "half a surrogate pair in the text": (b'{"text": "\\ud83d"}\n', "'text' has half of a surrogate pair"),
    "half a surrogate pair in the id": (b'{"id": "\\ud83d", "text": "a"}\n', "'id' has half of a surrogate pair"),
    "half a surrogate pair in the title": (
        b'{"title": "\\udc00", "text": "a"}\n',
        "'title' has half of a surrogate pair",
    ),
    "half a surrogate pair in metadata": (
        b'{"text": "a", "m": {"n": ["\\ud83d"]}}\n',
        "'metadata' has half of a surrogate pair",
    ),
    "half a surrogate pair in a key": (b'{"text": "a", "\\ud83d": 1}\n', "'metadata' has half of a surrogate pair"),
    "NUL in the text": (b'{"text": "a\\u0000b"}\n', "'text' has a NUL character"),
    "NUL in the id": (b'{"id": "a\\u0000b", "text": "a"}\n', "'id' has a NUL character"),
    "NUL in metadata": (b'{"text": "a", "m": ["\\\\\\u0000"]}\n', "'metadata' has a NUL character"),
    "NUL byte": (b'{"text": "a\x00b"}\n', "not JSON: Invalid control character"),
    "an integer of 5,000 digits": (
        b'{"text": "a", "n": ' + b"7" * 5000 + b"}\n",
        "a number has more than 4300 digits",
    ),
    "an id of 5,000 digits": (b'{"text": "a", "id": ' + b"7" * 5000 + b"}\n", "a number has more than 4300 digits"),
    "id null": (b'{"id": null, "text": "a"}\n', "'id' must be a string or a whole number, but is null"),
    "id true": (b'{"id": true, "text": "a"}\n', "'id' must be a string or a whole number, but is True"),
    "id 1.5": (b'{"_id": 1.5, "text": "a"}\n', "'_id' must be a string or a whole number, but is 1.5"),
    "id a list": (b'{"id": ["a"], "text": "a"}\n', "'id' must be a string or a whole number, but is a list"),
    "id empty": (b'{"id": "", "text": "a"}\n', "'id' must be a string that is not empty"),
    "BOM after the first line": (b'\xef\xbb\xbf{"text": "a"}\n', "not JSON"),
}


def read(path: Path) -> list[Document]:
    return list(read_documents(path))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def record(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "docs.jsonl", GOOD + line + b'{"id": "c", "text": "the cold sea"}\n')
    documents = read_documents(path)
    assert next(documents).id == "a"
    with pytest.raises(DocumentError) as caught:
        next(documents)
    assert str(caught.value).startswith(f"docs.jsonl:2: {message}")
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)

    skipped: list[DocumentError] = []
    assert [document.id for document in read_documents(path, skipped.append)] == ["a", "c"]
    assert [str(error) for error in skipped] == [str(caught.value)]


@pytest.mark.parametrize(
    "name",
    [
        *("broken JSON", "a list", "nested 3,000 deep", "text missing", "text null", "text a number", "text empty"),
        *("bad UTF-8", "blank", "too long", "NaN", "an integer of 5,000 digits"),
    ],
)
def test_a_bad_line_on_the_command_line(tmp_path: Path, name: str) -> None:
    line, message = BAD_LINES[name]
    write(tmp_path / "docs.jsonl", GOOD + line)
    np.save(tmp_path / "x.npy", random_rows(2))
    said = fails("index", "docs.jsonl", "--embeddings", "x.npy", cwd=tmp_path)
    assert said.startswith(f"docs.jsonl:2: {message}")
    assert not (tmp_path / "docs.jv5").exists()


def test_bad_lines_are_skipped_counted_and_logged(
    tmp_path: Path, tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of bad line in one file, through the command line."""
    monkeypatch.chdir(tmp_path)
    bad = list(BAD_LINES.values())
    again = b'{"id": "a", "text": "again"}\n{"id": "z", "text": "the cold sea"}\n'
    write(tmp_path / "docs.jsonl", GOOD + b"".join(line for line, _ in bad) + again)
    logged = inside("index", "docs.jsonl", "-m", tiny_model, "--skip-invalid").stderr.splitlines()
    expected = [message for _, message in bad] + ["the id 'a' is taken by an earlier document"]
    for number, (line, message) in enumerate(zip(logged[:-2], expected, strict=True), 2):
        assert line.startswith(f"jv5kit: skipped: docs.jsonl:{number}: {message}")
    assert logged[-2] == f"{len(expected)} documents were skipped"
    assert logged[-1].startswith("docs.jv5: 2 documents, 64 dimensions")


def test_every_line_skipped_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "docs.jsonl", b"\n\n\n")
    outcome = run("index", "docs.jsonl", "--skip-invalid", code=2, cwd=tmp_path)
    assert outcome.stderr.count("jv5kit: skipped: ") == 3
    assert outcome.stderr.endswith("jv5kit: there is no document to index (3 were skipped)\n")
    assert not (tmp_path / "docs.jv5").exists()


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_gzip_file_that_is_cut_short(tmp_path: Path, keep: float) -> None:
    draw = random.Random(0)
    lines = [record({"id": str(i), "text": f"a penguin {draw.random()}"}) for i in range(2000)]
    data = gzip.compress(b"".join(lines))
    path = write(tmp_path / "docs.jsonl.gz", data[: int(len(data) * keep)])
    skipped: list[DocumentError] = []
    documents = list(read_documents(path, skipped.append))
    assert [document.id for document in documents] == [str(i) for i in range(len(documents))]
    assert 0.1 < len(documents) / 2000 <= 1
    message = f"docs.jsonl.gz:{len(documents) + 1}: the gzip file is cut short"
    assert [str(error) for error in skipped] == [message]
    with pytest.raises(DocumentError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"text": "plain"}\n', "docs.jsonl.gz:1: not a sound gzip file"),
        (gzip.compress(GOOD) + b"garbage", "docs.jsonl.gz:2: not a sound gzip file"),
        (gzip.compress(GOOD)[:10] + b"\xff" * 30, "docs.jsonl.gz:1: not a sound gzip file"),
        (gzip.compress(GOOD)[:-8] + b"\0" * 8, "docs.jsonl.gz:2: not a sound gzip file: CRC check failed"),
        (gzip.compress(GOOD)[:5], "docs.jsonl.gz:1: the gzip file is cut short"),
        (gzip.compress(GOOD + b"\n"), "docs.jsonl.gz:2: the line is blank"),
    ],
    ids=["not gzip", "garbage at the end", "a damaged block", "a wrong checksum", "a cut header", "a blank line"],
)
def test_a_gzip_file_that_is_damaged(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(write(tmp_path / "docs.jsonl.gz", data))
    assert str(caught.value).startswith(message)


def test_a_cut_gzip_file_on_the_command_line(
    tmp_path: Path, tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = gzip.compress(GOOD + b'{"id": "b", "text": "the cold sea"}\n')
    write(tmp_path / "docs.jsonl.gz", data[:-6])
    outcome = inside("index", "docs.jsonl.gz", "-m", tiny_model, code=2)
    assert outcome.stderr.startswith("jv5kit: docs.jsonl.gz:3: the gzip file is cut short\n")
    outcome = inside("index", "docs.jsonl.gz", "-m", tiny_model, "--skip-invalid")
    assert "jv5kit: skipped: docs.jsonl.gz:3: the gzip file is cut short" in outcome.stderr
    assert "1 documents were skipped\ndocs.jv5: 2 documents" in outcome.stderr


def test_a_line_of_the_limit_is_read_and_one_more_is_not(tmp_path: Path) -> None:
    frame = len(b'{"text": ""}')
    longest = b'{"text": "' + b"a" * (MAX_LINE_BYTES - frame) + b'"}'
    assert len(longest) == MAX_LINE_BYTES
    documents = read(write(tmp_path / "docs.jsonl", longest + b"\n" + longest))
    assert [len(document.text) for document in documents] == [MAX_LINE_BYTES - frame] * 2
    with pytest.raises(DocumentError, match=r"docs\.jsonl:1: the line is longer than 32 MiB"):
        read(write(tmp_path / "docs.jsonl", b" " + longest))


def test_a_line_without_end_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without line ends, far longer than the limit, is read in pieces of the limit at most."""
    largest = 0

    class Stream(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            nonlocal largest
            line = super().readline(size)
            largest = max(largest, len(line))
            return line

    class Stdin:
        buffer = Stream(b"[" * (3 * MAX_LINE_BYTES) + b"\n" + GOOD)

    monkeypatch.setattr(sys, "stdin", Stdin)
    skipped: list[DocumentError] = []
    assert [document.id for document in read_documents(STDIN, skipped.append)] == ["a"]
    assert str(skipped[0]) == "<stdin>:1: the line is longer than 32 MiB"
    assert MAX_LINE_BYTES < largest <= MAX_LINE_BYTES + 1


def test_reading_is_streaming(tmp_path: Path) -> None:
    """Documents come before the end of the file is there."""
    fifo = tmp_path / "docs.jsonl"
    os.mkfifo(fifo)
    may_go_on = threading.Event()

    def feed() -> None:
        with fifo.open("wb", buffering=0) as file:
            file.write(GOOD)
            may_go_on.wait(20)
            file.write(b'{"id": "b", "text": "the cold sea"}\n')

    feeder = threading.Thread(target=feed)
    feeder.start()
    documents = read_documents(fifo)
    first = next(documents)
    assert not may_go_on.is_set()
    may_go_on.set()
    assert [first.id, *(document.id for document in documents)] == ["a", "b"]
    feeder.join()


# Good lines


def test_the_fields_of_a_document(tmp_path: Path) -> None:
    lines = [
        {"id": "a", "title": "Birds", "text": "a penguin", "year": 2024, "tags": ["x", None], "m": {"n": 1.5}},
        {"_id": "b", "text": "the sea"},
        {"text": "no id"},
        {"id": 7, "_id": "kept", "text": "both", "title": None},
        {"id": 10**30, "text": "large", "title": ""},
        {"text": "Ünïcode 漢字 🐧\n\tnext line "},
    ]
    documents = read(write(tmp_path / "docs.jsonl", b"".join(map(record, lines))))
    assert documents == [
        Document("a", "a penguin", "Birds", {"year": 2024, "tags": ["x", None], "m": {"n": 1.5}}),
        Document("b", "the sea"),
        Document("3", "no id"),
        Document("7", "both", None, {"_id": "kept"}),
        Document("1000000000000000000000000000000", "large"),
        Document("6", "Ünïcode 漢字 🐧\n\tnext line "),
    ]
    assert documents[0].content == "Birds\na penguin"
    assert documents[1].content == "the sea"
    assert documents[2].origin == "docs.jsonl:3"


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n',
        b'{"id": "a", "text": "x"}\r\n{"id": "b", "text": "y"}\r\n',
        b'{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}',
        b' {"id" : "a", "text": "x"} \n\t{"id": "b", "text": "y"}\n',
        b'{"id": "a", "text": "not this", "text": "x"}\n{"id": "b", "text": "y"}\n',
    ],
    ids=["BOM", "CRLF", "no end of line", "spaces", "a key twice"],
)
@pytest.mark.parametrize("compress", [False, True])
def test_files_as_they_come(tmp_path: Path, data: bytes, compress: bool) -> None:
    path = write(tmp_path / f"docs.jsonl{'.gz' * compress}", gzip.compress(data) if compress else data)
    assert read(path) == [Document("a", "x"), Document("b", "y")]


def test_json_500_deep_is_read_and_written(tmp_path: Path) -> None:
    value: Any = 1
    for _ in range(499):
        value = [value]
    (document,) = read(write(tmp_path / "docs.jsonl", record({"text": "a", "m": value})))
    assert json.loads(metadata_json(document.metadata)) == {"m": value}


def test_an_empty_file_has_no_document(tmp_path: Path) -> None:
    assert read(write(tmp_path / "docs.jsonl", b"")) == []
    assert read(write(tmp_path / "docs.jsonl.gz", gzip.compress(b""))) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "cannot read .*: No such file or directory"),
        (lambda path: path.mkdir(), "cannot read .*: Is a directory"),
        (lambda path: (path / "x").parent.symlink_to(path), "cannot read .*: Too many levels of symbolic links"),
    ],
)
@pytest.mark.parametrize("name", ["docs.jsonl", "docs.jsonl.gz"])
def test_a_file_that_cannot_be_opened(tmp_path: Path, make: Callable[[Path], None], message: str, name: str) -> None:
    make(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


# The first text that is drawn takes its time: tables of Unicode are made for it.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["id", "_id", "title", "text", "m"]), JSON_VALUES))
def test_any_object_gives_a_document_or_a_document_error(value: dict[str, Any]) -> None:
    """And what is accepted can be stored: its strings are UTF-8 without NUL, its metadata JSON."""
    check_any(record(value))


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_give_documents_or_document_errors(data: bytes) -> None:
    check_any(data)


def check_any(data: bytes) -> None:
    class Stdin:
        buffer = io.BytesIO(data)

    skipped: list[DocumentError] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Stdin)
        documents = list(read_documents(STDIN, skipped.append))
    lines = data.split(b"\n")
    assert len(documents) + len(skipped) == len(lines) - (lines[-1] == b"")
    assert all(str(error).startswith("<stdin>:") for error in skipped)
    for document in documents:
        check_document(document)
        assert document.text.strip()
        assert "\0" not in document.id + document.text
        document.content.encode()
        assert json.loads(metadata_json(document.metadata)) == document.metadata
