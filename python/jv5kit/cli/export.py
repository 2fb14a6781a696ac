"""``jv5kit export``: an index as NumPy arrays and as an index of FAISS; a trained model as a folder to load."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jv5kit.cli.options import Force, Json, Quiet, folder_of, print_json


def export(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="INDEX|CHECKPOINT",
            help="An index (default: the only *.jv5 here), or a model: what jv5kit train wrote, any folder of one, or "
            "pico.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="A folder; made if it is not there.")
    ] = None,
    faiss: Annotated[
        bool,
        typer.Option("--faiss", help="Index: write index.faiss too: codes for Hamming distance, else inner products."),
    ] = False,
    merge: Annotated[
        str | None,
        typer.Option(
            "--merge", metavar="TASK", help="Model: merge this task's adapter into the weights, for any library."
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Model: int8 rows with a scale each, a quarter of the size; for jv5kit alone."),
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Model: write onnx/model.onnx too: token ids in, unit embeddings out.")
    ] = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write what an index stores as arrays, or a trained model as a folder to load.

    Of an index, without what was deleted. The files, row by row the same documents: codes.npy, rows.npy and scales.npy,
    or embeddings.npy, as the index has them; ids.jsonl, a JSON string a line. Of a rotated index, rotation.npy is what
    a query is multiplied with first. An index of passages has a row for each: passages.npy has its number (0: a whole
    document), its start and its end.

    Of a model, the backbone and an adapter for each task, or one task merged into it, with a model card written from
    the run.
    """
    from jv5kit.errors import InputError
    from jv5kit.training.export import is_model

    if output is None:
        raise InputError("say where the files go with -o DIR")
    path = None if source is None else folder_of(source, "export")
    if path is not None and is_model(path):
        if faiss:
            raise InputError(f"--faiss is for an index; {path} is a model")
        _export_model(path, output, merge=merge, int8=int8, onnx=onnx, force=force, json=json, quiet=quiet)
        return
    for option, given in (("--merge", merge is not None), ("--int8", int8), ("--onnx", onnx)):
        if given:
            place = "this is an index" if path is None else f"{path} is none"
            raise InputError(f"{option} is for a model: the output of jv5kit train, or any folder of one; {place}")
    _export_index(path, output, faiss=faiss, force=force, json=json, quiet=quiet)


def _export_model(
    source: Path, output: Path, *, merge: str | None, int8: bool, onnx: bool, force: bool, json: bool, quiet: bool
) -> None:
    from jv5kit.training.export import export_model

    files = export_model(source, output, merge=merge, int8=int8, onnx=onnx, force=force)
    size = sum(file.stat().st_size for file in files)
    if json:
        print_json({"model": str(source), "bytes": size, "files": [str(file) for file in files]})
    elif not quiet:
        what = f"{merge} merged into the weights" if merge is not None else _adapters(files)
        print(f"{output}: {what}, {size / 1e6:,.1f} MB in {len(files)} files", file=sys.stderr)


def _adapters(files: list[Path]) -> str:
    tasks = sorted({file.parent.name for file in files if file.name == "adapter_config.json"})
    return f"the model with adapters for {', '.join(tasks)}" if tasks else "the model"


def _export_index(index: Path | None, output: Path, *, faiss: bool, force: bool, json: bool, quiet: bool) -> None:
    from jv5kit.index import Index
    from jv5kit.progress import ProgressBar
    from jv5kit.retrieval import only_index

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
