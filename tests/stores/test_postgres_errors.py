"""What can go wrong with a server: each error says what, where and what to do, and none has the password."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest
from postgres_server import OWNER, PASSWORD, PostgresServer, free_port

from jv5kit.building import Added
from jv5kit.errors import (
    DocumentError,
    IndexDamagedError,
    IndexFormatError,
    IndexNotFoundError,
    InputError,
    Jv5kitError,
    MissingExtraError,
)
from jv5kit.stores import shown, store_class
from jv5kit.stores.postgres import PostgresIndex
from jv5kit.stores.postgres.address import Address
from jv5kit.stores.postgres.connection import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command import Inside
    from postgres_server import Place

ROWS = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
RECORDS = [{"id": f"d{i}", "text": f"text {i}", "n": i} for i in range(5)]


@pytest.fixture(scope="module")
def plain(postgres: PostgresServer) -> Iterator[str]:
    """A user who may do nothing but connect."""
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        yield "plain"


@pytest.fixture
def database(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without pgvector."""
    name = f"bare_{abs(hash(request.node.name))}"
    with postgres.connect() as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def error_of(url: str, **options: Any) -> str:
    """The error of building an index at a URL."""
    with pytest.raises(InputError) as caught:
        PostgresIndex.build(url, RECORDS, embeddings=ROWS, **options)
    return str(caught.value)


def test_a_wrong_password(postgres: PostgresServer) -> None:
    for password in ("wrong-password", None):
        message = error_of(postgres.url(password=password))
        assert f"postgresql://owner@127.0.0.1:{postgres.port}/postgres?index=jv5kit" in message
        assert "password (PGPASSWORD, a passfile, or the URL)" in message
        assert "wrong-password" not in message


def test_an_unknown_user_or_database(postgres: PostgresServer) -> None:
    assert "name another one" in error_of(postgres.url().replace("/postgres?", "/nowhere?"))
    assert "check the user" in error_of(postgres.url(user="nobody"))


def test_an_unreachable_server(inside: Inside) -> None:
    port = free_port()
    with pytest.raises(Jv5kitError, match=rf"cannot reach postgresql://me@127.0.0.1:{port}/db\?index=x: .*check the"):
        PostgresIndex.open(f"postgresql://me:secret-secret@127.0.0.1:{port}/db?index=x")
    # Two hosts, neither of which is there.
    url = f"postgresql://me:secret-secret@127.0.0.1:{port},127.0.0.1:{port + 1}/db"
    shown = inside("search", "--index", url, "a text", code=1).stderr
    assert f"cannot reach postgresql://me@127.0.0.1:{port},127.0.0.1:{port + 1}/db?index=jv5kit" in shown
    assert len(shown.splitlines()) == 1
    assert "secret-secret" not in shown


def test_pgvector_is_made_usable_where_it_is_not(postgres: PostgresServer, database: str) -> None:
    url = postgres.url().replace("/postgres?", f"/{database}?")
    with pytest.raises(IndexNotFoundError, match="there is no index"):
        PostgresIndex.open(url)
    with PostgresIndex.build(url, RECORDS, embeddings=ROWS) as index:
        assert len(index.search(ROWS[0])) == 5


def test_an_old_pgvector(postgres: PostgresServer, database: str) -> None:
    url = postgres.url().replace("/postgres?", f"/{database}?")
    PostgresIndex.build(url, RECORDS, embeddings=ROWS).close()
    with postgres.connect(dbname=database) as connection:
        connection.execute("UPDATE pg_extension SET extversion = '0.6.2' WHERE extname = 'vector'")
    for act in (lambda: PostgresIndex.open(url), lambda: error_of(url)):
        try:
            found = act()
        except InputError as error:
            found = str(error)
        assert "has pgvector 0.6.2, and 0.7 or newer is needed: install it on the server" in str(found)
        assert "ALTER EXTENSION vector UPDATE" in str(found)


def test_no_pgvector(postgres: PostgresServer, database: str, plain: str, place: Place) -> None:
    url = postgres.url(user=plain, password="plain").replace("/postgres?", f"/{database}?")
    assert "run CREATE EXTENSION vector in the database as a superuser" in error_of(url)
    control = next(place.folder.rglob("extension/vector.control"))
    control.rename(control.with_suffix(".away"))
    try:
        message = error_of(postgres.url().replace("/postgres?", f"/{database}?"))
    finally:
        control.with_suffix(".away").rename(control)
    assert "pgvector is not installed on the server: install 0.7 or newer" in message


def test_a_user_who_may_not_make_tables(postgres: PostgresServer, postgres_url: str, plain: str) -> None:
    PostgresIndex.build(postgres_url, RECORDS, embeddings=ROWS).close()
    message = error_of(postgres.url("other", user=plain, password="plain"))
    assert "permission denied" in message
    assert "let an owner of the database grant it, or name another user" in message


def test_a_server_that_only_reads(postgres: PostgresServer, postgres_url: str) -> None:
    PostgresIndex.build(postgres_url, RECORDS, embeddings=ROWS).close()
    reading = f"{postgres_url}&options={quote('-c default_transaction_read_only=on')}"
    with PostgresIndex.open(reading) as index:
        assert len(index.search(ROWS[0], filter="n >= 0")) == 5
        with pytest.raises(InputError, match="only reads, as a standby does: name the primary, or several hosts and"):
            index.add([{"text": "x"}], embeddings=ROWS[:1])


def test_a_statement_that_takes_too_long(postgres_url: str) -> None:
    PostgresIndex.build(postgres_url, RECORDS, embeddings=ROWS).close()
    with Server(Address.of(f"{postgres_url}&options={quote('-c statement_timeout=50')}")) as server:
        with pytest.raises(Jv5kitError, match="raise the server's statement_timeout"):
            server.ask(lambda connection: connection.execute("SELECT pg_sleep(5)"))
        assert server.ask(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)


def test_a_database_of_another_encoding(postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    message = error_of(postgres.url().replace("/postgres?", "/latin?"))
    assert "the database is in LATIN1; one in UTF8 is needed" in message


def test_an_index_of_a_newer_version(postgres: PostgresServer, postgres_url: str) -> None:
    PostgresIndex.build(postgres_url, RECORDS, embeddings=ROWS).close()
    with postgres.connect() as connection:
        connection.execute("UPDATE jv5kit_indexes SET format = 99 WHERE name = %s", (Address.of(postgres_url).index,))
    with pytest.raises(IndexFormatError, match="has format 99, and this version of jv5kit reads up to 1"):
        PostgresIndex.open(postgres_url)


def test_what_is_damaged_gives_no_wrong_answer(postgres: PostgresServer, postgres_url: str) -> None:
    index = PostgresIndex.build(postgres_url, RECORDS, embeddings=ROWS, rotate=True)
    name = Address.of(postgres_url).index
    with postgres.connect() as connection:
        found = connection.execute("SELECT number FROM jv5kit_indexes WHERE name = %s", (name,)).fetchone()
        assert found is not None
        connection.execute(f"DELETE FROM jv5kit_{found[0]}_documents WHERE row = 2")
        with pytest.raises(IndexDamagedError, match="some of its tables, or of their rows, are missing"):
            index.search(ROWS[2], 5, mode="ubinary")
        with pytest.raises(IndexDamagedError, match="some of its tables, or of their rows, are missing"):
            index.search(ROWS[2], 5)
        connection.execute(f"DROP TABLE jv5kit_{found[0]}_codes")
        with pytest.raises(IndexDamagedError, match="some of its tables"):
            index.search(ROWS)
        connection.execute("UPDATE jv5kit_indexes SET rotation = set_byte(rotation, 9, 7) WHERE name = %s", (name,))
    with pytest.raises(IndexDamagedError, match="rotation does not match its checksum"):
        PostgresIndex.open(postgres_url)
    index.close()
    # What is damaged can be replaced.
    PostgresIndex.build(postgres_url, RECORDS, embeddings=ROWS, force=True).close()


def test_an_index_that_is_replaced_while_it_is_written(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = PostgresIndex.build(postgres_url, RECORDS, embeddings=ROWS)
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * 16)

    def documents() -> Iterator[dict[str, Any]]:
        yield {"id": "a", "text": "a"}
        PostgresIndex.build(postgres_url, RECORDS, embeddings=ROWS, force=True).close()
        yield {"id": "b", "text": "b"}

    with pytest.raises(Jv5kitError, match="was removed or replaced by another index meanwhile; nothing was added"):
        index.add(documents(), embeddings=ROWS[:2])
    assert len(index) == 5
    index.close()
    with pytest.raises(Jv5kitError, match="is closed"):
        index.search(ROWS)


def test_ids_that_are_too_long_are_refused_or_skipped(postgres_url: str) -> None:
    longest, longer = "é" * 1000, "é" * 1000 + "x"
    with PostgresIndex.build(postgres_url, [{"id": longest, "text": "x"}], embeddings=ROWS[:1]) as index:
        assert [document and document.id for document in index.get([longest, longer])] == [longest, None]
        with pytest.raises(DocumentError, match=r"'id' is longer than 2,000 bytes"):
            index.add([{"id": longer, "text": "x"}], embeddings=ROWS[:1])
        skipped: list[InputError] = []
        assert index.add([{"id": longer, "text": "x"}], embeddings=ROWS[:1], skip=skipped.append) == Added()
        assert len(skipped) == 1


def test_a_full_disk(mortal: PostgresServer, tmp_path: Path, inside: Inside) -> None:
    library, sign = mortal.place.folder / "full_disk.so", mortal.place.folder / "disk-is-full"
    source = __file__.replace("test_postgres_errors.py", "full_disk.c")
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", str(library), source, "-ldl"], check=True)
    mortal.stop()
    mortal.start(LD_PRELOAD=str(library), FULL_DISK=str(sign))
    texts = tmp_path / "docs.jsonl"
    texts.write_text("".join(json.dumps({"id": str(i), "text": f"{i} " * 500}) + "\n" for i in range(3000)))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32))
    command = ("index", texts, "--embeddings", tmp_path / "x.npy", "--store", mortal.url("full"))
    PostgresIndex.build(mortal.url("full"), RECORDS, embeddings=ROWS).close()
    sign.touch()
    try:
        shown = inside(*command, "--append", code=1).stderr
        assert "No space left on device; make room on the server's disk; nothing of this batch is there" in shown
        with PostgresIndex.open(mortal.url("full")) as index:
            assert len(index) == 5
            assert len(index.search(ROWS[0])) == 5
    finally:
        sign.unlink()
    inside(*command, "--append")
    with PostgresIndex.open(mortal.url("full")) as index:
        assert len(index) == 3005
    mortal.stop()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:canary@h/db?index=", "index='' is no name of an index"),
        ("postgresql://u:canary@h/db?index=a%20b", "index='a b' is no name of an index"),
        ("postgresql://u:canary@h/db?index=" + "x" * 64, "is no name of an index"),
        ("postgresql://u:canary@h/db?index=a&index=b", "names an index more than once"),
        ("postgresql://u:canary@h/db?nonsense=1", 'invalid URI query parameter: "nonsense"'),
        ("postgresql://u:cana/ry@h/db", "in a password write @ as %40"),
        ("postgresql://u:cana@ry@h/db", "in a password write @ as %40"),
        ("postgresql://u@server:canary@server.example/db", "in a password write @ as %40"),
        ("postgresql://u/ser:canary@h/db", "in a password write @ as %40"),
        ("postgresql://u:12/canary@h/db", "in a password write @ as %40"),
        ("postgresql://u:cana?ry@h/db?nonsense=1", "is no URL that PostgreSQL takes"),
        ("postgresql://u:can%zzary@h/db", "is no URL that PostgreSQL takes"),
        ("postgresql://u@h:port/db?password=canary", "has no number as its port"),
        ("postgresql://u@h/db?password=canary&nonsense=1", "is no URL that PostgreSQL takes"),
        ("postgresql://u@h/db?password=can%zzary", "is no URL that PostgreSQL takes"),
    ],
)
def test_a_url_that_will_not_do(url: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        PostgresIndex.open(url)
    assert message in str(caught.value)
    assert not any(part in str(caught.value) for part in ("canary", "cana", "zz", "ry@"))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://u:p@h/db", "postgresql://u@h:5432/db?index=jv5kit"),
        ("postgres://u:p@h:1,i:2/db?index=a.b-c&sslmode=require", "postgresql://u@h:1,i:2/db?index=a.b-c"),
        ("postgresql://u@h,i/db", "postgresql://u@h:5432,i:5432/db?index=jv5kit"),
        ("postgresql://u@[::1]:7/db?password=p&index=x", "postgresql://u@[::1]:7/db?index=x"),
        ("postgresql:///db?host=/tmp/a&port=7&user=u&index=x", "postgresql://u@%2Ftmp%2Fa:7/db?index=x"),
        ("POSTGRESQL://u:p%40%2F@h/d%20b?index=x", "postgresql://u@h:5432/d%20b?index=x"),
    ],
)
def test_the_name_of_a_url(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(variable, raising=False)
    address = Address.of(url)
    assert address.name == name
    assert "p@" not in repr(address)
    assert "index=" not in address.conninfo
    # The name is a URL of the same index.
    assert Address.of(name).name == name


def test_passwords_are_hidden_before_anything_is_known_of_a_url() -> None:
    assert shown("postgresql://u:p@ss/wo?rd@h/db?index=x") == "postgresql://u@h/db?index=x"
    assert shown("other://h/db?password=secret&x=1") == "other://h/db?password=…&x=1"
    assert shown("postgresql://u@s:secret@s.example/db") == "postgresql://u@s@s.example/db"
    assert shown("postgresql://u/s:secret@h/db") == "postgresql://u/s@h/db"
    assert shown("a/folder:x@y") == "a/folder:x@y"


def test_no_output_has_the_password(
    postgres: PostgresServer, folder: Path, inside: Inside, caplog: pytest.LogCaptureFixture
) -> None:
    """Of commands that succeed and fail, of errors with all that led to them, of logs and reprs."""
    caplog.set_level(logging.DEBUG)
    url, gone = postgres.url("secret"), f"postgresql://{OWNER}:{quote(PASSWORD, safe='')}@127.0.0.1:{free_port()}/db"
    said = io.StringIO()
    x = folder / "x.npy"
    commands: list[tuple[tuple[Any, ...], int]] = [
        (("index", folder / "docs.jsonl", "--embeddings", x, "--store", url, "-v"), 0),
        (("index", folder / "docs.jsonl", "--embeddings", x, "--store", url), 2),
        (("index", folder / "docs.jsonl", "--embeddings", x, "--store", url, "--append", "--json"), 0),
        (("index", folder / "docs.jsonl", "--embeddings", x, "--store", url, "--append", "--dim", "8"), 2),
        (("index", folder / "docs.jsonl", "--embeddings", x, "--store", url, "--append", "--rotate"), 2),
        (("index", folder / "docs.jsonl", "--embeddings", x, "--store", url, "--passages", "64"), 2),
        (("index", folder / "docs.jsonl", "--embeddings", x, "-o", url), 2),
        (("index", folder / "docs.jsonl", "--embeddings", x, "-o", "x", "--store", url), 2),
        (("index", folder / "docs.jsonl", "--store", url, "--append"), 2),
        (("search", "--index", url, "--embeddings", x, "--json", "-v"), 0),
        (("search", "--index", url, "a text"), 2),
        (("search", "--index", url, "--embeddings", x, "--where", "nothing = 1"), 0),
        (("get", "--index", url, "nothing"), 1),
        (("delete", "--index", url, "nothing", "--json"), 0),
        (("info", url), 0),
        (("info", url, "--verify"), 2),
        (("compact", url), 2),
        (("export", url, "-o", folder / "out"), 2),
        (("serve", "--index", url, "--port", "0"), 2),
        (("search", "--index", gone, "a text"), 1),
        (("search", "--index", url.replace("/postgres?", "/nowhere?"), "a text"), 2),
        (("search", "--index", url.replace("postgresql", "unknown"), "a text"), 2),
        (("search", "--index", f"{url}&nonsense=1", "a text"), 2),
    ]
    for arguments, code in commands:
        outcome = inside(*arguments, code=code)
        said.write(outcome.stdout + outcome.stderr)
    with PostgresIndex.open(url) as index:
        said.write(f"{index!r} {index.name} {index._server!r} {index._address!r}")
    for wrong in (gone, f"{url}&nonsense=1", url.replace("/postgres?", "/nowhere?")):
        try:
            PostgresIndex.open(wrong)
        except Jv5kitError as error:
            lines = traceback.TracebackException.from_exception(error).format()
            # The line of the test that names the URL is not what is looked at.
            said.write("".join(lines) + repr(error) + repr(error.__context__) + repr(error.__cause__))
        else:
            pytest.fail("it was opened")
    said.write(caplog.text)
    assert f"postgresql://owner@127.0.0.1:{postgres.port}/postgres?index=secret" in said.getvalue()
    for secret in (PASSWORD, quote(PASSWORD, safe=""), PASSWORD.rpartition("-")[2]):
        assert secret not in said.getvalue()


def test_what_is_missing_is_said() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from jv5kit.stores import store_class\n"
        "try:\n    store_class('postgresql://h/db')\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.startswith(f"{MissingExtraError.__name__} postgresql:// needs psycopg")
    assert printed.endswith("pip install 'jv5kit[postgres]'\n")


def test_an_engine_that_is_not_known() -> None:
    with pytest.raises(InputError, match=r"redis:// is no index that jv5kit knows; give a folder, or a URL with postg"):
        store_class("redis://h/0")


def test_places_that_contradict(folder: Path, inside: Inside) -> None:
    command = ("index", folder / "docs.jsonl", "--embeddings", folder / "x.npy")
    assert "choose one" in inside(*command, "-o", "x.jv5", "--store", "postgresql://h/db", code=2).stderr
    for place in ("x.jv5", "host=h password=canary"):
        said = inside(*command, "--store", place, code=2).stderr
        assert "is no URL (postgresql://…); a folder is named with -o" in said
        assert "canary" not in said
    assert "a URL is named with --store" in inside(*command, "-o", "postgresql://h/db", code=2).stderr
