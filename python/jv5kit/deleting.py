"""What is to be deleted: documents by their ids, or by a filter of their metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jv5kit.errors import InputError
from jv5kit.sources import id_list
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jv5kit.building import IndexWriter
    from jv5kit.filters import Filter
    from jv5kit.querying import Where

FOUND_TOGETHER = 10_000
"""Documents that are looked up at a time, which bounds the memory for them."""


def to_delete(ids: Sequence[str] | None, filter: Where | None) -> tuple[list[str], Filter | None]:
    """What is to be deleted, as :meth:`jv5kit.Index.delete` takes it: distinct ids, or a filter.

    Raises:
        InputError: neither is given, or both, or one is none.
    """
    if (ids is None) == (filter is None):
        raise InputError("say what to delete: either ids or a filter")
    return list(dict.fromkeys(id_list(ids or ()))), None if filter is None else parse_filter(filter)


def numbers_of(writer: IndexWriter, ids: Sequence[str], on_missing: Callable[[str], None] | None) -> list[int]:
    """The rows of documents by distinct ids; ``on_missing`` is called with each id that the index has not."""
    numbers: list[int] = []
    for start in range(0, len(ids), FOUND_TOGETHER):
        part = ids[start : start + FOUND_TOGETHER]
        found = writer.find(part)
        for identifier in part:
            if identifier in found:
                numbers += found[identifier][0]
            elif on_missing is not None:
                on_missing(identifier)
    return numbers
