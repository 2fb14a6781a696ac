"""Rows on their way in, as COPY takes them in binary, and on their way out, as arrays that queries are scored on."""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from psycopg import sql

    from jv5kit.stores.postgres.connection import Connection
    from jv5kit.types import Document

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)


def copy(connection: Connection, statement: sql.Composed, data: bytes) -> None:
    """Send rows in binary."""
    with connection.cursor() as cursor, cursor.copy(statement) as copying:
        copying.write(_HEADER)
        copying.write(data)
        copying.write(_TRAILER)


def code_rows(first: int, codes: NDArray[np.uint8], fields: Sequence[bytes | None]) -> bytes:
    """The columns row, code and fields, the last one JSON or nothing; rows are numbered from ``first`` on."""
    width = codes.shape[1]
    fixed = np.empty(
        len(codes),
        [("columns", ">i2"), *_column("row", ">i8"), *_column("code", "u1", width, 4), ("fields", ">i4")],
    )
    fixed["columns"] = 3
    _fill(fixed, "row", np.arange(first, first + len(codes)))
    _fill(fixed, "code", codes)
    # A bit string begins with its number of bits.
    fixed["code head"] = 8 * width
    fixed["fields"] = -1
    if not any(fields):
        return fixed.tobytes()
    # jsonb begins with the number of its version.
    texts = [b"" if text is None else b"\1" + text for text in fields]
    fixed["fields"] = [len(text) or -1 for text in texts]
    return _joined(fixed, texts)


def document_rows(first: int, documents: Sequence[tuple[Document, str]], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The columns row, int8_row and scale, where there are such tensors, id, title, text and metadata."""
    rows = tensors.get("rows")
    columns = [("columns", ">i2"), *_column("row", ">i8")]
    if rows is not None:
        columns += [*_column("rows", "i1", rows.shape[1]), *_column("scales", ">f4")]
    fixed = np.empty(len(documents), columns)
    fixed["columns"] = 5 if rows is None else 7
    _fill(fixed, "row", np.arange(first, first + len(documents)))
    if rows is not None:
        _fill(fixed, "rows", rows)
        _fill(fixed, "scales", tensors["scales"])
    return _joined(
        fixed,
        [_strings(document.id, document.title or None, document.text, metadata) for document, metadata in documents],
    )


class Fetched:
    """Rows that a statement gave, as a part of an index that is scanned.

    Args:
        found: in binary, the columns row and code, and int8_row and scale where they are wanted.
        dim: bits of a code.

    Attributes:
        rows: how many.
        first_row: the number of the first.
        row_numbers: those of all, ascending.
    """

    def __init__(self, found: Iterable[tuple[Any, ...]], dim: int) -> None:
        columns = list(zip(*sorted(found, key=lambda row: int(row[0])), strict=True))
        self.row_numbers = np.array(columns[0] if columns else [], np.int64)
        self.rows = len(self.row_numbers)
        self.first_row = int(self.row_numbers[0]) if self.rows else 0
        codes = b"".join(code[4:] for code in columns[1]) if columns else b""
        self._tensors: dict[str, NDArray[Any]] = {"codes": np.frombuffer(codes, np.uint8).reshape(self.rows, dim // 8)}
        if len(columns) > 2:
            self._tensors["rows"] = np.frombuffer(b"".join(columns[2]), np.int8).reshape(self.rows, dim)
            self._tensors["scales"] = np.array(columns[3], np.float32)

    def tensor(self, name: str) -> NDArray[Any]:
        """A whole tensor ``(rows, …)``."""
        return self._tensors[name]

    def rows_of(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:  # noqa: ARG002  All of them are there.
        """The same."""
        return self._tensors[name]

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The document numbers of some rows."""
        return self.row_numbers[rows]


def _column(name: str, dtype: str, width: int | None = None, head: int = 0) -> list[tuple[Any, ...]]:
    """A column in binary: its length, perhaps a head of four bytes, and its value."""
    value = (name, dtype) if width is None else (name, dtype, (width,))
    return [(f"{name} length", ">i4"), *([(f"{name} head", ">i4")] if head else []), value]


def _fill(fixed: NDArray[Any], name: str, values: NDArray[Any]) -> None:
    fixed[name] = values
    head = 4 if f"{name} head" in (fixed.dtype.names or ()) else 0
    fixed[f"{name} length"] = head + fixed.dtype[name].itemsize


def _strings(*values: str | None) -> bytes:
    """Columns of text."""
    parts = []
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            data = value.encode()
            parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _joined(fixed: NDArray[Any], rests: Sequence[bytes]) -> bytes:
    """Rows that begin alike, each with its own rest."""
    data, size = fixed.tobytes(), fixed.dtype.itemsize
    starts = (data[start : start + size] for start in range(0, len(data), size))
    return b"".join(chain.from_iterable(zip(starts, rests, strict=True)))
