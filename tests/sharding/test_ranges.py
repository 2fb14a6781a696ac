"""A file in ranges of bytes: together they are the file, whatever is in it and wherever it is cut."""

import json
import re
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jv5kit.documents import read_documents, read_range
from jv5kit.errors import DocumentError, InputError
from jv5kit.sharding.ranges import SHARD_BYTES, cut

if TYPE_CHECKING:
    from jv5kit.types import Document

SOUND = st.builds(
    lambda text, identifier: json.dumps(
        {"text": f"x{text}"} | ({} if identifier is None else {"id": identifier}), ensure_ascii=False
    ).encode(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.none() | st.text("aé漢🐧", min_size=1, max_size=3),
)
LINES = st.lists(
    SOUND | st.sampled_from([b"", b"   ", b"{", b"\xff\xfe", b'{"text": 7}', "é漢🐧".encode()]), max_size=12
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    lines=LINES,
    end=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
    bom=st.booleans(),
    shards=st.integers(1, 9),
)
def test_ranges_share_out_what_a_reader_of_the_file_sees(
    tmp_path: Path, lines: list[bytes], end: bytes, last: bool, bom: bool, shards: int
) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + end.join(lines) + (end if last else b""))
    data = path.read_bytes()
    found = cut(path, shards)
    assert (found.size, found.checksum) == (len(data), blake2b(data, digest_size=16).hexdigest())
    assert found.lines == data.count(b"\n") + (data != b"" and not data.endswith(b"\n"))
    errors: list[DocumentError] = []
    documents: list[Document] = []
    for part in found.ranges:
        before = len(documents) + len(errors)
        documents += read_range(path, part.start, part.end, first_line=part.first_line, skip=errors.append)
        assert len(documents) + len(errors) == before + part.lines
    counted = [list(read_range(path, part.start, part.end, skip=lambda _: None)) for part in found.ranges]
    assert [document for of_range in counted for document in of_range] == documents
    plain: list[DocumentError] = []
    assert list(read_documents(path, plain.append)) == documents
    for ranged, error in zip(map(str, errors), map(str, plain), strict=True):
        found_in = re.fullmatch(r"(docs.jsonl:(\d+)) \(byte (\d+)\)(.*)", ranged)
        assert found_in
        where, number, byte, problem = found_in.groups()
        assert error == f"{where}{problem}"
        assert data[: int(byte)].count(b"\n") == int(number) - 1
        assert byte == "0" or data[int(byte) - 1 :].startswith(b"\n")


def test_the_first_bad_line_is_an_error_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "b"}\n{"text": ""}\n')
    with pytest.raises(DocumentError, match=r"^docs.jsonl:3 \(byte 28\): 'text' is empty$"):
        list(read_range(path, 5, 60))


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.documents.MAX_LINE_BYTES", 64)
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b'{"text": "' + 300 * b"a" + b'"}\n{"text": "b"}\n')
    errors: list[str] = []
    # The cuts lie within the long line.
    for part in cut(path, 4).ranges:
        found = list(read_range(path, part.start, part.end, skip=lambda error: errors.append(str(error))))
        assert [document.id for document in found] == (["2"] if part.end == path.stat().st_size else [])
    assert errors == ["docs.jsonl:1 (byte 0): the line is longer than 0 MiB"]


def test_the_number_of_ranges_follows_the_size(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    for size, shards in [(0, 1), (1, 1), (SHARD_BYTES, 1), (SHARD_BYTES + 1, 2)]:
        path.write_bytes(size * b"\n")
        found = cut(path)
        assert len(found.ranges) == shards
        assert found.lines == size


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("-", "standard input cannot be split among workers"),
        ("docs.jsonl.gz", "docs.jsonl.gz is gzipped, and cannot be split among workers: unpack it with gzip -dk"),
        ("nothing.jsonl", "cannot read nothing.jsonl: No such file or directory"),
        ("/dev/null", "/dev/null is no file, and cannot be split among workers"),
    ],
)
def test_what_cannot_be_cut(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cut(Path(name), 2)
