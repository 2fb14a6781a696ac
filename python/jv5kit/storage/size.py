"""How much an index takes on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jv5kit.index import Index


def bytes_on_disk(index: Index) -> int:
    """Bytes of all files of an index."""
    return sum(path.stat().st_size for path in index.path.rglob("*") if path.is_file())


def bytes_a_document(index: Index) -> float:
    """Bytes on disk a document, texts and catalogue included."""
    return bytes_on_disk(index) / max(1, len(index))
