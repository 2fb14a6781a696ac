"""``jv5kit export``: an index as NumPy arrays, and as an index of FAISS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jv5kit.cli.options import AnIndex, Force, Json, Quiet, print_json


def export(
    index: AnIndex = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="A folder; made if it is not there.")
    ] = None,
    faiss: Annotated[
        bool, typer.Option("--faiss", help="Write index.faiss too: codes for Hamming distance, else inner products.")
    ] = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write what an index stores as arrays, without what was deleted.

    The files, row by row the same documents: codes.npy, rows.npy and scales.npy, or embeddings.npy, as the index has
    them; ids.jsonl, a JSON string a line. Of a rotated index, rotation.npy is what a query is multiplied with first. An
    index of passages has a row for each: passages.npy has its number (0: a whole document), its start and its end.
    """
    from jv5kit.errors import InputError
    from jv5kit.index import Index
    from jv5kit.progress import ProgressBar
    from jv5kit.retrieval import only_index

    if output is None:
        raise InputError("say where the files go with -o DIR")
    path = index or only_index()
    with Index.open(path) as opened:
        count, rows = len(opened), opened.row_count
        show = False if quiet or json else None
        with ProgressBar("Exporting", lambda: rows, "rows", show=show) as progress:
            files = opened.export(output, faiss=faiss, force=force, on_rows=progress)
    if json:
        print_json({"index": str(path), "documents": count, "files": [str(file) for file in files]})
        return
    names = ", ".join(file.name for file in files)
    print(f"{output}: {count:,} documents, in {names}", file=sys.stderr)
