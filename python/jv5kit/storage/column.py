"""A column: one field of the metadata of a segment, as arrays that a filter is evaluated on.

Values are kept by type (``bool``, ``int``, ``float``, ``string``), each in one of two forms: one value a row, where
each row that has the field has just one value and of that type; or all values, with an offset for each row, where rows
have lists, or values of several types. Whole numbers are kept as floats where a field has both and none loses a digit.

The arrays of a column, all of one dimension:

===================  ====================================================================================
``present``          bool (as uint8): whether the row has the field; left out where all rows have it
``<type>``           the values: uint8, the smallest int, float64, or codes of a dictionary
``<type>.offsets``   the second form: values of row i are ``offsets[i]`` to ``offsets[i + 1]``
``string.bounds``    the dictionary, see :class:`jv5kit.storage.dictionary.Dictionary`
``string.text``
===================  ====================================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.filters import kind_of
from jv5kit.storage.dictionary import Dictionary, merge, narrow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from jv5kit.filters import Kind, Order, Value

KINDS: dict[str, Kind] = {"bool": "boolean", "int": "number", "float": "number", "string": "string"}
"""The types that values are stored as, and what filters call them."""

MAX_STRING = 256
"""Characters of the longest string that can be compared."""

UNFILTERABLE: dict[Kind, str] = {
    "number": "the index has documents whose number in it is beyond 64 bits",
    "string": f"the index has documents whose text in it is longer than {MAX_STRING} characters",
}
"""Why the values of a kind may be left out."""

_FEW = 16
"""Values that are looked for one by one; it takes less than a sorted search."""


@dataclass(frozen=True, slots=True)
class Elements:
    """The values of one type on their way into a column.

    Attributes:
        rows: ``(n,)``, ascending: the row of each.
        values: ``(n,)``: uint8, int64, float64, or codes of the dictionary.
        dictionary: of strings.
    """

    rows: NDArray[np.intp]
    values: NDArray[Any]
    dictionary: Dictionary | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[Elements]) -> Elements:
        """The elements of several parts, whose rows follow one another."""
        rows = np.concatenate([part.rows for part in parts])
        coded = [(part.values, part.dictionary) for part in parts if part.dictionary is not None]
        if coded:
            return cls(rows, *merge(coded))
        return cls(rows, np.concatenate([part.values for part in parts]))


class Column:
    """One field of a segment; arrays are read when they are needed.

    Attributes:
        shapes: dtype and length of each array, by name; sorted.
        unfilterable: the kinds whose values were left out, with the reason.
    """

    def __init__(
        self,
        rows: int,
        shapes: Mapping[str, Sequence[Any]],
        unfilterable: Iterable[Kind],
        read: Callable[[str], NDArray[Any]],
    ) -> None:
        self.shapes: dict[str, list[Any]] = {name: list(shapes[name]) for name in sorted(shapes)}
        self.unfilterable = {kind: UNFILTERABLE[kind] for kind in sorted(unfilterable)}
        self.read = read
        self._rows = rows

    @classmethod
    def of(
        cls,
        present: NDArray[np.bool_],
        elements: Mapping[str, Elements],
        unfilterable: Iterable[Kind] = (),
    ) -> Column:
        """The column of the elements of each type, by the name of the type.

        Args:
            present: bool ``(rows,)``: which rows have the field.
            elements: of those rows.
            unfilterable: kinds whose values are to be left out.
        """
        rows, unfilterable = len(present), frozenset(unfilterable)
        kept = {type_: part for type_, part in elements.items() if len(part.rows) and KINDS[type_] not in unfilterable}
        with_field = np.flatnonzero(present)
        arrays: dict[str, NDArray[Any]] = {}
        if len(with_field) < rows:
            arrays["present"] = present.view(np.uint8)
        for type_, part in _as_floats_if_mixed(kept).items():
            values = part.values
            if type_ != "float":
                values = narrow(values if type_ == "int" else values.astype(np.uint64))
            if np.array_equal(part.rows, with_field):
                arrays[type_] = values
                if len(with_field) < rows:
                    arrays[type_] = np.zeros(rows, values.dtype)
                    arrays[type_][part.rows] = values
            else:
                offsets = np.zeros(rows + 1, np.uint64)
                np.cumsum(np.bincount(part.rows, minlength=rows), out=offsets[1:])
                arrays[type_], arrays[f"{type_}.offsets"] = values, narrow(offsets)
            if part.dictionary is not None:
                arrays["string.bounds"], arrays["string.text"] = part.dictionary.bounds, part.dictionary.text
        shapes = {name: [array.dtype.str, len(array)] for name, array in arrays.items()}
        return cls(rows, shapes, unfilterable, arrays.__getitem__)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of its values."""
        return frozenset({KINDS[type_] for type_ in self._types()} | self.unfilterable.keys())

    def present(self) -> NDArray[np.bool_]:
        """Which rows have the field: bool ``(rows,)``, not to be written to."""
        if "present" in self.shapes:
            return self.read("present").view(np.bool_)
        return np.ones(self._rows, np.bool_)

    def any_of(self, values: Sequence[Value]) -> NDArray[np.bool_]:
        """Which rows have at least one of some values."""
        mask = np.zeros(self._rows, np.bool_)
        for type_ in self._types():
            wanted = np.array(self._stored(type_, values), self.shapes[type_][0])
            if not len(wanted):
                continue
            array = self.read(type_)
            if len(wanted) > _FEW:
                found = np.isin(array, wanted)
            else:
                found = array == wanted[0]
                for value in wanted[1:]:
                    found |= array == value
            mask |= self._rows_of(type_, found)
        return mask

    def ordered(self, order: Order, value: Value) -> NDArray[np.bool_]:
        """Which rows have at least one value that is less, or greater, than this one."""
        mask = np.zeros(self._rows, np.bool_)
        for type_ in self._types():
            if KINDS[type_] == kind_of(value):
                mask |= self._rows_of(type_, self._ordered(type_, order, value))
        return mask

    def elements(self, keep: NDArray[np.bool_] | None, first_row: int) -> dict[str, Elements]:
        """The values of the rows that are kept, by type, with the rows counted anew from ``first_row``."""
        found = {}
        for type_ in self._types():
            if f"{type_}.offsets" in self.shapes:
                offsets = self.read(f"{type_}.offsets").astype(np.intp)
                rows = np.repeat(np.arange(self._rows), offsets[1:] - offsets[:-1])
                values = self.read(type_)
            else:
                rows = np.flatnonzero(self.present())
                values = self.read(type_)[rows]
            if keep is not None:
                kept = keep[rows]
                rows, values = (np.cumsum(keep) - 1)[rows[kept]], values[kept]
            if type_ == "int":
                values = values.astype(np.int64)
            found[type_] = Elements(rows + first_row, values, self._dictionary() if type_ == "string" else None)
        return found

    def _types(self) -> list[str]:
        return [type_ for type_ in KINDS if type_ in self.shapes]

    def _dictionary(self) -> Dictionary:
        return Dictionary(self.read("string.bounds"), self.read("string.text"))

    def _rows_of(self, type_: str, found: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The rows of the values found."""
        if f"{type_}.offsets" not in self.shapes:
            return found & self.present() if "present" in self.shapes else found
        offsets = self.read(f"{type_}.offsets")
        # How many were found before each value; it takes a fifth of what np.logical_or.reduceat does.
        before = np.zeros(len(found) + 1, offsets.dtype)
        np.cumsum(found, dtype=before.dtype, out=before[1:])
        bounds = before[offsets]
        mask: NDArray[np.bool_] = bounds[1:] > bounds[:-1]
        return mask

    def _stored(self, type_: str, values: Sequence[Value]) -> list[Any]:
        """How values are stored, those left out that cannot be there."""
        alike = [value for value in values if kind_of(value) == KINDS[type_]]
        if type_ == "string":
            dictionary = self._dictionary()
            places = [dictionary.find(str(value)) for value in alike]
            return [code for code, found in places if found]
        if type_ == "float":
            return [float(value) for value in alike if float(value) == value]
        low, high = _limits(self.shapes[type_][0])
        return [int(value) for value in alike if value == int(value) and low <= int(value) <= high]

    def _ordered(self, type_: str, order: Order, value: Any) -> NDArray[np.bool_]:
        """Which values are on that side: below the cut, the smallest that may be stored and is not, or from it on."""
        array, below, beyond = self.read(type_), order in ("<", "<="), order in ("<=", ">")
        cut: Any
        if type_ == "string":
            code, there = self._dictionary().find(value)
            cut = code + (beyond and there)
        elif type_ == "int":
            cut = math.floor(value) + 1 if beyond else math.ceil(value)
        else:
            # Python compares a whole number with a float exactly.
            cut = float(value)
            if cut < value or (beyond and cut == value):
                cut = math.nextafter(cut, math.inf)
        low, high = _limits(self.shapes[type_][0])
        if not low <= cut <= high:
            return np.full(len(array), below == (cut > high))
        limit = array.dtype.type(cut)
        found: NDArray[np.bool_] = array < limit if below else array >= limit
        return found


def _as_floats_if_mixed(elements: dict[str, Elements]) -> dict[str, Elements]:
    if not elements.keys() >= {"int", "float"}:
        return elements
    whole = elements["int"]
    if max(abs(int(whole.values.min())), abs(int(whole.values.max()))) > 1 << 53:
        return elements
    parts = [whole, elements["float"]]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    values = np.concatenate([part.values.astype(np.float64) for part in parts])
    return {type_: part for type_, part in elements.items() if type_ != "int"} | {
        "float": Elements(rows[order], values[order])
    }


def _limits(dtype: str) -> tuple[float, float]:
    """The least and the greatest value of a type; whole numbers are ints, thus exact."""
    if np.dtype(dtype).kind == "f":
        return -math.inf, math.inf
    limits = np.iinfo(np.dtype(dtype))
    return int(limits.min), int(limits.max)
