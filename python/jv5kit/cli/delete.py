"""``jv5kit delete``: documents out of an index."""

from __future__ import annotations

import json as json_lines
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jv5kit.cli.options import InIndex, Json, Where, condition_of, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAMED = 5
"""Missing ids that are named; the others are counted."""


def delete(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of documents.", show_default=False)
    ] = None,
    where: Where = None,
    ids_file: Annotated[
        Path | None,
        typer.Option("--ids", metavar="FILE", help="Ids, one a line, plain or as JSON strings; - is standard input."),
    ] = None,
    index: InIndex = None,
    json: Json = False,
) -> None:
    """Delete documents by id, or those whose metadata passes a filter; all of them in one step, or none.

    Their texts leave the disk with 'jv5kit compact'. Ids that the index does not have are passed over and counted.
    """
    from jv5kit.errors import InputError
    from jv5kit.retrieval import only_index
    from jv5kit.stores import store_class

    by_id = bool(ids) or ids_file is not None
    if by_id == (where is not None):
        raise InputError(
            "--where cannot go with ids: delete by one, then by the other"
            if by_id
            else "there is nothing to delete: name ids, or --ids FILE, or --where EXPR"
        )
    if ids and "" in ids:
        raise InputError("an id is empty")
    condition = condition_of(where)
    wanted = [*(ids or ()), *(_read_ids(ids_file) if ids_file is not None else ())]
    path = index or only_index()
    missing: list[str] = []
    with store_class(path).open(path) as opened:
        deleted = opened.delete(wanted if condition is None else None, filter=condition, on_missing=missing.append)
        left = len(opened)
    for identifier in missing[:_NAMED]:
        print(f"jv5kit: {opened.name} has no document {identifier!r}", file=sys.stderr)
    if len(missing) > _NAMED:
        print(f"jv5kit: nor {len(missing) - _NAMED:,} more of the ids", file=sys.stderr)
    if json:
        print_json({"index": opened.name, "deleted": deleted, "missing": len(missing), "documents": left})
    else:
        print(f"{opened.name}: {deleted:,} documents deleted, {left:,} left", file=sys.stderr)


def _read_ids(path: Path) -> Iterator[str]:
    from jv5kit.documents import STDIN
    from jv5kit.errors import InputError

    if path == STDIN:
        yield from _ids_of(sys.stdin.buffer, "<stdin>")
        return
    try:
        with path.open("rb") as file:
            yield from _ids_of(file, path.name)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _ids_of(lines: Iterable[bytes], name: str) -> Iterator[str]:
    from jv5kit.errors import InputError

    for number, line in enumerate(lines, 1):
        try:
            identifier = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if identifier.startswith('"'):
                identifier = json_lines.loads(identifier)
        except ValueError as error:
            raise InputError(f"{name}:{number}: neither an id nor a JSON string: {error}") from None
        if not identifier:
            raise InputError(f"{name}:{number}: the id is empty")
        yield identifier
