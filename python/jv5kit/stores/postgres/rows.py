"""Rows on their way in, as COPY takes them in binary, and on their way out, as arrays that queries are scored on."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.documents import metadata_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from jv5kit.stores.postgres.connection import Connection
    from jv5kit.stores.postgres.tables import Tables
    from jv5kit.types import Document

_BINARY = "FROM STDIN (FORMAT BINARY)"
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"


def copy_codes(
    connection: Connection, tables: Tables, first: int, codes: NDArray[np.uint8], fields: Sequence[bytes | None]
) -> None:
    """Add codes, and the fields of each as JSON, or None; rows are numbered from ``first`` on."""
    with connection.cursor() as cursor, cursor.copy(f"COPY {tables.codes} (row, code, fields) {_BINARY}") as copying:
        copying.write(_HEADER)
        copying.write(code_rows(first, codes, fields))
        copying.write(_TRAILER)


def copy_documents(
    connection: Connection,
    tables: Tables,
    first: int,
    documents: Sequence[Document],
    tensors: Mapping[str, NDArray[Any]],
) -> None:
    """Add documents, and their int8 rows, where there are such tensors."""
    scored = "rows" in tensors
    columns = f"row, {'int8_row, scale, ' if scored else ''}id, title, text, metadata"
    with connection.cursor() as cursor, cursor.copy(f"COPY {tables.documents} ({columns}) {_BINARY}") as copying:
        # JSON is text, also in binary.
        copying.set_types(["int8", *(["bytea", "float4"] if scored else []), "text", "text", "text", "text"])
        if not scored:
            for row, one in enumerate(documents, first):
                copying.write_row((row, one.id, one.title or None, one.text, metadata_json(one.metadata)))
            return
        rows = zip(documents, tensors["rows"], tensors["scales"].tolist(), strict=True)
        for row, (one, values, scale) in enumerate(rows, first):
            metadata = metadata_json(one.metadata)
            copying.write_row((row, values.tobytes(), scale, one.id, one.title or None, one.text, metadata))


def code_rows(first: int, codes: NDArray[np.uint8], fields: Sequence[bytes | None]) -> bytes:
    """The columns row, code and fields in binary."""
    width = codes.shape[1]
    fixed = np.empty(
        len(codes),
        [
            ("columns", ">i2"),
            ("row length", ">i4"),
            ("row", ">i8"),
            ("code length", ">i4"),
            ("bits", ">i4"),
            ("code", "u1", (width,)),
            ("fields length", ">i4"),
        ],
    )
    fixed["columns"] = 3
    fixed["row length"], fixed["row"] = 8, np.arange(first, first + len(codes))
    # A bit string begins with its number of bits.
    fixed["code length"], fixed["bits"], fixed["code"] = 4 + width, 8 * width, codes
    fixed["fields length"] = -1
    if not any(fields):
        return fixed.tobytes()
    # jsonb begins with the number of its version.
    texts = [b"" if text is None else b"\1" + text for text in fields]
    fixed["fields length"] = [len(text) or -1 for text in texts]
    data, size = fixed.tobytes(), fixed.dtype.itemsize
    starts = (data[start : start + size] for start in range(0, len(data), size))
    return b"".join(chain.from_iterable(zip(starts, texts, strict=True)))


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
