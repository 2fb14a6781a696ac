"""An index of format 1 brought to the present format: its segments get ids and columns, out of its documents."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import IndexDamagedError
from jv5kit.storage.catalog import SCHEMA, Change
from jv5kit.storage.columns import Columns
from jv5kit.storage.deletions import Deletions
from jv5kit.storage.folder import fsync_path
from jv5kit.storage.head import write_head
from jv5kit.storage.ids import id_hashes, sorted_hashes
from jv5kit.storage.merging import StoredRows, write_segment
from jv5kit.storage.snapshot import SEGMENTS, segment_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.storage.catalog import Catalog
    from jv5kit.storage.ids import Sorted
    from jv5kit.storage.state import SegmentEntry, Settings, State
    from jv5kit.types import Document

DOCUMENTS_TOGETHER = 10_000


def upgrade(folder: Path, catalog: Catalog, state: State) -> State:
    """Write the segments of an index of format 1 anew, and its catalogue in one transaction.

    Returns:
        The state of the index in the present format; the old segments are the caller's to remove.
    """
    last = max((entry.number for entry in state.segments), default=0)
    entries = []
    for number, old in enumerate(state.segments, last + 1):
        rows = _Format1Rows(folder, state.settings, old, catalog)
        entry = replace(old, number=number)
        unnamed = segment_path(folder, entry).with_suffix(".tmp")
        unnamed.unlink(missing_ok=True)
        entries.append(write_segment(unnamed, state.settings, number, [rows]))
        unnamed.replace(segment_path(folder, entry))
    fsync_path(folder / SEGMENTS)
    new = replace(state, segments=tuple(entries))
    write_head(folder, 0)
    fsync_path(folder)
    with catalog.damage(), catalog.transaction("BEGIN IMMEDIATE"):
        tables = [statement for statement in SCHEMA.split(";") if statement.strip()]
        catalog.execute_script(
            "ALTER TABLE documents RENAME TO format_1",
            "DROP TABLE segments",
            "ALTER TABLE catalog RENAME TO format_1_catalog",
            *tables,
            "INSERT INTO documents SELECT row, id, title, text, metadata, checksum FROM format_1 ORDER BY row",
            "DROP TABLE format_1",
            "INSERT INTO catalog SELECT settings, 0, '', 0, 0 FROM format_1_catalog",
            "DROP TABLE format_1_catalog",
            f"PRAGMA user_version = {new.settings.format}",
        )
        catalog.apply(Change(new))
    catalog.format = new.settings.format
    return new


class _Format1Rows(StoredRows):
    """The rows of a segment of format 1, with what the present format adds to them."""

    def __init__(self, folder: Path, settings: Settings, entry: SegmentEntry, catalog: Catalog) -> None:
        super().__init__(segment_path(folder, entry), settings, entry, Deletions(entry.rows))
        hashes, columns = [], []
        stream = _complete(catalog, entry)
        while documents := list(islice(stream, DOCUMENTS_TOGETHER)):
            hashes.append(id_hashes([document.id for document in documents]))
            columns.append((Columns.of([document.metadata for document in documents]), None))
        self._ids = sorted_hashes(np.concatenate(hashes))
        self._columns = Columns.concatenate(columns)

    def ids(self) -> Sorted:
        """See :class:`jv5kit.storage.merging.Part`."""
        return self._ids

    def columns(self) -> tuple[Columns, NDArray[np.bool_] | None]:
        """See :class:`jv5kit.storage.merging.Part`."""
        return self._columns, None


def _complete(catalog: Catalog, entry: SegmentEntry) -> Iterator[Document]:
    """The documents of all rows of a segment: format 1 deletes none, so what is not there was lost."""
    end = entry.first_row + entry.rows
    found = catalog.stream(entry.first_row, end - 1)
    for row in range(entry.first_row, end):
        number, document = next(found, (None, None))
        if number != row or document is None:
            raise IndexDamagedError.of(catalog.path, f"the document of row {row} is missing")
        yield document
