from __future__ import annotations

import contextlib
import enum
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from expressions import scalars, trees, written
from hypothesis import example, given

from jv5kit.errors import InputError
from jv5kit.filters import Condition, Filter
from jv5kit.where import MAX_CONDITIONS, MAX_DEPTH, MAX_LENGTH, parse_filter


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("year>=2020", "year >= 2020"),
        ('lang in ("en","de")', 'lang in ("de", "en")'),
        ("lang == 'en'", 'lang = "en"'),
        ("lang in ('en', \"en\")", 'lang = "en"'),
        ("lang in ()", "lang in ()"),
        ("NOT year In (1, 2.5)", "year not in (1, 2.5)"),
        ("year NOT IN (1,2)", "year not in (1, 2)"),
        ("a=1 OR b=2 and NOT c=3", "a = 1 or b = 2 and c != 3"),
        ("(a=1 or b=2) and c=3", "(a = 1 or b = 2) and c = 3"),
        ("not a=1 and b=2", "a != 1 and b = 2"),
        ("not (a=1 and b<2 or c exists)", "(a != 1 or not b < 2) and c not exists"),
        ("not not a >= 1", "a >= 1"),
        ("((a=1)) and (b=1 and (c=1))", "a = 1 and b = 1 and c = 1"),
        ("a = True", "a = true"),
        ("a = -1.50e+2", "a = -150"),
        ("a = +.5", "a = 0.5"),
        ("a = 5.", "a = 5"),
        ("a = -0", "a = 0"),
        ("a = -0.0", "a = 0"),
        ("a = 9223372036854775807", "a = 9223372036854775807"),
        ("a = 9007199254740993", "a = 9007199254740993"),
        ("a < 1e30", "a < 1e+30"),
        ("größe_2.x-y=1", "größe_2.x-y = 1"),
        ("`größe`=1", "größe = 1"),
        ("`or`=1", "`or` = 1"),
        ("`a b` exists", "`a b` exists"),
        ("`` = 1", "`` = 1"),
        ("`\\`\\\\` = 1", "`\\`\\\\` = 1"),
        (r"""a = 'it\'s "so" \\ \n \u00e9 \/'""", r'a = "it\'s \"so\" \\ \n é /"'.replace("\\'", "'")),
        (r'a = "\ud83d\ude00"', 'a = "😀"'),
        ('a = "two\nlines"', 'a = "two\\nlines"'),
        (" \t\na=1\r\n", "a = 1"),
    ],
)
def test_a_filter_is_written_in_one_way(text: str, canonical: str) -> None:
    assert str(parse_filter(text)) == canonical
    assert str(parse_filter(canonical)) == canonical


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("", 1, "expected a field, 'not' or '(', but the filter ends"),
        ("year", 5, "expected one of ="),
        ("year >= ", 9, "expected a number, a string in quotes, true or false, but the filter ends"),
        ("year >= and", 9, "there is and"),
        ("lang = en", 8, "there is en (strings need quotes)"),
        ("day > 2020-01-01", 7, "there is 2020-01-01 (strings need quotes)"),
        ("a = null", 5, "there is null (a missing field is found by 'not exists')"),
        ("a=1 b=2", 5, "expected 'and', 'or' or the end, but there is b"),
        ("(a=1", 5, "expected 'and', 'or' or ')', but the filter ends"),
        ("a=1)", 4, "there is )"),
        ("a in 1", 6, "expected '('"),
        ("a in (1 2)", 9, "expected ',' or ')', but there is 2"),
        ("a in (1,)", 9, "there is )"),
        ("a = (1)", 5, "there is ("),
        ("a not = 1", 7, "expected 'in' or 'exists'"),
        ("in = 1", 1, "a field of such a name needs backticks"),
        ("3d = 1", 1, "a field of such a name needs backticks"),
        ("2020 <= year", 1, "expected a field"),
        ('a = "x', 5, '" is not closed'),
        ("`a = 1", 1, "` is not closed"),
        ("a = 1 & b = 2", 7, "'&' means nothing here"),
        (r'a = "x\q"', 7, r"\q is no escape"),
        (r'a = "\ud800"', 1, "half of a surrogate pair"),
        ("a = 1e999", 1, "'a' has inf"),
        ("a = 9223372036854775808", 1, "beyond 64 bits"),
        (f"a = {'9' * 5000}", 5, "beyond 64 bits"),
        ("draft > true", 1, "orders 'draft' by true or false"),
        (f"{'x' * 257} = 1", 1, "a field of 257 characters"),
        ("(" * 100_000, MAX_DEPTH + 1, f"nested deeper than {MAX_DEPTH}"),
        ("not " * 100_000, 4 * MAX_DEPTH + 1, f"nested deeper than {MAX_DEPTH}"),
        (" or ".join(["a=1"] * (MAX_CONDITIONS + 1)), 7 * MAX_CONDITIONS + 1, f"more than {MAX_CONDITIONS} conditions"),
    ],
)
def test_a_bad_filter_says_where(text: str, place: int, problem: str) -> None:
    with pytest.raises(InputError) as error:
        parse_filter(text)
    assert problem in str(error.value)
    assert f"(at character {place} of the filter " in str(error.value)
    assert len(str(error.value)) < 400


def test_the_deepest_and_the_longest_filters_are_read() -> None:
    assert str(parse_filter(f"{'(' * MAX_DEPTH}a=1{')' * MAX_DEPTH}")) == "a = 1"
    alternating = "a = 1"
    for level in range(MAX_DEPTH):
        alternating = f"({alternating}) {'or' if level % 2 else 'and'} b = 1"
    assert parse_filter(str(parse_filter(alternating))) == parse_filter(alternating)
    assert parse_filter(" or ".join(["a=1"] * MAX_CONDITIONS)).fields == {"a"}
    assert parse_filter("a = 1".ljust(MAX_LENGTH)) == parse_filter("a = 1")
    with pytest.raises(InputError, match=f"{MAX_LENGTH + 1} characters; the limit is {MAX_LENGTH}"):
        parse_filter("a = 1".ljust(MAX_LENGTH + 1))


class Language(enum.StrEnum):
    EN = "en"


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({"year": 2024}, "year = 2024"),
        ({"year": 2024, "lang": ["en", "de"]}, 'year = 2024 and lang in ("de", "en")'),
        ({"year": [2024]}, "year = 2024"),
        ({"year": []}, "year in ()"),
        ({"year": (1, 1.0, True)}, "year in (true, 1)"),
        ({"year": {1}}, "year = 1"),
        ({"a b": "x", "": False}, '`a b` = "x" and `` = false'),
        ({"year": np.int64(1), "x": np.float32(0.5), "y": np.str_("s"), "z": np.bool_(True)}, None),
        ({"lang": Language.EN}, 'lang = "en"'),
    ],
)
def test_a_dict_is_equality(where: dict[str, Any], text: str | None) -> None:
    assert parse_filter(where) == parse_filter(text or 'year = 1 and x = 0.5 and y = "s" and z = true')
    assert parse_filter(parse_filter(where)) == parse_filter(where)


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ({}, "an empty dict; leave it out"),
        ({"a": None}, "'a' has null; a missing field is found by 'a not exists'"),
        ({"a": [None]}, "'a' has null"),
        ({"a": {"$gte": 1}}, "'a' has dict {'$gte': 1}; it must be"),
        ({"a": [[1]]}, "'a' has list"),
        ({"a": float("nan")}, "'a' has nan; a number must be finite"),
        ({"a": 1 << 63}, "'a' has a whole number beyond 64 bits"),
        ({"a": "\ud800"}, "half of a surrogate pair"),
        ({"\ud800": 1}, "half of a surrogate pair"),
        ({1: 2}, "the key 1; a field's name must be a string"),
        ({str(i): i for i in range(MAX_CONDITIONS + 1)}, f"{MAX_CONDITIONS + 1} fields"),
        (["a"], "the filter is list ['a']; it must be a string or a dict"),
        (None, "the filter is NoneType"),
    ],
)
def test_a_bad_dict_names_the_field(where: Any, problem: str) -> None:
    with pytest.raises(InputError) as error:
        parse_filter(where)
    assert problem in str(error.value)


def test_true_is_not_one() -> None:
    # Python's True == 1; a mask that is kept by filter must not be taken for the other's.
    assert parse_filter({"a": True}) != parse_filter({"a": 1})
    assert parse_filter({"a": 1}) == parse_filter({"a": 1.0})
    assert hash(parse_filter({"a": 1})) == hash(parse_filter("a = 1e0"))
    assert parse_filter("a = 1") != "a = 1"


def test_a_filter_knows_its_fields() -> None:
    assert parse_filter("a=1 and not (b=1 or a exists)").fields == {"a", "b"}


def test_a_filter_cannot_be_changed() -> None:
    condition = parse_filter("a = 1")
    assert isinstance(condition, Condition)
    with pytest.raises(AttributeError):
        condition.field = "b"  # type: ignore[misc]


@given(trees)
def test_a_filter_reads_what_it_writes(tree: tuple[Any, ...]) -> None:
    parsed = parse_filter(written(tree))
    again = parse_filter(str(parsed))
    assert again == parsed
    assert str(again) == str(parsed)
    assert hash(again) == hash(parsed)
    assert ~~parsed == parsed
    assert parse_filter(str(~parsed)) == ~parsed


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), scalars, min_size=1, max_size=3))
def test_a_dict_reads_as_it_is_written(where: dict[str, Any]) -> None:
    assert parse_filter(str(parse_filter(where))) == parse_filter(where)


PIECES = [
    "a",
    "and",
    "or",
    "NOT",
    "in",
    "exists",
    "(",
    ")",
    ",",
    "=",
    "!=",
    "<",
    ">=",
    "1",
    "-2.5",
    "'x'",
    '"',
    "`",
    "\\",
    "é",
]


@given(st.text(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join))
@example("\0")
@example("\ud800")
@example("a = '\\u12'")
def test_any_text_is_a_filter_or_an_input_error(text: str) -> None:
    try:
        assert isinstance(parse_filter(text), Filter)
    except InputError as error:
        assert "at character" in str(error)


@given(st.recursive(scalars | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_value_is_a_filter_or_an_input_error(value: Any) -> None:
    for where in (value, {"a": value}):
        with contextlib.suppress(InputError):
            assert isinstance(parse_filter(where), Filter)
