"""The server is killed, or one of its standbys takes over, while the same client writes and searches: nothing is lost.

``JV5KIT_TEST_KILLS`` changes the number of kills.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import psycopg
import pytest
from postgres_server import OWNER, PASSWORD, PostgresServer

from jv5kit import Index
from jv5kit.building import Added
from jv5kit.stores.postgres import PostgresIndex
from jv5kit.stores.postgres.address import Address
from jv5kit.stores.postgres.connection import Server
from jv5kit.stores.postgres.failures import LostError
from jv5kit.stores.postgres.writer import PostgresWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from postgres_server import Place

KILLS = int(os.environ.get("JV5KIT_TEST_KILLS", "20"))

DIM, BATCH = 32, 20


def rows(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)


def records(count: int) -> list[dict[str, Any]]:
    return [{"id": f"d{i}", "text": f"text {i}", "n": i} for i in range(count)]


class Writing:
    """A thread that adds documents, batch after batch, until it is told to end; it counts what was acknowledged."""

    def __init__(self, index: PostgresIndex) -> None:
        self.acknowledged = 0
        self.outcome: Added | Exception | None = None
        self.given = 0
        self._ending = threading.Event()
        self._index = index
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def wait_for(self, more: int) -> None:
        """Wait until so many more documents are acknowledged."""
        until, wanted = time.monotonic() + 60, self.acknowledged + more
        while self.acknowledged < wanted and self._thread.is_alive():
            assert time.monotonic() < until
            time.sleep(0.01)

    def _run(self) -> None:
        table = rows(BATCH)
        total = Added()
        try:
            while not self._ending.is_set():
                documents = [
                    {"id": f"d{i}", "text": f"text {i}", "n": i} for i in range(self.given, self.given + 5 * BATCH)
                ]
                self.given += len(documents)
                added = self._index.add(documents, embeddings=np.tile(table, (5, 1)), on_commit=self._committed)
                total = Added(*(getattr(total, name) + getattr(added, name) for name in Added.__slots__))
            self.outcome = total
        except Exception as error:
            self.outcome = error

    def _committed(self, documents: int) -> None:
        self.acknowledged = documents


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * DIM * BATCH)
    monkeypatch.setattr("jv5kit.stores.postgres.connection.LONGEST_PAUSE", 0.1)


@pytest.fixture
def servers(place: Place) -> Iterator[Callable[[PostgresServer], PostgresServer]]:
    """Starts servers of the test's own, and stops them at its end."""
    started: list[PostgresServer] = []

    def start(server: PostgresServer) -> PostgresServer:
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def check(index: PostgresIndex, writing: Writing) -> None:
    """All that was acknowledged is there, in whole batches, and the run says what it did to the last document."""
    assert isinstance(writing.outcome, Added), writing.outcome
    assert writing.outcome == Added(writing.given)
    assert len(index) == writing.given == index.count("n >= 0")
    found = index.get([f"d{i}" for i in range(writing.given)])
    assert [document.text for document in found if document] == [f"text {i}" for i in range(writing.given)]


def test_kill_9_loses_no_acknowledged_batch(mortal: PostgresServer) -> None:
    generator = random.Random(0)
    with PostgresIndex.build(mortal.url("killed"), embeddings=np.empty((0, DIM), np.float32)) as index:
        with Writing(index) as writing:
            for _ in range(KILLS):
                writing.wait_for(BATCH)
                time.sleep(generator.uniform(0, 0.1))
                mortal.kill()
                acknowledged = writing.acknowledged
                mortal.start()
                with mortal.connect() as connection:
                    counted = connection.execute(
                        "SELECT documents FROM jv5kit_indexes WHERE name = 'killed'"
                    ).fetchone()
                assert counted is not None
                assert counted[0] >= acknowledged
                assert counted[0] % BATCH == 0
            writing.wait_for(BATCH)
        check(index, writing)


def test_a_standby_takes_over_and_the_same_client_goes_on(
    place: Place, servers: Callable[[PostgresServer], PostgresServer], tmp_path: Path
) -> None:
    primary = servers(PostgresServer.made(place, "primary"))
    with primary.connect() as connection:
        connection.execute("ALTER ROLE owner REPLICATION")
    (primary.data / "pg_hba.conf").open("a").write("\nhost replication all 127.0.0.1/32 scram-sha-256\n")
    standbys = [servers(primary.standby(name)) for name in ("one", "two")]
    with primary.connect() as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 2 (one, two)'")
        connection.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + 30
        while connection.execute("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() != (
            2,
        ):
            assert time.monotonic() < until
            time.sleep(0.1)
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in (primary, *standbys))
    secret = quote(PASSWORD, safe="")
    url = f"postgresql://{OWNER}:{secret}@{hosts}/postgres?target_session_attrs=read-write&index=ha"
    queries = rows(5)
    with PostgresIndex.build(url, embeddings=np.empty((0, DIM), np.float32)) as index:
        with Writing(index) as writing:
            writing.wait_for(10 * BATCH)
            primary.kill()
            acknowledged = writing.acknowledged
            standbys[0].promote()
            with standbys[0].connect() as connection:
                counted = connection.execute("SELECT documents FROM jv5kit_indexes").fetchone()
            assert counted is not None
            assert counted[0] >= acknowledged
            # Nobody told the index; it is the same object that asks on.
            assert len(index.search(queries[0])) == 10
            writing.wait_for(10 * BATCH)
        check(index, writing)
        table = np.tile(rows(BATCH), (writing.given // BATCH, 1))
        folder = Index.build(tmp_path / "x.jv5", records(writing.given), embeddings=table)
        assert index.search(queries, 30) == folder.search(queries, 30)


class Losing:
    """Loses the connection of the next question that is asked, before it is answered or after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.when = ""
        ask = Server.ask

        def losing(server: Server, question: Callable[[Any], Any], **options: Any) -> Any:
            def asked(connection: psycopg.Connection) -> Any:
                when, self.when = self.when, ""
                if when == "after":
                    question(connection)
                if when:
                    connection.close()
                    raise psycopg.OperationalError("the connection is lost")
                return question(connection)

            return ask(server, asked, **options)

        monkeypatch.setattr(Server, "ask", losing)


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_under_way_is_done_once(postgres_url: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    losing = Losing(monkeypatch)
    change = PostgresWriter._change

    def losing_change(writer: PostgresWriter, work: Any, added: int) -> int:
        losing.when = when
        return change(writer, work, added)

    monkeypatch.setattr(PostgresWriter, "_change", losing_change)
    with PostgresIndex.build(postgres_url, records(50), embeddings=rows(50)) as index:
        assert len(index) == 50
        assert index.add(records(90), embeddings=np.concatenate([rows(50), rows(40)])) == Added(40, 50)
        assert index.upsert([{"id": "d3", "text": "new"}], embeddings=rows(1)) == Added(1, 0, 1)
        assert index.delete(["d1", "d2", "no"]) == 2
        assert index.delete(filter="n >= 80") == 10
        assert len(index) == 78
        with Server(Address.of(postgres_url)) as server:
            # Nothing is left of the writers' notes.
            assert server.ask(lambda connection: connection.execute("SELECT * FROM jv5kit_writers").fetchall()) == []


def test_a_search_does_not_mind_that_its_connections_are_gone(postgres: PostgresServer, postgres_url: str) -> None:
    with PostgresIndex.build(postgres_url, records(50), embeddings=rows(50)) as index:
        expected = index.search(rows(2))
        with postgres.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jv5kit'"
            )
        assert index.search(rows(2)) == expected
        assert index.add(records(60)[50:], embeddings=rows(10)) == Added(10)


def test_a_primary_that_only_reads_for_a_while(mortal: PostgresServer) -> None:
    """As when the roles are changed, and the old primary is a standby before another one has taken over."""
    twice = f"127.0.0.1:{mortal.port}"
    url = mortal.url("moved").replace(twice, f"{twice},{twice}") + "&target_session_attrs=read-write"

    def only_reads(on: bool) -> None:
        with mortal.connect(options="-c default_transaction_read_only=off") as connection:
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
            connection.execute("SELECT pg_reload_conf()")

    with PostgresIndex.build(url, embeddings=np.empty((0, DIM), np.float32)) as index:
        with Writing(index) as writing:
            writing.wait_for(5 * BATCH)
            only_reads(True)
            time.sleep(0.5)
            only_reads(False)
            writing.wait_for(5 * BATCH)
        check(index, writing)


def test_a_server_that_stays_away_is_an_error(mortal: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.stores.postgres.connection.PATIENCE", 0.3)
    with PostgresIndex.build(mortal.url("away"), embeddings=np.empty((0, DIM), np.float32)) as index:
        mortal.kill()
        with pytest.raises(LostError, match=rf"cannot reach postgresql://owner@127.0.0.1:{mortal.port}/postgres\?"):
            index.search(rows(1))
        mortal.start()
        assert index.search(rows(1)[0]) == []
        with Writing(index) as writing:
            writing.wait_for(BATCH)
            mortal.kill()
        assert isinstance(writing.outcome, LostError)
        mortal.start()
        assert len(index) >= writing.acknowledged


def test_a_batch_of_which_nothing_is_known_is_said_to_be_so(
    mortal: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jv5kit.stores.postgres.connection.PATIENCE", 0.3)
    note = PostgresWriter._note

    def noted(writer: PostgresWriter, connection: Any, number: int) -> None:
        note(writer, connection, number)
        if kill:
            mortal.kill()

    kill = False
    monkeypatch.setattr(PostgresWriter, "_note", noted)
    with PostgresIndex.build(mortal.url("unknown"), records(5), embeddings=rows(5)) as index:
        kill = True
        with pytest.raises(LostError, match="whether the last batch is there is not known: documents that are there"):
            index.add(records(10), embeddings=rows(10))
        kill = False
        mortal.start()
        assert index.add(records(10), embeddings=rows(10)) == Added(5, 5)
