"""search(): text in, hits out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, overload

from jv5kit.errors import IndexNotFoundError
from jv5kit.stores import is_url, store_class

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from jv5kit.querying import SearchOptions, Where
    from jv5kit.stores import Store
    from jv5kit.types import Hit


class _Opened:
    """The index of a name, opened by the first who asks for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.index: Store | None = None


_open: dict[Path | str, _Opened] = {}


@overload
def search(  # type: ignore[overload-overlap]  # A str is a Sequence[str] as well; the first that fits counts.
    query: str,
    index: str | os.PathLike[str] | None = ...,
    *,
    top_k: int = ...,
    filter: Where | None = ...,
    oversample: int = ...,
    hybrid: bool = ...,
) -> list[Hit]: ...


@overload
def search(
    query: Sequence[str],
    index: str | os.PathLike[str] | None = ...,
    *,
    top_k: int = ...,
    filter: Where | None = ...,
    oversample: int = ...,
    hybrid: bool = ...,
) -> list[list[Hit]]: ...


def search(
    query: str | Sequence[str],
    index: str | os.PathLike[str] | None = None,
    *,
    top_k: int = 10,
    filter: Where | None = None,
    oversample: int = 4,
    hybrid: bool = False,
) -> list[Hit] | list[list[Hit]]:
    """Find the documents nearest to a text.

    The model and the index are loaded once, however often this is called, and from however many threads; a new state of
    the index is taken up by itself.

    Args:
        query: a text, or several.
        index: folder of the index, or the URL of one that an engine keeps (see :mod:`jv5kit.stores`); by default the
            only one in the current folder.
        top_k: hits for each query.
        filter: conditions on the metadata, as a string (``'year >= 2020 and lang in ("en", "de")'``, see
            :mod:`jv5kit.where`) or as a dict of fields and the value, or the list of values, that each must have.
        oversample: candidates for each hit wanted, where hits are rescored.
        hybrid: fuse the ranking with that of the words of the query.

    Returns:
        Hits, best first; for several queries a list for each.

    Raises:
        IndexNotFoundError: there is no index, or no single one.
        InputError: an argument is wrong.
    """
    opened = open_index(index)
    options: SearchOptions = {"filter": filter, "oversample": oversample, "hybrid": hybrid}
    found: list[Hit] | list[list[Hit]] = opened.search(
        query if isinstance(query, str) else list(query), top_k, **options
    )
    return found


def open_index(index: str | os.PathLike[str] | None) -> Store:
    """The index at a path or a URL, opened once and kept, in its newest state."""
    index = only_index() if index is None else index
    name = index if isinstance(index, str) and is_url(index) else Path(index).resolve()
    # A lock for each name: one that opens slowly keeps nobody from the others.
    opened = _open.setdefault(name, _Opened())
    with opened.lock:
        if opened.index is None:
            opened.index = store_class(name).open(name)
        else:
            opened.index.refresh()
        return opened.index


def only_index(folder: Path | None = None) -> Path:
    """The only index in a folder, by default the current one.

    Raises:
        IndexNotFoundError: there is none, or there are several.
    """
    folder = folder or Path()
    found = sorted(path.parent for path in folder.glob("*.jv5/index.sqlite"))
    if not found:
        raise IndexNotFoundError("there is no index (*.jv5) in this folder; make one with 'jv5kit index', or name one")
    if len(found) > 1:
        raise IndexNotFoundError(f"there are several indexes in this folder ({', '.join(map(str, found))}); name one")
    return found[0]
