"""Filters as SQL, and the fields that they compare.

Of the metadata of a document, ``fields`` has each field that can be filtered by as a list of its scalars (``{"year":
[2020], "tags": ["a", "b"]}``), null where there is none. In ``jsonb`` numbers compare exactly and strings by code
point, as :mod:`jv5kit.filters` wants it, if a number is written so that it says what the float is. What can be compared
is what a folder's columns can (see :mod:`jv5kit.storage.columns`), but of any number of fields; what kinds of values a
field has had is known as long as the index has a document.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from jv5kit.filters import MAX_NAME, Condition, Filter, Junction, kind_of
from jv5kit.storage.column import MAX_STRING, UNFILTERABLE
from jv5kit.storage.columns import pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jv5kit.filters import Kind, Value
    from jv5kit.stores.postgres.connection import Connection
    from jv5kit.stores.postgres.tables import Tables

_INT64 = range(-(1 << 63), 1 << 63)

_FEW = 8
"""Values that are looked up in the index of the fields; more are hashed, and compared with every row."""

_PATHS: dict[str, LiteralString] = {
    "<": "$[*] ? (@ < $value)",
    "<=": "$[*] ? (@ <= $value)",
    ">": "$[*] ? (@ > $value)",
    ">=": "$[*] ? (@ >= $value)",
}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Field:
    """What is known of the values of a field: their kinds, and why some cannot be compared."""

    kinds: frozenset[Kind]
    unfilterable: Mapping[Kind, str]


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of an index, or those that were asked for."""

    known: Mapping[str, Field]
    overflow: bool = False

    @classmethod
    def read(cls, connection: Connection, tables: Tables, names: Iterable[str] | None = None) -> Fields:
        """The fields of some names, or all."""
        some = sql.SQL("") if names is None else sql.SQL(" WHERE field = ANY(%s)")
        found = connection.execute(
            tables.text("SELECT field, kinds, unfilterable FROM {fields}{some} ORDER BY field", some=some),
            None if names is None else ([name for name in names if "\0" not in name],),
        )
        known = {
            field: Field(frozenset(kinds) | set(lacking), {kind: UNFILTERABLE[kind] for kind in sorted(lacking)})
            for field, kinds, lacking in found
        }
        return cls(known)

    def get(self, field: str) -> Field | None:
        """What is known of a field."""
        return self.known.get(field)


class Gathered:
    """The fields of the documents of a batch.

    Attributes:
        values: for each document its fields as JSON, None where it has none.
    """

    def __init__(self, metadata: Sequence[Mapping[str, Any]]) -> None:
        self._kinds: dict[str, tuple[set[Kind], set[Kind]]] = {}
        self.values = [self._add(record) if record else None for record in metadata]

    def write(self, connection: Connection, tables: Tables) -> None:
        """Add them to the fields of the index."""
        with connection.cursor() as cursor:
            cursor.executemany(
                tables.text(
                    "INSERT INTO {fields} AS f VALUES (%s, %s, %s) ON CONFLICT (field) DO UPDATE SET "
                    "kinds = ARRAY(SELECT DISTINCT unnest(f.kinds || excluded.kinds)), "
                    "unfilterable = ARRAY(SELECT DISTINCT unnest(f.unfilterable || excluded.unfilterable)) "
                    "WHERE NOT (f.kinds @> excluded.kinds AND f.unfilterable @> excluded.unfilterable)"
                ),
                [(field, sorted(kinds), sorted(lacking)) for field, (kinds, lacking) in self._kinds.items()],
            )

    def _add(self, record: Mapping[str, Any]) -> bytes | None:
        fields: dict[str, list[Value]] = {}
        for field, value in record.items():
            pairs = None if value is None or len(field) > MAX_NAME else pairs_of(value)
            if pairs is None:
                continue
            kinds, lacking = self._kinds.setdefault(field, (set(), set()))
            kept = fields.setdefault(field, [])
            for _, scalar in pairs:
                kind = kind_of(scalar)
                if (kind == "string" and len(scalar) > MAX_STRING) or (type(scalar) is int and scalar not in _INT64):
                    lacking.add(kind)
                else:
                    kinds.add(kind)
                    kept.append(_exact(scalar))
        return _encode(fields).encode() if fields else None


def as_sql(condition: Filter) -> tuple[sql.Composable, list[Any]]:
    """What is true of the rows that a filter keeps, on the column ``fields``, and its parameters."""
    if isinstance(condition, Junction):
        parts = [as_sql(operand) for operand in condition.operands]
        word = sql.SQL(" AND ") if condition.word == "and" else sql.SQL(" OR ")
        return sql.SQL("({})").format(word.join([text for text, _ in parts])), [p for _, some in parts for p in some]
    assert isinstance(condition, Condition)
    field = condition.field
    if "\0" in field:
        # PostgreSQL takes no text with it, and no document has such a field.
        return sql.SQL("true" if condition.operator == "exists" and condition.negated else "false"), []
    if condition.operator == "exists":
        return sql.SQL("(fields ? %s::text) IS NOT TRUE" if condition.negated else "fields ? %s::text"), [field]
    test: LiteralString
    parameters: list[Any]
    if condition.operator == "in":
        there = [value for value in condition.values if not (isinstance(value, str) and "\0" in value)]
        if len(there) <= _FEW:
            test = "fields @> ANY(%s::jsonb[])"
            parameters = [[Jsonb({field: [_exact(value)]}) for value in there]]
        else:
            test = "EXISTS (SELECT FROM jsonb_array_elements(fields -> %s::text) e WHERE e = ANY(%s::jsonb[]))"
            parameters = [field, [Jsonb(_exact(value)) for value in there]]
    else:
        order, value = _without_nul(condition.operator, condition.values[0])
        test = "jsonb_path_exists(fields -> %s::text, %s::jsonpath, %s)"
        parameters = [field, _PATHS[order], Jsonb({"value": _exact(value)})]
    # Null where the document has no field at all, which in AND and in OR is as good as false.
    if condition.negated:
        return sql.SQL("(fields ? %s::text AND NOT " + test + ")"), [field, *parameters]
    return sql.SQL(test), parameters


def _without_nul(order: str, value: Value) -> tuple[str, Value]:
    """An order that says the same of strings without a NUL, which comes before every character that they have."""
    if not (isinstance(value, str) and "\0" in value):
        return order, value
    return "<=" if order in ("<", "<=") else ">", value.partition("\0")[0]


def _exact(value: Value) -> Value:
    """A value whose JSON has exactly its number.

    The shortest digits of a float keep its place among others; but a whole number has to have all of its own.
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value
