"""Filters on metadata: conditions on fields, joined by AND and OR, evaluated on the columns of a segment.

What a filter means, in the logic of SQL's three values:

- A condition on a field that a document does not have is unknown, and so is its negation: the document does not match,
  whatever the operator. ``exists`` alone speaks of that, and is always known. null is missing, and so is what is
  neither a scalar nor a list of scalars.
- A field that is a list matches if any of its elements does. ``!=``, ``not in`` and ``not`` negate the whole: ``tags !=
  "x"`` matches where no element is ``"x"``, the empty list among them.
- Numbers compare exactly, whole ones and others alike; strings compare by code point; true and false are no numbers. A
  value of another type than the filter's is not equal to it, nor above or below it.

:mod:`jv5kit.where` has the language; a filter is written in it by ``str``, and filters of one text are equal.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, final

import numpy as np

from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from jv5kit.storage.columns import Columns

Value = bool | int | float | str
Kind = Literal["boolean", "number", "string"]
Order = Literal["<", "<=", ">", ">="]
Operator = Literal["in", "exists"] | Order

MAX_NAME = 256
"""Characters of the longest field name that can be filtered on."""

KEYWORDS = frozenset({"and", "or", "not", "in", "exists", "true", "false", "null"})
"""Words of the language, in any case; a field of such a name is written in backticks."""

BARE_NAME = re.compile(r"[^\W\d][\w.\-]*")
"""A field name that needs no backticks: a letter or underscore, then letters, digits, ``_``, ``.`` and ``-``."""

_INT64 = range(-(1 << 63), 1 << 63)


class KnownField(Protocol):
    """What is known of the values of a field."""

    @property
    def kinds(self) -> AbstractSet[Kind]:
        """The kinds of its values."""

    @property
    def unfilterable(self) -> Mapping[Kind, str]:
        """The kinds that cannot be compared, with the reason."""


class KnownFields(Protocol):
    """The fields of some documents."""

    @property
    def overflow(self) -> bool:
        """Whether there are more than are known."""

    def get(self, field: str, /) -> KnownField | None:
        """What is known of a field."""


def kind_of(value: Value) -> Kind:
    """The type of a value, as filters and columns tell them apart."""
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def as_value(value: Any, field: str) -> Value:
    """A value to compare a field with: equal values come out the same, so 2020.0 as 2020.

    Raises:
        InputError: it is no scalar, or a number or string that no document can have.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_characters(value)
        return str.__str__(value)
    if isinstance(value, int):
        if value not in _INT64:
            raise InputError(f"the filter on {field!r} has a whole number beyond 64 bits; write a larger one as 1e30")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"the filter on {field!r} has {value}; a number must be finite")
        # So that one number has one text. Comparison is exact, so nothing else depends on it.
        return int(value) if value.is_integer() and int(value) in _INT64 else float(value)
    if value is None:
        raise InputError(f"the filter on {field!r} has null; a missing field is found by '{_name(field)} not exists'")
    raise InputError(
        f"the filter on {field!r} has {type(value).__name__} {value!r:.80}; it must be a string, a number, a boolean or"
        " a list of them (for ranges write the filter as a string: 'year >= 2020')"
    )


class Filter(ABC):
    """An expression that a document's metadata matches or not; immutable, and equal to every filter of its text."""

    @property
    def fields(self) -> frozenset[str]:
        """The fields it names."""
        return frozenset(condition.field for condition in self.conditions())

    def check(self, segments: Sequence[KnownFields]) -> None:
        """Refuse a comparison that no document of an index could pass, for want of a value of its type.

        A field that no document has is not refused: nothing matches it.

        Args:
            segments: the columns of every segment of the index, or what else is known of its fields.

        Raises:
            InputError: a field has values, but none of the type it is compared with; or it has values that cannot be
                compared (see :mod:`jv5kit.storage.columns`); the message names the field.
        """
        for condition in self.conditions():
            condition.check_one(segments)

    @abstractmethod
    def matches(self, columns: Columns) -> NDArray[np.bool_]:
        """Which rows of a segment match: bool ``(rows,)``, the caller's own."""

    @abstractmethod
    def conditions(self) -> Iterator[Condition]:
        """Its conditions, from left to right."""

    @abstractmethod
    def __invert__(self) -> Filter:
        """The filter that matches where this one is known not to match."""

    @abstractmethod
    def _write(self) -> str:
        """The text of the filter."""

    @cached_property
    def _text(self) -> str:
        return self._write()

    def __str__(self) -> str:
        return self._text

    # By text, because Python takes True for 1: such filters must not share a mask.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@final
@dataclass(frozen=True, eq=False)
class Condition(Filter):
    """A test of one field; made by :meth:`of`.

    Attributes:
        field: its name.
        operator: ``in`` (any of the values), an order (against the one value), or ``exists`` (no value).
        values: sorted, without duplicates.
        negated: it matches where the field exists and the test fails; for ``exists``, where the test fails.
    """

    field: str
    operator: Operator
    values: tuple[Value, ...] = ()
    negated: bool = False

    @classmethod
    def of(cls, field: str, operator: Operator, values: Sequence[Any] = ()) -> Condition:
        """The condition on values of any Python or NumPy type.

        Raises:
            InputError: the name or a value is one that no document can have, or true or false is to be ordered.
        """
        if len(field) > MAX_NAME:
            raise InputError(f"the filter names a field of {len(field)} characters; the limit is {MAX_NAME}")
        _check_characters(field)
        unique = {(kind_of(value), value): None for value in (as_value(value, field) for value in values)}
        if operator not in ("in", "exists") and any(kind == "boolean" for kind, _ in unique):
            raise InputError(f"the filter orders {field!r} by true or false, which are only equal or not: use = or !=")
        return cls(field, operator, tuple(value for _, value in sorted(unique)))

    def conditions(self) -> Iterator[Condition]:
        """Itself."""
        yield self

    def check_one(self, segments: Sequence[KnownFields]) -> None:
        """As :meth:`Filter.check`."""
        wanted = {kind_of(value): value for value in reversed(self.values)}
        there: set[Kind] = set()
        for columns in segments:
            column = columns.get(self.field)
            if column is None:
                if columns.overflow:
                    raise InputError(
                        f"the filter names {self.field!r}, which is not among the fields that can be filtered on: the"
                        " documents have too many different ones, and only the most frequent are kept"
                    )
                continue
            for kind in wanted.keys() & column.unfilterable.keys():
                raise InputError(
                    f"the field {self.field!r} cannot be compared with a {kind}: {column.unfilterable[kind]}"
                )
            there |= column.kinds
        for kind, value in wanted.items():
            if there and kind not in there:
                types = " and ".join(f"{other}s" for other in sorted(there))
                raise InputError(
                    f"the filter compares the field {self.field!r} with {_literal(value):.80}, a {kind}, but its values"
                    f" are {types}"
                )

    def matches(self, columns: Columns) -> NDArray[np.bool_]:
        """Which rows match."""
        column = columns.get(self.field)
        if column is None:
            return np.full(columns.rows, self.operator == "exists" and self.negated)
        if self.operator == "exists":
            found = column.present()
            return ~found if self.negated else found.copy()
        order = self.operator
        found = column.any_of(self.values) if order == "in" else column.ordered(order, self.values[0])
        return column.present() & ~found if self.negated else found

    def __invert__(self) -> Condition:
        return Condition(self.field, self.operator, self.values, not self.negated)

    def _write(self) -> str:
        name, inverse = _name(self.field), "not " if self.negated else ""
        if self.operator == "exists":
            return f"{name} {inverse}exists"
        if self.operator != "in":
            return f"{inverse}{name} {self.operator} {_literal(self.values[0])}"
        if len(self.values) == 1:
            return f"{name} {'!=' if self.negated else '='} {_literal(self.values[0])}"
        return f"{name} {inverse}in ({', '.join(map(_literal, self.values))})"


@final
@dataclass(frozen=True, eq=False)
class Junction(Filter):
    """Two filters or more, joined by AND or by OR; made by :meth:`of`."""

    word: Literal["and", "or"]
    operands: tuple[Filter, ...]

    @classmethod
    def of(cls, word: Literal["and", "or"], operands: Sequence[Filter]) -> Filter:
        """The filters joined; one by itself is left as it is, and a junction by the same word is taken apart."""
        flat: list[Filter] = []
        for operand in operands:
            flat += operand.operands if isinstance(operand, Junction) and operand.word == word else [operand]
        return flat[0] if len(flat) == 1 else cls(word, tuple(flat))

    def conditions(self) -> Iterator[Condition]:
        """Those of its operands."""
        for operand in self.operands:
            yield from operand.conditions()

    def matches(self, columns: Columns) -> NDArray[np.bool_]:
        """Which rows match."""
        join = np.logical_and if self.word == "and" else np.logical_or
        mask = self.operands[0].matches(columns)
        for operand in self.operands[1:]:
            join(mask, operand.matches(columns), out=mask)
        return mask

    def __invert__(self) -> Filter:
        # De Morgan's laws hold for three values too. So negation is found at conditions alone, and a mask of the rows
        # that match is all that there is to carry.
        return Junction("or" if self.word == "and" else "and", tuple(~operand for operand in self.operands))

    def _write(self) -> str:
        if self.word == "or":
            return " or ".join(map(str, self.operands))
        return " and ".join(
            f"({operand})" if isinstance(operand, Junction) else str(operand) for operand in self.operands
        )


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"the filter has half of a surrogate pair, which is no character, in {text!r:.80}") from None


def _name(field: str) -> str:
    if BARE_NAME.fullmatch(field) and field.lower() not in KEYWORDS:
        return field
    quoted = json.dumps(field, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("`", "\\`")
    return f"`{quoted}`"


def _literal(value: Value) -> str:
    return repr(value) if kind_of(value) == "number" else json.dumps(value, ensure_ascii=False)
