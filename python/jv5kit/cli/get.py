"""``jv5kit get``: documents by id."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli.options import InIndex, print_json

if TYPE_CHECKING:
    from jv5kit.types import Document

_DOCUMENTS_READ = 1000


def get(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of documents.", show_default=False)],
    index: InIndex = None,
) -> None:
    """Print documents, one JSON object a line, as 'jv5kit index' takes them.

    An id that the index does not have is said on standard error, and the exit status is 1.
    """
    from jv5kit.retrieval import open_index

    opened = open_index(index)
    missing = 0
    for start in range(0, len(ids), _DOCUMENTS_READ):
        part = ids[start : start + _DOCUMENTS_READ]
        for identifier, document in zip(part, opened.get(part), strict=True):
            if document is None:
                missing += 1
                print(f"jv5kit: {opened.name} has no document {identifier!r}", file=sys.stderr)
                continue
            print_json(_line(document))
    if missing:
        raise typer.Exit(1)


def _line(document: Document) -> dict[str, Any]:
    own = {"id": document.id, "title": document.title, "text": document.text}
    # Only Python can give a document such metadata.
    taken = sorted(own.keys() & document.metadata.keys())
    if taken:
        print(f"jv5kit: {document.id!r} has metadata named {', '.join(taken)}, left out of its line", file=sys.stderr)
    if document.title is None:
        del own["title"]
    return own | {field: value for field, value in document.metadata.items() if field not in taken}
