"""The columns of a segment: the metadata that filters are evaluated on.

A field of the metadata is a column if its value is a boolean, a number, a string or a list of them. null is missing, in
a list too, and so is any other value. Of a field that has strings longer than ``MAX_STRING`` characters the strings are
left out, and of one with whole numbers beyond 64 bits the numbers: the column remembers it, and they cannot be
compared. So does the segment if it has more than ``MAX_FIELDS`` fields, of which the most frequent are kept. Both stay
so when segments are merged.

The layout of the columns, which is JSON, has the dtype and length of every tensor; the catalogue keeps it.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.filters import MAX_NAME, Kind
from jv5kit.storage.column import MAX_STRING, Column, Elements
from jv5kit.storage.dictionary import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Layout = dict[str, Any]

MAX_FIELDS = 256
"""Columns of a segment."""

_TYPES: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "string"}
_DTYPES = {"bool": np.uint8, "int": np.int64, "float": np.float64}

_PLAIN: dict[type, Any] = {str: str.__str__, int: int.__int__, float: float.__float__}
"""JSON takes subclasses too, a NumPy float or an enumeration: they are written as the plain value, and kept so."""


class Columns:
    """The columns of one segment, by field.

    Attributes:
        rows: documents of the segment.
        overflow: there were more fields than columns: what is no column may be a field all the same.
    """

    def __init__(self, rows: int, columns: Mapping[str, Column], overflow: bool) -> None:
        self.rows = rows
        self.overflow = overflow
        self._columns = {field: columns[field] for field in sorted(columns)}

    @classmethod
    def of(cls, metadata: Sequence[Mapping[str, Any]]) -> Columns:
        """The columns of the metadata of documents: JSON objects, as :func:`jv5kit.documents.check_document` has it."""
        found: dict[str, tuple[list[int], list[Any]]] = defaultdict(lambda: ([], []))
        for row, record in enumerate(metadata):
            for field, value in record.items():
                if value is not None:
                    rows, values = found[field]
                    rows.append(row)
                    values.append(value)
        columns: dict[str, Column] = {}
        overflow = False
        for field in sorted(found, key=lambda field: (-len(found[field][0]), field)):
            if len(field) > MAX_NAME:
                continue
            if len(columns) == MAX_FIELDS:
                overflow = overflow or any(pairs_of(value) is not None for value in found[field][1])
            elif column := _column(len(metadata), *found[field]):
                columns[field] = column
        return cls(len(metadata), columns, overflow)

    @classmethod
    def stored(cls, layout: Layout, read: Callable[[str], NDArray[Any]]) -> Columns:
        """The columns of a segment file.

        Args:
            layout: as :attr:`layout` gave it.
            read: gives a tensor by its name; called when a filter needs it, and each time.
        """
        rows = layout["rows"]
        columns = {
            entry["field"]: Column(rows, entry["tensors"], entry["unfilterable"], partial(_read, read, number))
            for number, entry in enumerate(layout["fields"])
        }
        return cls(rows, columns, layout["overflow"])

    @classmethod
    def concatenate(cls, parts: Sequence[tuple[Columns, NDArray[np.bool_] | None]]) -> Columns:
        """The rows of several segments, one after another; where a mask ``(rows,)`` is given, those that are true."""
        counts = [columns.rows if keep is None else int(np.count_nonzero(keep)) for columns, keep in parts]
        fields = {field for columns, _ in parts for field in columns._columns}
        # What one segment has left out cannot be told from what it never had.
        fields -= {field for field in fields for columns, _ in parts if columns.overflow and not columns.get(field)}
        overflow = any(columns.overflow for columns, _ in parts)
        if len(fields) > MAX_FIELDS:
            counted = {field: np.count_nonzero(_present(parts, field)) for field in fields}
            ranked = sorted((field for field in fields if counted[field]), key=lambda field: (-counted[field], field))
            fields, overflow = set(ranked[:MAX_FIELDS]), overflow or len(ranked) > MAX_FIELDS
        merged = {}
        for field in fields:
            elements: dict[str, list[Elements]] = defaultdict(list)
            unfilterable: set[Kind] = set()
            first_row = 0
            for (columns, keep), count in zip(parts, counts, strict=True):
                if column := columns.get(field):
                    for type_, part in column.elements(keep, first_row).items():
                        elements[type_].append(part)
                    unfilterable |= column.unfilterable.keys()
                first_row += count
            present = _present(parts, field)
            if present.any():
                whole = {type_: Elements.concatenate(several) for type_, several in elements.items()}
                merged[field] = Column.of(present, whole, unfilterable)
        return cls(sum(counts), merged, overflow)

    @property
    def fields(self) -> frozenset[str]:
        """The fields that are columns."""
        return frozenset(self._columns)

    def get(self, field: str) -> Column | None:
        """The column of a field."""
        return self._columns.get(field)

    @property
    def layout(self) -> Layout:
        """What the tensors are, as JSON; equal columns have equal layouts."""
        fields = [
            {"field": field, "unfilterable": [*column.unfilterable], "tensors": column.shapes}
            for field, column in self._columns.items()
        ]
        return {"rows": self.rows, "overflow": self.overflow, "fields": fields}

    @staticmethod
    def tensor_specs(layout: Layout) -> list[tuple[str, np.dtype[Any], tuple[int]]]:
        """Name, dtype and shape of each tensor of a layout, in order."""
        return [
            (_tensor(number, name), np.dtype(dtype), (length,))
            for number, entry in enumerate(layout["fields"])
            for name, (dtype, length) in sorted(entry["tensors"].items())
        ]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All tensors, in the order of :meth:`tensor_specs`."""
        return {
            _tensor(number, name): column.read(name)
            for number, column in enumerate(self._columns.values())
            for name in column.shapes
        }


def _tensor(number: int, name: str) -> str:
    # By number, since a field's name may have any characters.
    return f"columns.{number}.{name}"


def _read(read: Callable[[str], NDArray[Any]], number: int, name: str) -> NDArray[Any]:
    return read(_tensor(number, name))


def _present(parts: Iterable[tuple[Columns, NDArray[np.bool_] | None]], field: str) -> NDArray[np.bool_]:
    found = []
    for columns, keep in parts:
        column = columns.get(field)
        present = column.present() if column else np.zeros(columns.rows, np.bool_)
        found.append(present if keep is None else present[keep])
    return np.concatenate(found)


def _column(total: int, rows: list[int], values: list[Any]) -> Column | None:
    """The column of a field's values, none of them null; None if it has no value that can be filtered."""
    pairs: dict[str, tuple[list[int], list[Any]]]
    types = set(map(type, values))
    if len(types) == 1 and (type_ := _TYPES.get(types.pop())):
        pairs = {type_: (rows, values)}
    else:
        with_field = []
        pairs = defaultdict(lambda: ([], []))
        for row, value in zip(rows, values, strict=True):
            found = pairs_of(value)
            if found is not None:
                with_field.append(row)
                for type_, scalar in found:
                    pairs[type_][0].append(row)
                    pairs[type_][1].append(scalar)
        rows = with_field
    if not rows:
        return None
    present = np.zeros(total, np.bool_)
    present[rows] = True
    elements: dict[str, Elements] = {}
    unfilterable: set[Kind] = set()
    for type_, (where, scalars) in pairs.items():
        at = np.array(where, np.intp)
        if type_ == "string":
            if max(map(len, scalars)) > MAX_STRING:
                unfilterable.add("string")
            else:
                elements[type_] = Elements(at, *encode(scalars))
            continue
        try:
            elements[type_] = Elements(at, np.array(scalars, _DTYPES[type_]))
        except OverflowError:
            unfilterable.add("number")
    return Column.of(present, elements, unfilterable)


def pairs_of(value: Any) -> list[tuple[str, Any]] | None:
    """The scalars of a value with their types, nulls left out; None if it is neither a scalar nor a list of them."""
    pairs = []
    for scalar in value if isinstance(value, list | tuple) else (value,):
        if type_ := _TYPES.get(type(scalar)):
            pairs.append((type_, scalar))
        elif base := next((base for base in _PLAIN if isinstance(scalar, base)), None):
            pairs.append((_TYPES[base], _PLAIN[base](scalar)))
        elif scalar is not None:
            return None
    return pairs
