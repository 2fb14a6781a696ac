"""Random metadata and filters, and what a filter means: the truth that columns are held to, a document at a time."""

from __future__ import annotations

import json
import operator
from typing import Any

import hypothesis.strategies as st

from jv5kit.filters import Kind, kind_of

FIELDS = ["year", "tags", "or", "größe.x-1", "a name", '`\\"\n']

INTEGERS = [0, 1, -1, 127, 128, -129, 255, 256, 65536, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, (1 << 63) - 1, -1 << 63]
FLOATS = [-0.0, 0.5, -1.5, 255.5, float(1 << 53), float(1 << 63), -float(1 << 63), 1e300, -1e300, 5e-324]
STRINGS = ["", "a", "aa", "b", "é", "\ufffd", "\U0001f600", '"', "'", "\\", "\n", "1", "true", "\u0131"]

texts = st.sampled_from(STRINGS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
integers = st.sampled_from(INTEGERS) | st.integers(-300, 300)
numbers = integers | st.sampled_from(FLOATS) | st.floats(allow_nan=False, allow_infinity=False)
exact = st.booleans() | integers | texts
scalars = st.booleans() | numbers | texts


def records(values: st.SearchStrategy[Any] = scalars) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Metadata of a few documents: scalars and lists of them, and what is no column."""
    other = st.sampled_from([None, {}, {"a": 1}, [[1]], ["a", {}]])
    value = values | st.lists(values | st.none(), max_size=3) | other
    return st.lists(st.dictionaries(st.sampled_from(FIELDS), value, max_size=4), max_size=12)


def tests_of(field: str) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.one_of(
        st.tuples(st.just("test"), st.just(field), st.sampled_from(["=", "==", "!="]), scalars),
        st.tuples(st.just("test"), st.just(field), st.sampled_from(["<", "<=", ">", ">="]), numbers | texts),
        st.tuples(st.just("test"), st.just(field), st.sampled_from(["in", "not in"]), st.lists(scalars, max_size=20)),
        st.tuples(st.just("test"), st.just(field), st.sampled_from(["exists", "not exists"]), st.none()),
    )


trees: st.SearchStrategy[tuple[Any, ...]] = st.recursive(
    st.sampled_from(FIELDS).flatmap(tests_of),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)
"""Filters as nested tuples, NOT and all."""


def written(tree: tuple[Any, ...]) -> str:
    """The text of a tree, with every parenthesis."""
    match tree:
        case ("not", inner):
            return f"NOT ({written(inner)})"
        case ("and" | "or" as word, inner):
            return f" {word} ".join(f"({written(each)})" for each in inner)
        case (_, field, test, value):
            name = json.dumps(field, ensure_ascii=True)[1:-1].replace('\\"', '"').replace("`", "\\`")
            if value is None:
                return f"`{name}` {test}"
            if isinstance(value, list):
                return f"`{name}` {test} ({', '.join(map(json.dumps, value))})"
            return f"`{name}` {test} {json.dumps(value)}"
    raise AssertionError(tree)


def elements(record: dict[str, Any], field: str) -> list[Any] | None:
    """The scalars of a field; None if it is missing."""
    value = record.get(field)
    found = value if isinstance(value, list) else [value]
    if value is None or any(isinstance(each, dict | list) for each in found):
        return None
    return [each for each in found if each is not None]


def truth(tree: tuple[Any, ...], record: dict[str, Any]) -> bool | None:
    """What a filter is for a document, in Kleene's logic: None is unknown."""
    match tree:
        case ("not", inner):
            value = truth(inner, record)
            return None if value is None else not value
        case ("and" | "or" as word, inner):
            values = [truth(each, record) for each in inner]
            decisive: bool = word == "or"
            if decisive in values:
                return decisive
            return None if None in values else not decisive
        case (_, field, test, value):
            found = elements(record, field)
            if "exists" in test:
                return bool((found is not None) == (test == "exists"))
            if found is None:
                return None
            return holds(test, found, value)
    raise AssertionError(tree)


def holds(test: str, found: list[Any], value: Any) -> bool:
    def same(a: Any, b: Any) -> bool:
        return kind_of(a) == kind_of(b) and bool(a == b)

    if test in ("in", "not in"):
        return any(same(each, wanted) for each in found for wanted in value) == (test == "in")
    if test in ("=", "==", "!="):
        return any(same(each, value) for each in found) == (test != "!=")
    order = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[test]
    return any(kind_of(each) == kind_of(value) and order(each, value) for each in found)


def comparisons(tree: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Each field with each value it is compared with."""
    if tree[0] == "not":
        return comparisons(tree[1])
    if tree[0] in ("and", "or"):
        return [pair for each in tree[1] for pair in comparisons(each)]
    _, field, _, value = tree
    if value is None:
        return []
    return [(field, each) for each in (value if isinstance(value, list) else [value])]


def is_wrong(tree: tuple[Any, ...], metadata: list[dict[str, Any]]) -> bool:
    """Whether a field is compared with a value of a kind that none of its values has."""
    for field, value in comparisons(tree):
        kinds: set[Kind] = {kind_of(each) for record in metadata for each in elements(record, field) or []}
        if kinds and kind_of(value) not in kinds:
            return True
    return False
