"""Rows of a table on disk: JSON Lines (.gz too), CSV or TSV, each row with its fields by name and where it was read."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

from jv5kit.documents import check_string, read_records
from jv5kit.errors import DocumentError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".tsv")

SYNONYMS = {
    "sentence1": ("sentence_A", "s1"),
    "sentence2": ("sentence_B", "s2"),
    "score": ("relatedness_score",),
    "text": ("sentence",),
    "label": ("category", "is_counterfactual"),
    "query": ("anchor",),
}
"""Other names of fields, as public data sets have them."""

_MAX_FIELD = 32 << 20


class Row:
    """The fields of one row, taken out as what they must be.

    Args:
        fields: by name, as they were read: strings, and from JSON any values.
        origin: ``file:line``, which begins every message.
    """

    def __init__(self, fields: dict[str, Any], origin: str) -> None:
        self.fields = fields
        self.origin = origin

    def __contains__(self, name: str) -> bool:
        """Whether the row has the field, under its own name or another one."""
        return self._value(name) is not None

    def text(self, name: str) -> str:
        """A text that is not empty."""
        return self._checked(name, self._required(name))

    def texts(self, name: str) -> list[str]:
        """A text, or a list of at least one."""
        value = self._required(name)
        values = value if isinstance(value, list) else [value]
        if not values:
            raise self.error(f"{name!r} is an empty list; it must have at least one text")
        return [self._checked(name, item) for item in values]

    def label(self, name: str) -> str:
        """A label: a string, or a whole number."""
        value = self._required(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise self.error(f"{name!r} is {value!r}; it must be a label, a string or a whole number")
        return str(value).strip()

    def labels(self, name: str) -> tuple[str, ...]:
        """A list of labels, which may be empty."""
        value = self._required(name)
        if not isinstance(value, list) or not all(isinstance(item, str | int) for item in value):
            raise self.error(f"{name!r} is {value!r:.60}; it must be a list of labels")
        return tuple(dict.fromkeys(str(item) for item in value))

    def number(self, name: str) -> float:
        """A finite number."""
        return self._finite(name, self._required(name))

    def numbers(self, name: str) -> list[float]:
        """A list of finite numbers."""
        value = self._required(name)
        if not isinstance(value, list):
            raise self.error(f"{name!r} is {value!r:.60}; it must be a list of numbers")
        return [self._finite(name, item) for item in value]

    def error(self, problem: str) -> DocumentError:
        """The error of this row."""
        return DocumentError(f"{self.origin}: {problem}")

    def _value(self, name: str) -> Any:
        names = (name, *SYNONYMS.get(name, ()))
        return next((self.fields[known] for known in names if self.fields.get(known) is not None), None)

    def _required(self, name: str) -> Any:
        value = self._value(name)
        if value is None:
            raise self.error(f"{name!r} is missing; the fields are {', '.join(map(repr, self.fields)) or 'none'}")
        return value

    def _checked(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{name!r} is {value!r:.60}; it must be a text that is not empty")
        try:
            check_string(name, value)
        except ValueError as error:
            raise self.error(str(error)) from None
        return value

    def _finite(self, name: str, value: Any) -> float:
        try:
            number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{name!r} is {value!r:.60}; it must be a finite number")
        return number


def read_rows(path: Path, *, columns: Sequence[str] | None = None, quoted: bool = True) -> Iterator[Row]:
    """Read the rows of a file by its suffix.

    Args:
        path: ``.jsonl``, ``.jsonl.gz``, ``.csv`` or ``.tsv``.
        columns: names of the columns of a table without a header.
        quoted: whether double quotes around a field of a table are no part of it.

    Raises:
        InputError: the file cannot be read, or has no row.
        DocumentError: the first bad row.
    """
    rows = _json_rows(path) if ".jsonl" in path.name else _table_rows(path, columns, quoted=quoted)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise InputError(f"{path} has no row")


def first_row(path: Path) -> Row:
    """The first row of a file, by whose fields its kind is known.

    Raises:
        InputError: as :func:`read_rows`.
    """
    return next(iter(read_rows(path)))


def _json_rows(path: Path) -> Iterator[Row]:
    return read_records(path, lambda record, _, origin: Row(record, origin))


def _table_rows(path: Path, columns: Sequence[str] | None, *, quoted: bool) -> Iterator[Row]:
    csv.field_size_limit(_MAX_FIELD)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path.name}: not UTF-8: {error.reason} at byte {error.start + 1}") from None
    delimiter = "," if path.suffix == ".csv" else "\t"
    stream = io.StringIO(text, newline="")
    if quoted:
        table = csv.reader(stream, delimiter=delimiter, strict=True)
    else:
        table = csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    header = columns
    while True:
        origin = f"{path.name}:{table.line_num + 1}"
        try:
            values = next(table, None)
        except csv.Error as error:
            raise DocumentError(f"{origin}: {error}; a field with quotes, tabs or commas is quoted as in CSV") from None
        if values is None:
            return
        if not values:
            continue
        if header is None:
            header = values
            continue
        if len(values) != len(header):
            raise DocumentError(f"{origin}: {len(values)} fields; there must be {len(header)}: {', '.join(header)}")
        yield Row(dict(zip(header, values, strict=True)), origin)
