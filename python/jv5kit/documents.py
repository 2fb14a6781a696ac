"""Documents in JSON Lines: one object a line, plain or gzipped, read without ever holding the file.

``text`` is required; ``id`` (or ``_id``) defaults to the line number; ``title`` is optional; every other
key is metadata.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from jv5kit.errors import DocumentError, InputError
from jv5kit.types import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_LINE_BYTES = 32 << 20
"""Longest line that is read; a longer one is taken for damage rather than for a document."""

MAX_DEPTH = 500
"""Deepest nesting of JSON that is read: far beyond any document, and safe for every parser that metadata will meet."""

STDIN = Path("-")

T = TypeVar("T")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode_json = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def read_documents(path: Path, skip: Callable[[DocumentError], None] | None = None) -> Iterator[Document]:
    """Read documents one by one.

    Args:
        path: a ``.jsonl`` file, gzipped if its name ends in ``.gz``, or ``-`` for standard input.
        skip: called with the error of each line that cannot be used, which is then passed over; None raises it.

    Raises:
        InputError: the file cannot be opened.
        DocumentError: the first bad line, as ``file:line: what is wrong``.
    """
    return read_records(path, _document, skip)


def read_records(
    path: Path, parse: Callable[[dict[str, Any], int, str], T], skip: Callable[[DocumentError], None] | None = None
) -> Iterator[T]:
    """Read what the objects of a JSON Lines file stand for; the arguments and errors are those of `read_documents`.

    Args:
        path: the file.
        parse: called with an object, the number of its line and ``file:line``; a ValueError says what is wrong with it.
        skip: takes the errors.
    """
    with _open(path) as file:
        yield from _records(file, "<stdin>" if path == STDIN else path.name, parse, skip)


def read_range(
    path: Path,
    start: int,
    end: int,
    *,
    first_line: int | None = None,
    skip: Callable[[DocumentError], None] | None = None,
) -> Iterator[Document]:
    """Read the documents whose lines begin in a range of bytes, so that ranges that meet share them out.

    They are those that :func:`read_documents` gives, and so are the errors, which say the byte beside the line.

    Args:
        path: a ``.jsonl`` file that can be read from any byte: neither gzipped nor standard input.
        start: the first byte of the range.
        end: the byte after the last one.
        first_line: number of the first line that begins in the range, counted where it is not given.
        skip: takes the errors, as for :func:`read_documents`.

    Raises:
        InputError: the file cannot be opened, or cannot be read from any byte.
        DocumentError: the first bad line.
    """
    refuse_ranges(path)
    with _open(path) as file:
        before = 0
        if start:
            before = _lines_before(file, start) if first_line is None else first_line - 1
            # The line that has the byte before begins in another range.
            file.seek(start - 1)
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        yield from _records(file, path.name, _document, skip, before, end)


def refuse_ranges(path: Path) -> None:
    """Refuse an input that cannot be read from any byte.

    Raises:
        InputError: it is standard input, or gzipped.
    """
    if path == STDIN:
        raise InputError("standard input cannot be split among workers: write it to a file")
    if path.suffix == ".gz":
        raise InputError(f"{path} is gzipped, and cannot be split among workers: unpack it with gzip -dk")


def _records(
    file: IO[bytes],
    name: str,
    parse: Callable[[dict[str, Any], int, str], T],
    skip: Callable[[DocumentError], None] | None,
    before: int = 0,
    end: int | None = None,
) -> Iterator[T]:
    """What the lines of a file stand for from where it is, ``before`` lines in, to those that begin at ``end``."""
    for number in count(before + 1):
        origin = f"{name}:{number}"
        if end is not None:
            if file.tell() >= end:
                return
            origin += f" (byte {file.tell()})"
        try:
            line = read_line(file)
            if line is None:
                return
            parsed = parse(json_object(line, number), number, origin)
        except CutShortError as error:
            _refuse(skip, f"{origin}: {error}")
            return
        except ValueError as error:
            _refuse(skip, f"{origin}: {error}")
            continue
        yield parsed


def _document(record: dict[str, Any], number: int, origin: str) -> Document:
    return document_from_record(record, str(number), origin)


def _lines_before(file: IO[bytes], start: int) -> int:
    """Lines that begin before a byte."""
    lines, left = 1, start - 1
    while left and (block := file.read(min(left, 1 << 20))):
        lines += block.count(b"\n")
        left -= len(block)
    return lines


def count_lines(path: Path) -> int | None:
    """Lines of a documents file, for progress; None where counting would mean to read all of it as a reader does."""
    if path == STDIN or path.suffix == ".gz":
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _refuse(skip: Callable[[DocumentError], None] | None, message: str) -> None:
    error = DocumentError(message)
    if skip is None:
        raise error from None
    skip(error)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        # Closed below, by the block that yields it.
        file = cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    with file:
        yield file


class CutShortError(Exception):
    """A compressed file that ends, or is damaged, in the middle: nothing after this line can be read."""


def read_line(file: IO[bytes]) -> bytes | None:
    """The next line of a file, None at its end.

    Raises:
        ValueError: the line is too long; it is passed over.
        CutShortError: the file ends in the middle, or is damaged.
    """
    try:
        line = file.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            raise ValueError(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
    except EOFError:
        raise CutShortError("the gzip file is cut short") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CutShortError(f"not a sound gzip file: {error}") from None
    except OSError as error:
        raise CutShortError(f"cannot be read: {error.strerror or error}") from None
    return line or None


def json_object(line: bytes, number: int) -> dict[str, Any]:
    """The JSON object of a line, or a ValueError that says what is wrong with it."""
    try:
        text_line = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start + 1} of the line") from None
    if not text_line.strip():
        raise ValueError("the line is blank; each line must be a JSON object")
    try:
        record = _decode_json(text_line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"the JSON is nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        # Python's own limit, against numbers that take minutes to read.
        if "integer string conversion" in str(error):
            raise ValueError(f"a number has more than {sys.get_int_max_str_digits()} digits") from None
        raise
    if not isinstance(record, dict):
        raise ValueError(f"not a JSON object, but {kind_of(record)}")
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(record) > MAX_DEPTH:
        raise ValueError(f"the JSON is nested deeper than {MAX_DEPTH}")
    return record


def document_from_record(record: Mapping[str, Any], default_id: str, origin: str | None = None) -> Document:
    """The document of a JSON object; what is not id, title or text is metadata.

    Raises:
        ValueError: a field is missing or of the wrong type, or holds what not every store can keep.
    """
    rest = dict(record)
    if "text" not in rest:
        raise ValueError("'text' is missing")
    text = rest.pop("text")
    title = rest.pop("title", None)
    key = "id" if "id" in rest else "_id"
    identifier = rest.pop(key, default_id)
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        raise ValueError(f"'{key}' must be a string or a whole number, but is {kind_of(identifier)}")
    document = Document(str(identifier), text, None if title == "" else title, rest, origin)
    check_document(document)
    return document


def check_document(document: Document) -> None:
    """Refuse what cannot be encoded or what not every store can keep.

    Raises:
        ValueError: the text is no string or empty, the id is empty, the title or the metadata is of the wrong type, or
            a string has a NUL character or half of a surrogate pair.
    """
    if not isinstance(document.text, str):
        raise ValueError(f"'text' must be a string, but is {kind_of(document.text)}")
    if not document.text.strip():
        raise ValueError("'text' is empty")
    if document.title is not None and not isinstance(document.title, str):
        raise ValueError(f"'title' must be a string, but is {kind_of(document.title)}")
    if not isinstance(document.id, str) or not document.id:
        raise ValueError("'id' must be a string that is not empty" if document.id == "" else "'id' must be a string")
    check_string("id", document.id)
    check_string("title", document.title or "")
    check_string("text", document.text)
    if document.metadata:
        for key in document.metadata:
            if not isinstance(key, str):
                raise ValueError(f"the metadata has the key {key!r}; keys must be strings")
        metadata_json(document.metadata)


def check_string(name: str, value: str) -> None:
    """Refuse a NUL character and half of a surrogate pair: ValueError."""
    if "\0" in value:
        raise ValueError(f"'{name}' has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"'{name}' has half of a surrogate pair, which is no character") from None


def metadata_json(metadata: dict[str, Any]) -> str:
    """Metadata as one line of JSON.

    Raises:
        ValueError: it is no JSON object, nested too deep, or a string in it has what :func:`check_string` refuses.
    """
    if not isinstance(metadata, dict):
        raise ValueError(f"'metadata' must be an object, but is {type(metadata).__name__}")
    if not metadata:
        return "{}"
    try:
        text = _encode_json(metadata)
    except RecursionError:
        raise ValueError(f"the metadata is nested deeper than {MAX_DEPTH}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metadata is not JSON: {error}") from None
    # JSON escapes a NUL; a backslash before the escape would be a text about it.
    check_string("metadata", text.replace("\\\\", "").replace("\\u0000", "\0"))
    return text


def kind_of(value: object) -> str:
    """What a value of JSON is, for messages."""
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value)[:40]


def _depth(value: object) -> int:
    """Nesting of a JSON value, without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth - 1
