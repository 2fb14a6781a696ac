"""The modes that an index can be searched in: each an exact scan of a part of what is stored.

An index of bits with int8 rows beside them has three: bits alone, rows alone, and bits whose candidates the rows
rescore, which is its own. The others have one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from jv5kit.errors import InputError
from jv5kit.types import SearchMode

if TYPE_CHECKING:
    from jv5kit.storage.state import Settings

SEARCH_MODES: tuple[SearchMode, ...] = get_args(SearchMode)


def modes_of(settings: Settings) -> dict[SearchMode, int]:
    """The modes of an index, its own first, each with the bytes of a row that it reads or keeps to rescore with."""
    codes, rows = settings.dim // 8, settings.dim + 4
    if settings.precision == "float32":
        return {"float32": 4 * settings.dim}
    if settings.precision == "int8":
        return {"int8": rows}
    if settings.rescore != "int8":
        return {"ubinary": codes}
    return {"ubinary+int8": codes + rows, "int8": rows, "ubinary": codes}


def in_mode(settings: Settings, mode: SearchMode | None) -> Settings:
    """The settings by which an index is scanned in a mode; None is its own, with its graph if it has one.

    Raises:
        InputError: the mode is not known, or the index lacks what it needs.
    """
    if mode is None:
        return settings
    if mode not in SEARCH_MODES:
        raise InputError(f"mode={mode!r} is not known; choose one of {', '.join(SEARCH_MODES)}")
    known = modes_of(settings)
    if mode not in known:
        raise InputError(
            f"mode={mode!r} needs what this index does not store; it can be searched in {', '.join(known)}"
        )
    if mode == "int8":
        return replace(settings, precision="int8")
    if mode == "ubinary" and settings.rescore == "int8":
        return replace(settings, rescore="none", hnsw=False)
    return replace(settings, hnsw=False)
