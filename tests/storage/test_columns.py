from __future__ import annotations

import enum
import json
import operator
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from expressions import exact, is_wrong, records, scalars, trees, truth, written
from hypothesis import given

from jv5kit.errors import InputError
from jv5kit.storage.column import MAX_STRING
from jv5kit.storage.columns import MAX_FIELDS, Columns
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def matching(where: str, metadata: list[dict[str, Any]]) -> list[int]:
    return [int(row) for row in np.flatnonzero(parse_filter(where).matches(Columns.of(metadata)))]


def stored(columns: Columns, read: list[str] | None = None) -> Columns:
    """The columns as an index gives them back: a layout through JSON, and read-only tensors."""
    layout = json.loads(json.dumps(columns.layout, sort_keys=True))
    tensors = columns.tensors()
    specs = Columns.tensor_specs(layout)
    assert specs == [(name, array.dtype, array.shape) for name, array in tensors.items()]
    for array in tensors.values():
        array.flags.writeable = False

    def of(name: str) -> NDArray[Any]:
        if read is not None:
            read.append(name)
        return tensors[name]

    return Columns.stored(layout, of)


def same(columns: Columns, other: Columns) -> bool:
    """Whether two have the same layout and the same bytes."""
    mine, theirs = columns.tensors(), other.tensors()
    return columns.layout == other.layout and all(np.array_equal(mine[name], theirs[name]) for name in mine)


@given(records(), trees)
def test_columns_match_what_documents_do(metadata: list[dict[str, Any]], tree: tuple[Any, ...]) -> None:
    expected = [truth(tree, record) is True for record in metadata]
    inverse = [truth(tree, record) is False for record in metadata]
    where = parse_filter(written(tree))
    columns = Columns.of(metadata)
    for each in (columns, stored(columns)):
        mask = where.matches(each)
        assert mask.dtype == np.bool_
        assert mask.tolist() == expected
        assert (~where).matches(each).tolist() == inverse
        assert mask.flags.writeable


@given(records(), trees)
def test_a_wrong_type_is_an_error(metadata: list[dict[str, Any]], tree: tuple[Any, ...]) -> None:
    where = parse_filter(written(tree))
    # It is the index that has no such value, not one segment of it.
    segments = [Columns.of(metadata[:5]), stored(Columns.of(metadata[5:]))]
    if is_wrong(tree, metadata):
        with pytest.raises(InputError, match="but its values are"):
            where.check(segments)
    else:
        where.check(segments)


@st.composite
def parts(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> list[tuple[list[dict[str, Any]], list[bool] | None]]:
    found = []
    for metadata in draw(st.lists(records(values), max_size=4)):
        keep = draw(st.none() | st.lists(st.booleans(), min_size=len(metadata), max_size=len(metadata)))
        found.append((metadata, keep))
    return found


def merge(several: list[tuple[list[dict[str, Any]], list[bool] | None]]) -> tuple[Columns, list[dict[str, Any]]]:
    """The columns put together, and the documents that they are of."""
    merged = Columns.concatenate(
        [
            (stored(Columns.of(metadata)), None if keep is None else np.array(keep, np.bool_))
            for metadata, keep in several
        ]
    )
    kept = [record for metadata, keep in several for i, record in enumerate(metadata) if keep is None or keep[i]]
    return merged, kept


@given(parts(scalars), trees)
def test_columns_put_together_match_what_documents_do(
    several: list[tuple[list[dict[str, Any]], list[bool] | None]], tree: tuple[Any, ...]
) -> None:
    merged, kept = merge(several)
    assert parse_filter(written(tree)).matches(stored(merged)).tolist() == [truth(tree, each) is True for each in kept]


@given(parts(exact))
def test_columns_put_together_are_those_built_at_once(
    several: list[tuple[list[dict[str, Any]], list[bool] | None]],
) -> None:
    # But for floats: a whole number that stood beside one stays a float.
    merged, kept = merge(several)
    assert same(merged, Columns.of(kept))


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 65535, 65536, 65537])
def test_a_dictionary_of_any_size(count: int) -> None:
    names = [f"{i:05}" for i in np.random.default_rng(0).permutation(count)]
    columns = Columns.of([{"name": name} for name in names])
    last = f"{count - 1:05}"
    for where, expected in {
        f"name = '{last}'": 1,
        f"name = '{count:05}'": 0,
        f"name < '{last}'": count - 1,
        f"name <= '{last}'": count,
        f"name > '{last}'": 0,
        "name > ''": count,
        "name < ''": 0,
        "name <= 'x'": count,
    }.items():
        assert np.count_nonzero(parse_filter(where).matches(columns)) == expected, where
    codes = columns.tensors()["columns.0.string"]
    assert codes.dtype.itemsize == (1 if count <= 256 else 2 if count <= 65536 else 4)


@pytest.mark.parametrize("values", [[5, -7], [100, -100], [200], [-300], [70000], [1 << 40], [0.5, 2.5], [5, 0.5]])
def test_limits_beyond_the_stored_type(values: list[float]) -> None:
    columns = Columns.of([{"a": value} for value in values])
    for limit in (0, -129, -40000, 300, 1 << 33, -(1 << 33), (1 << 63) - 1, -(1 << 63), 1e300, -1e300, 0.25):
        for order, test in {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}.items():
            expected = [test(value, limit) for value in values]
            assert parse_filter(f"a {order} {limit!r}").matches(columns).tolist() == expected


@pytest.mark.parametrize("count", [1, 2, 16, 17, 100])
@pytest.mark.parametrize("make", [int, str, float, lambda i: i + 0.5, lambda i: [i, str(i)]])
def test_any_of_many_values(count: int, make: Callable[[int], Any]) -> None:
    columns = Columns.of([{"a": make(i)} for i in range(200)])
    wanted = [make(i) for i in range(0, 2 * count, 2)]
    where = parse_filter({"a": [value[-1] if isinstance(value, list) else value for value in wanted]})
    assert np.flatnonzero(where.matches(columns)).tolist() == list(range(0, 2 * count, 2))
    assert np.count_nonzero((~where).matches(columns)) == 200 - count


def test_only_the_fields_that_a_filter_names_are_read() -> None:
    read: list[str] = []
    columns = stored(Columns.of([{"a": 1, "b": "x", "c": [1, 2]}, {"b": "y"}]), read)
    where = parse_filter("b = 'x' or d = 1")
    where.check([columns])
    assert read == []
    assert where.matches(columns).tolist() == [True, False]
    assert {name.split(".")[1] for name in read} == {"1"}


def test_strings_compare_by_code_point() -> None:
    # UTF-16 would have the character beyond the basic plane first.
    assert matching("a > '\ufffd'", [{"a": "\ufffd"}, {"a": "\U0001f600"}, {"a": "z"}]) == [1]


def test_whole_numbers_and_floats_compare_exactly() -> None:
    big = (1 << 53) + 1
    metadata: list[dict[str, Any]] = [{"a": big}, {"a": float(big)}, {"a": big - 1}, {"a": 0.5}]
    assert matching(f"a = {big}", metadata) == [0]
    assert matching(f"a < {big}", metadata) == [1, 2, 3]
    assert matching(f"a >= {float(big)!r}", metadata) == [0, 1, 2]
    assert matching("a > 9.3e18", [{"a": (1 << 63) - 1}]) == []
    assert matching("a <= 9.3e18", [{"a": (1 << 63) - 1}]) == [0]


def test_lists_and_missing_fields() -> None:
    metadata: list[dict[str, Any]] = [
        {"tags": ["x", "y"]},
        {"tags": "x"},
        {"tags": []},
        {"tags": None},
        {},
        {"tags": [None, "z"]},
    ]
    assert matching("tags = 'x'", metadata) == [0, 1]
    assert matching("tags != 'x'", metadata) == [2, 5]
    assert matching("not tags = 'x'", metadata) == [2, 5]
    assert matching("tags not in ('y', 'z')", metadata) == [1, 2]
    assert matching("tags exists", metadata) == [0, 1, 2, 5]
    assert matching("tags not exists", metadata) == [3, 4]
    assert matching("other != 1", metadata) == []
    assert matching("other != 1 or tags = 'z'", metadata) == [5]
    assert matching("other not exists", metadata) == [0, 1, 2, 3, 4, 5]


def test_what_is_written_as_json_is_a_value() -> None:
    class Kind(enum.StrEnum):
        BOOK = "book"

    class Year(enum.IntEnum):
        NOW = 2024

    metadata: list[dict[str, Any]] = [
        {"a": Kind.BOOK, "b": Year.NOW, "c": np.float64(0.5), "d": ("x", "y")},
        {"a": "book"},
    ]
    assert matching("a = 'book'", metadata) == [0, 1]
    assert matching("b = 2024 and c = 0.5 and d = 'y'", metadata) == [0]


def test_strings_too_long_cannot_be_compared() -> None:
    metadata: list[dict[str, Any]] = [{"a": "x" * (MAX_STRING + 1), "b": "x" * MAX_STRING}, {"a": 5, "b": "y"}]
    long, short = Columns.of(metadata), Columns.of(metadata[1:])
    for columns in (long, stored(long), Columns.concatenate([(short, None), (long, None)])):
        for where in ("a = 'x'", "not a < 'x'", "a in (5, 'x')", "b = 'y' and a = 'x'"):
            with pytest.raises(InputError, match=r"the field 'a' cannot be compared with a string: .* 256 characters"):
                parse_filter(where).check([short, columns])
        parse_filter("a = 5 and b = 'y'").check([short, columns])
    assert matching("a != 5", metadata) == [0]
    assert matching("a exists", metadata) == [0, 1]
    assert "columns.0.string" not in long.tensors()


def test_whole_numbers_too_large_cannot_be_compared() -> None:
    columns = Columns.of([{"a": 1 << 63}, {"a": [0.5, "x"]}, {"a": -1}])
    for where in ("a = 1", "a > 0.5"):
        with pytest.raises(InputError, match=r"the field 'a' cannot be compared with a number: .* 64 bits"):
            parse_filter(where).check([columns])
    found = parse_filter("a = 'x'")
    found.check([columns])
    assert found.matches(columns).tolist() == [False, True, False]


def test_a_wrong_type_names_the_field_the_value_and_the_types() -> None:
    columns = Columns.of([{"year": "2020"}, {"year": True}])
    with pytest.raises(InputError) as error:
        parse_filter("lang = 'x' or year >= 2020").check([columns])
    assert str(error.value) == (
        "the filter compares the field 'year' with 2020, a number, but its values are booleans and strings"
    )
    parse_filter("year >= 2020").check([columns, Columns.of([{"year": 2020.5}])])
    parse_filter("year >= 2020").check([])


def test_too_many_fields_are_remembered() -> None:
    many = [{f"f{i:03}": i for i in range(MAX_FIELDS)}, {f"f{i:03}": i for i in range(1, MAX_FIELDS + 1)}]
    columns, other = Columns.of(many), Columns.of([{"f000": 1, "f001": 1, "new": 2}])
    assert columns.overflow
    # Rare ones are left out, by name where they are equally rare.
    assert columns.fields == {f"f{i:03}" for i in range(MAX_FIELDS)}
    assert not Columns.of(many[:1]).overflow
    assert not Columns.of([{**many[0], "object": {}, "x" * 257: 1}]).overflow
    for each in (columns, stored(columns)):
        parse_filter("f000 = 1").check([other, each])
        with pytest.raises(InputError, match="'new', which is not among the fields that can be filtered on"):
            parse_filter("f001 = 1 and new = 2").check([other, each])
    # However frequent it is elsewhere: there are documents that may have it and do not show it.
    merged = Columns.concatenate([(columns, None), (other, None), (other, None), (other, None)])
    assert merged.overflow
    assert merged.fields == columns.fields
    # Too many only when put together: again the most frequent are kept.
    merged = Columns.concatenate([(Columns.of(many[:1]), None), (other, None), (other, None)])
    assert merged.overflow
    assert merged.fields == {f"f{i:03}" for i in range(MAX_FIELDS - 1)} | {"new"}


def test_nothing_put_together_is_nothing() -> None:
    assert Columns.concatenate([]).layout == {"rows": 0, "overflow": False, "fields": []}
    assert same(Columns.concatenate([]), Columns.of([]))
    assert parse_filter("a not exists").matches(Columns.of([])).tolist() == []
