"""Where documents are kept and found: a folder of our own, or an engine that is named by a URL.

An index is named by a path or by a URL everywhere; :func:`store_class` says what is behind a name, and all of it has
the methods of :class:`Store`, with the same arguments, answers and errors.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, Unpack

from jv5kit.errors import InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jv5kit.building import Added, AddOptions, BuildOptions
    from jv5kit.encoder import Encoder
    from jv5kit.querying import SearchOptions, Where
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document, Precision, Rescore, SearchMode

_CLASSES: dict[str, tuple[str, str]] = {
    "postgresql": ("jv5kit.stores.postgres", "PostgresIndex"),
    "postgres": ("jv5kit.stores.postgres", "PostgresIndex"),
    "jv5+ray": ("jv5kit.stores.ray", "RayIndex"),
}
"""By the scheme of a URL, the module and the name of the class."""

SHARDS = ".jv5s"
"""The suffix of a folder for an index in shards."""

SHARDS_FILE = "shards.json"
"""What such a folder has, whatever its name."""

_URL = re.compile(r"([a-z][a-z0-9+.\-]*)://", re.IGNORECASE)


class Store(Protocol):
    """Documents and their embeddings, to change and to search: what :class:`jv5kit.Index` has, whatever keeps them.

    :class:`jv5kit.Index` explains each method. What a store cannot do it refuses, by name, with an
    :class:`~jv5kit.errors.InputError`.
    """

    @classmethod
    def open(cls, path: Any, /) -> Self:
        """Open what is there under a name."""

    @classmethod
    def check_new(
        cls,
        path: Any,
        /,
        *,
        precision: Precision = "ubinary",
        rescore: Rescore | None = None,
        hnsw: bool = False,
        passages: int | None = None,
        force: bool = False,
    ) -> None:
        """Refuse what :meth:`build` would, as far as that can be told before anything is loaded."""

    @classmethod
    def build(
        cls,
        path: Any,
        documents: Iterable[Document | Mapping[str, Any]] | None = None,
        encoder: Encoder | None = None,
        /,
        **options: Unpack[BuildOptions],
    ) -> Self:
        """Make one, of documents, of embeddings, or of both; the options are those of :meth:`jv5kit.Index.build`."""

    @property
    def name(self) -> str:
        """The path or the URL, without a password, as messages have it."""

    @property
    def settings(self) -> Settings:
        """What built it."""

    @property
    def modes(self) -> dict[SearchMode, int]:
        """The modes that it can be searched in, its own first, each with the bytes of a row that it works on."""

    @property
    def encoder(self) -> Encoder:
        """The model that built it."""

    @property
    def fields(self) -> dict[str, list[str]]:
        """The fields of the metadata that can be filtered by, each with the types of its values."""

    @property
    def row_count(self) -> int:
        """Number of rows: one for each document, or for each of its passages."""

    @property
    def bytes_on_disk(self) -> int:
        """Bytes that it takes where it is, texts and all."""

    def use_encoder(self, model: Encoder | str | os.PathLike[str], /) -> None:
        """Say where its model is now."""

    def add(
        self, documents: Iterable[Document | Mapping[str, Any]] | None = None, /, **options: Unpack[AddOptions]
    ) -> Added:
        """Add documents; identical ones are passed over, others of an id that is there are refused."""

    def upsert(
        self, documents: Iterable[Document | Mapping[str, Any]] | None = None, /, **options: Unpack[AddOptions]
    ) -> Added:
        """Add documents, each in the place of the one that has its id."""

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Where | None = None,
        on_missing: Callable[[str], None] | None = None,
    ) -> int:
        """Delete documents by id or by a filter, all together; returns how many."""

    def get(self, ids: Sequence[str], /) -> list[Document | None]:
        """The documents of some ids, None for each that is not there."""

    def search(self, queries: Any, top_k: int = 10, /, **options: Unpack[SearchOptions]) -> Any:
        """The documents nearest to a query, or a list of them for each of several."""

    def count(self, filter: Where | None = None) -> int:
        """How many documents there are, or how many a filter keeps."""

    def refresh(self) -> bool:
        """Take up the newest state; returns whether there was a new one."""

    def close(self) -> None:
        """Let go of files and connections."""

    def __len__(self) -> int:
        """Number of documents."""

    def __enter__(self) -> Self:
        """It is open from its making on."""

    def __exit__(self, *_: object) -> None:
        """Close it."""


def is_url(name: str | os.PathLike[str]) -> bool:
    """Whether a name is a URL, and no path."""
    return isinstance(name, str) and _URL.match(name) is not None


def shown(name: str | os.PathLike[str]) -> str:
    """A path or a URL as messages have it: without a password."""
    if not is_url(name):
        return str(name)
    # Rather too much is hidden than too little: up to the last @.
    hidden = re.sub(r"(://[^:]*):.*@", r"\1@", str(name), flags=re.DOTALL)
    return re.sub(r"((?:^|[?&])[a-z]*password=)[^&]*", r"\1…", hidden, flags=re.IGNORECASE)


def store_class(name: str | os.PathLike[str]) -> type[Store]:
    """What is behind a name: by the scheme of a URL; for a path :class:`jv5kit.Index`, unless it is one in shards.

    Raises:
        InputError: the scheme is not known.
        MissingExtraError: what speaks to the engine is not installed.
    """
    match = _URL.match(name) if isinstance(name, str) else None
    if match is None:
        path = Path(name)
        if path.suffix == SHARDS or (path / SHARDS_FILE).exists():
            from jv5kit.stores.sharded import ShardedIndex

            return ShardedIndex
        from jv5kit.index import Index

        return Index
    scheme = match[1].lower()
    if scheme not in _CLASSES:
        known = ", ".join(f"{one}://" for one in _CLASSES)
        raise InputError(f"{scheme}:// is no index that jv5kit knows; give a folder, or a URL with {known}")
    module, cls = _CLASSES[scheme]
    found: type[Store] = getattr(import_module(module), cls)
    return found
