"""Filters in SQL: what they keep is what the truth of a document says, whatever the metadata and the filter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from expressions import is_wrong, records, trees, truth, written
from hypothesis import given
from hypothesis import settings as example_settings

from jv5kit import Index
from jv5kit.errors import InputError
from jv5kit.stores.postgres import PostgresIndex
from jv5kit.stores.postgres.filtering import Fields, Gathered, as_sql
from jv5kit.stores.postgres.tables import Tables
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg
    from postgres_server import PostgresServer

Metadata = list[dict[str, Any]]


def without_nul(value: Any) -> Any:
    """A value as a document may have it."""
    return json.loads(json.dumps(value).replace("\\\\", "\1").replace("\\u0000", "").replace("\1", "\\\\"))


@pytest.fixture(scope="module")
def connection(postgres: PostgresServer) -> Iterator[psycopg.Connection]:
    """A connection with a table of fields."""
    with postgres.connect() as found:
        found.execute("CREATE TEMP TABLE jv5kit_0_codes (row bigint, fields jsonb)")
        found.execute(
            'CREATE TEMP TABLE jv5kit_0_fields (field text COLLATE "C" PRIMARY KEY, kinds text[], unfilterable text[])'
        )
        yield found


def fill(connection: psycopg.Connection, *batches: Metadata) -> None:
    connection.execute("TRUNCATE jv5kit_0_codes, jv5kit_0_fields")
    row = 0
    for batch in batches:
        gathered = Gathered(batch)
        gathered.write(connection, Tables(0))
        with connection.cursor() as cursor:
            values = [None if value is None else value.decode() for value in gathered.values]
            cursor.executemany("INSERT INTO jv5kit_0_codes VALUES (%s, %s)", list(enumerate(values, row)))
        row += len(batch)


def matching(connection: psycopg.Connection, where: Any) -> list[int]:
    text, parameters = as_sql(where)
    statement = f"SELECT row FROM jv5kit_0_codes WHERE {text} ORDER BY row"
    return [row for (row,) in connection.execute(statement, parameters)]


@example_settings(max_examples=150)
@given(records().map(without_nul), trees, trees)
def test_filters_match_what_documents_do(
    connection: psycopg.Connection, metadata: Metadata, tree: tuple[Any, ...], other: tuple[Any, ...]
) -> None:
    fill(connection, metadata)
    for each in (tree, other):
        where = parse_filter(written(each))
        known = [truth(each, record) for record in metadata]
        assert matching(connection, where) == [row for row, value in enumerate(known) if value is True]
        assert matching(connection, ~where) == [row for row, value in enumerate(known) if value is False]


@example_settings(max_examples=60)
@given(records().map(without_nul), trees)
def test_a_wrong_type_is_an_error(connection: psycopg.Connection, metadata: Metadata, tree: tuple[Any, ...]) -> None:
    fill(connection, metadata[:5], metadata[5:])
    where = parse_filter(written(tree))
    known = Fields.read(connection, Tables(0), where.fields)
    if is_wrong(tree, metadata):
        with pytest.raises(InputError, match="but its values are"):
            where.check([known])
    else:
        where.check([known])


def same_answer(index: Index, other: PostgresIndex, where: str) -> tuple[Any, Any]:
    found: list[Any] = []
    for store in (index, other):
        try:
            found.append([hit.id for hit in store.search(np.ones(8), 100, filter=where)])
        except InputError as error:
            found.append(str(error))
    return found[0], found[1]


def test_the_same_answers_as_a_folder(postgres_url: str, tmp_path: Path) -> None:
    """Errors too: fields that cannot be compared, and kinds that a field does not have."""
    metadata: Metadata = [
        {"a": 1, "b": "x" * 257, "c": [1, "x", True], "d": None, "e": {"f": 1}},
        {"a": 1 << 64, "b": "x", "c": [], "d": [None], "e": 1.5, "n" * 257: 1},
        {"a": 2.0, "b": 3, "c": False, "f": "\U0001f600", "g": 0.1, "h": 2.0**62},
        {"a": "1", "f": "\uffff", "g": 1e23},
        {},
    ]
    documents = [{"id": str(i), "text": "x"} | record for i, record in enumerate(metadata)]
    embeddings = np.random.default_rng(0).standard_normal((len(documents), 8))
    index = Index.build(tmp_path / "x.jv5", documents, embeddings=embeddings)
    with PostgresIndex.build(postgres_url, documents, embeddings=embeddings) as other:
        assert other.fields == index.fields
        compared = ["{} = 1", '{} = "x"', "{} = true", "{} != 1", '{} < "y"', "{} >= 1", "{} in (1, 2)", "{} in ()"]
        compared += ["{} exists", "{} not exists", "not ({} = 1 or {} = 2)", '{} > "\\uffff"', "{} = 1e23", "{} = 0.1"]
        compared += ['{} >= "x\\u0000"', '{} < "x\\u0000a"', '{} in ("x", "x\\u0000")', '{} = "\\u0000"']
        # As a float it has digits that are not those of its text.
        compared += [f"{{}} {order} {1 << 62}" for order in ("=", "<", "<=")]
        wrong = 0
        for field in ["a", "b", "c", "d", "e", "f", "g", "h", "n", "`z\\u0000`"]:
            for text in compared:
                where = text.replace("{}", field)
                expected, found = same_answer(index, other, where)
                assert found == expected, where
                wrong += isinstance(found, str)
        assert wrong > 10


def test_a_long_list_of_values_is_one_parameter(postgres_url: str) -> None:
    documents = [{"id": str(i), "text": "x", "n": i, "s": f"s{i}"} for i in range(50)]
    with PostgresIndex.build(postgres_url, documents, embeddings=np.ones((50, 8))) as index:
        assert index.count({"n": list(range(0, 200_000, 5))}) == 10
        assert index.count("s in (" + ", ".join(f"'s{i}'" for i in range(40, 50_000)) + ")") == 10


def test_the_index_of_the_fields_can_be_used(postgres: PostgresServer, postgres_url: str) -> None:
    documents = [{"id": str(i), "text": "x", "n": i, "t": ["a", f"t{i}"]} for i in range(200)]
    PostgresIndex.build(postgres_url, documents, embeddings=np.ones((200, 8)), rescore="none").close()
    with postgres.connect() as connection:
        number = connection.execute("SELECT max(number) FROM jv5kit_indexes").fetchone()
        assert number is not None
        # So few rows are read faster than an index.
        connection.execute("SET enable_seqscan = off")
        for where in ("n = 7", "n in (7, 8)", 't = "t5" and n exists'):
            text, parameters = as_sql(parse_filter(where))
            statement = f"EXPLAIN SELECT row FROM {Tables(number[0]).codes} WHERE {text}"
            plan = "\n".join(line for (line,) in connection.execute(statement, parameters))
            assert "Bitmap Index Scan" in plan, plan
