"""An index in shards that actors of a Ray cluster answer for: ``jv5+ray://ADDRESS/NAME``.

ADDRESS is that of the cluster (``HOST:PORT``), ``auto`` for that of ``RAY_ADDRESS`` or of this machine, or ``local``
for one that this process starts and that ends with it; there the folder ``NAME.jv5s`` is published when it is opened.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from jv5kit.errors import InputError
from jv5kit.sharding.ray_cluster import attach
from jv5kit.sharding.ray_shards import RayShards, publish, published
from jv5kit.stores import SHARDS as SUFFIX
from jv5kit.stores.sharded import SHARDS, ShardedIndex, ShardedStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jv5kit.building import BuildOptions
    from jv5kit.encoder import Encoder
    from jv5kit.types import Document

_URL = re.compile(r"jv5\+ray://([^/]+)/(.+)", re.IGNORECASE)


class RayIndex(ShardedStore):
    """The index that is published by a name on a Ray cluster.

    What changes it has to reach its folder, and publishes there; the actors take that up.
    """

    @classmethod
    def open(cls, url: str, /) -> Self:
        """Open what is published.

        Raises:
            InputError: the URL is none.
            MissingExtraError: Ray is not installed.
            IndexNotFoundError: nothing is published by that name.
            Jv5kitError: there is no cluster at the address.
        """
        address, name = parse(url)
        ray = attach(address)
        if address == "local" and name not in published(ray):
            publish(ray, cls.folder_of(url), name)
        shards = RayShards(ray, address, name)
        return cls(url, shards.folder, shards)

    @classmethod
    def build(
        cls,
        url: str,
        documents: Iterable[Document | Mapping[str, Any]] | None = None,
        encoder: Encoder | None = None,
        /,
        *,
        shards: int = SHARDS,
        **options: Unpack[BuildOptions],
    ) -> Self:
        """Build an index in shards in the folder ``NAME.jv5s``, and publish it."""
        address, name = parse(url)
        ray = attach(address)
        ShardedIndex.build(cls.folder_of(url), documents, encoder, shards=shards, **options).close()
        publish(ray, cls.folder_of(url), name)
        return cls.open(url)

    @classmethod
    def folder_of(cls, url: str) -> Path:
        """The folder ``NAME.jv5s``, from here."""
        return Path(f"{parse(url)[1]}{SUFFIX}").absolute()


def parse(url: str) -> tuple[str, str]:
    """The address and the name of a URL.

    Raises:
        InputError: it is none.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise InputError(f"{url} is no jv5+ray://ADDRESS/NAME; ADDRESS is HOST:PORT, auto or local")
    return match[1], match[2]
