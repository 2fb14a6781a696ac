"""An index in a PostgreSQL database: what :class:`jv5kit.Index` is in a folder, with as many writers as there are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from jv5kit.errors import IndexDamagedError, InputError
from jv5kit.querying import How, queries_of
from jv5kit.scan import Stage
from jv5kit.search_modes import modes_of
from jv5kit.storage.catalog import ReplacedError
from jv5kit.stores.engine import EngineStore
from jv5kit.stores.postgres.address import Address
from jv5kit.stores.postgres.answering import answer
from jv5kit.stores.postgres.connection import Server
from jv5kit.stores.postgres.filtering import Fields, as_sql
from jv5kit.stores.postgres.reading import documents_of
from jv5kit.stores.postgres.tables import Stored, Tables, one
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jv5kit.building import Added, AddOptions, BuildOptions
    from jv5kit.encoder import Encoder
    from jv5kit.filters import Filter
    from jv5kit.querying import SearchOptions, Where
    from jv5kit.storage.state import Settings
    from jv5kit.stores.postgres.connection import Connection
    from jv5kit.types import Document, Precision, Rescore, SearchMode

T = TypeVar("T")


class PostgresIndex(EngineStore):
    """An index that a PostgreSQL server keeps, named by a URL (see :mod:`jv5kit.stores.postgres.address`).

    What its methods do :class:`jv5kit.Index` explains. It always shows the newest state, and may be used from several
    threads. Where the connection is lost, what was asked is asked again for a while, so that a standby can take over.
    """

    def __init__(self, address: Address, server: Server, stored: Stored) -> None:
        super().__init__(address.name)
        self._address = address
        self._server = server
        self._stored = stored

    def __repr__(self) -> str:
        """Without the password."""
        return f"PostgresIndex({self.name!r})"

    @classmethod
    def open(cls, url: str, /) -> Self:
        """Open an index.

        Raises:
            InputError: the URL, the user or the password is wrong, or the server's pgvector too old.
            IndexNotFoundError: there is no such index.
            Jv5kitError: the server cannot be reached.
        """
        address = Address.of(url)
        server = Server(address)
        try:
            server.check()
            return cls(address, server, server.ask(partial(Stored.read, address=address)))
        except BaseException:
            server.close()
            raise

    @classmethod
    def check_new(
        cls,
        url: str,
        /,
        *,
        precision: Precision = "ubinary",
        rescore: Rescore | None = None,
        hnsw: bool = False,  # noqa: ARG003  There is nothing to refuse here.
        passages: int | None = None,
        force: bool = False,
    ) -> None:
        """Refuse what :meth:`build` would, as far as that can be told before anything is loaded.

        Where the database does not use pgvector yet, this lets it.

        Raises:
            InputError: a setting is not known, or none of this store, or the server is not such that it could be used.
            IndexExistsError: there is an index of this name.
            Jv5kitError: the server cannot be reached.
        """
        from jv5kit.index_settings import check_settings
        from jv5kit.stores.postgres.writer import check_free

        check_settings(precision, rescore, passages=passages)
        if precision != "ubinary":
            raise InputError(f"precision={precision!r}: an index in PostgreSQL has codes, which is 'ubinary'")
        if passages is not None:
            raise InputError(
                f"passages={passages}: an index in PostgreSQL does not split documents; give each passage as a "
                "document of its own, or keep the index in a folder"
            )
        address = Address.of(url)
        with Server(address) as server:
            server.install_vector()
            server.ask(partial(check_free, address=address, force=force))

    @classmethod
    def build(
        cls,
        url: str,
        documents: Iterable[Document | Mapping[str, Any]] | None = None,
        encoder: Encoder | None = None,
        /,
        **options: Unpack[BuildOptions],
    ) -> Self:
        """Build an index; the options are those of :meth:`jv5kit.Index.build`.

        Raises:
            InputError: an argument, a document or an embedding is wrong; what was committed before it stays.
            IndexExistsError: there is an index of this name.
            Jv5kitError: the server cannot be reached, or failed.
        """
        from jv5kit import building
        from jv5kit.index_settings import settings_of
        from jv5kit.sources import source_of
        from jv5kit.stores.postgres.writer import PostgresWriter

        chosen: dict[str, Any] = {name: options[name] for name in ("rescore", "hnsw", "passages") if name in options}
        precision, force = options.get("precision", "ubinary"), options.get("force", False)
        cls.check_new(url, precision=precision, force=force, **chosen)
        source = source_of(documents, encoder, options.get("embeddings"), options.get("ids"))
        lexical = options.get("lexical", False)
        settings = settings_of(source, options.get("dim"), precision, lexical=lexical, **chosen)
        address = Address.of(url)
        with (
            Server(address) as server,
            building.whole(PostgresWriter.create(server, address, settings, force=force)) as writer,
        ):
            building.add_as_told(writer, source, options, rotate=options.get("rotate", False))
            writer.grow_graph()
        return cls.open(url)

    @property
    def settings(self) -> Settings:
        """What built the index."""
        return self._stored.settings

    @property
    def modes(self) -> dict[SearchMode, int]:
        """The modes that it can be searched in, its own first, each with the bytes of a row that it works on."""
        return {mode: size for mode, size in modes_of(self.settings).items() if mode != "int8"}

    @property
    def fields(self) -> dict[str, list[str]]:
        """The fields of the metadata that can be filtered by, each with the types of its values."""
        found = self._ask(lambda stored, connection: Fields.read(connection, Tables(stored.number)))
        return {name: sorted(field.kinds) for name, field in found.known.items()}

    @property
    def row_count(self) -> int:
        """Number of rows, one for each document."""
        return len(self)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the tables of the index, and of what indexes them."""
        return self._ask(lambda stored, connection: Tables(stored.number).bytes_on_disk(connection))

    def _add(
        self, documents: Iterable[Document | Mapping[str, Any]] | None, options: AddOptions, *, upsert: bool
    ) -> Added:
        from jv5kit import building
        from jv5kit.stores.postgres.writer import PostgresWriter

        self.refresh()
        settings = self.settings
        source = building.source_for(self, settings, documents, options)
        writer = PostgresWriter.open(self._server, self._address)
        try:
            added = building.extend(writer, source, settings, options, upsert=upsert)
            writer.grow_graph()
        finally:
            writer.abandon()
        return added

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Where | None = None,
        on_missing: Callable[[str], None] | None = None,
    ) -> int:
        """Delete documents, by id or by a filter of their metadata, all together; returns how many.

        Raises:
            InputError: neither ids nor a filter are given, or both, or the filter does not fit the index.
            Jv5kitError: the server cannot be reached, or failed.
        """
        from jv5kit.deleting import to_delete
        from jv5kit.stores.postgres.writer import PostgresWriter

        wanted, condition = to_delete(ids, filter)
        if condition is not None:
            self._ask(partial(_check, condition))
        writer = PostgresWriter.open(self._server, self._address)
        try:
            count, found = writer.delete(wanted, condition)
        finally:
            writer.abandon()
        for identifier in wanted:
            if identifier not in found and on_missing is not None:
                on_missing(identifier)
        return count

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        """The documents of some ids, None for each that the index does not have.

        Raises:
            InputError: ``ids`` is a single string.
        """
        from jv5kit.sources import id_list

        wanted = id_list(ids)
        found = self._ask(lambda stored, connection: documents_of(connection, Tables(stored.number), "id", wanted))
        by_id = {document.id: document for document in found.values()}
        return [by_id.get(identifier) for identifier in wanted]

    def search(self, queries: Any, top_k: int = 10, /, **options: Unpack[SearchOptions]) -> Any:
        """Find the documents nearest to each query; the options are those of :meth:`jv5kit.Index.search`.

        Raises:
            InputError: an argument is wrong.
            Jv5kitError: the server cannot be reached, or failed.
        """
        how = How.of(top_k, **options)
        for stored in self._states():
            settings = stored.settings
            with Stage(how.stages, "encode"):
                encode = partial(self._model.encode_queries, settings)
                asked = queries_of(queries, how.words, settings, stored.rotation, encode)
            try:
                hits = self._server.ask(
                    partial(answer, stored=stored, vector=self._server.vector, queries=asked, how=how)
                )
            except ReplacedError:
                continue
            return hits[0] if asked.single else hits
        raise AssertionError

    def count(self, filter: Where | None = None) -> int:
        """How many documents there are, or how many a filter keeps.

        Raises:
            InputError: the filter does not fit the index.
        """
        if filter is None:
            return len(self)
        condition = parse_filter(filter)

        def counted(stored: Stored, connection: Connection) -> int:
            _check(condition, stored, connection)
            text, parameters = as_sql(condition)
            statement = f"SELECT count(*) FROM {Tables(stored.number).codes} WHERE {text}"
            return int(one(connection.execute(statement, parameters).fetchone())[0])

        return self._ask(counted)

    def refresh(self) -> bool:
        """Take up the newest state; its settings are others if the index was replaced. Whether there was a new one."""
        before = self._stored
        self._reload()
        return (before.number, before.commits) != (self._stored.number, self._stored.commits)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def __len__(self) -> int:
        """Number of documents."""
        self._reload()
        return self._stored.documents

    def _reload(self) -> None:
        self._stored = self._server.ask(partial(Stored.read, address=self._address, known=self._stored))

    def _states(self) -> Iterator[Stored]:
        """The state that is known, then each newer one, as long as there is need of it.

        Raises:
            IndexDamagedError: there is need, but no newer state.
        """
        while True:
            stored = self._stored
            yield stored
            self._reload()
            if (self._stored.number, self._stored.commits) == (stored.number, stored.commits):
                raise IndexDamagedError.of(self.name, "some of its tables, or of their rows, are missing")

    def _ask(self, question: Callable[[Stored, Connection], T]) -> T:
        """Ask the state that is known; where it is gone by now, ask the newest one instead."""
        for stored in self._states():
            try:
                return self._server.ask(partial(question, stored))
            except ReplacedError:
                continue
        raise AssertionError


def _check(condition: Filter, stored: Stored, connection: Connection) -> None:
    """Refuse a filter that does not fit the index."""
    condition.check([Fields.read(connection, Tables(stored.number), condition.fields)])
