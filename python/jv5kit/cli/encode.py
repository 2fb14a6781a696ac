"""``jv5kit encode``: texts to embeddings."""

from __future__ import annotations

import json
import sys
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli.options import Binary, Dim, Force, Model, Quiet, Verbose, wanted_precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BATCH = 4096


def encode(
    documents: Annotated[
        Path, typer.Argument(metavar="DOCUMENTS", help="JSON Lines, .gz or not; - is standard input.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="X.npy", help="A new file (default: standard output, one JSON array a line)."
        ),
    ] = None,
    binary: Binary = False,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="float32|ubinary", help="What to write (default: float32).")
    ] = None,
    dim: Dim = None,
    model: Model = None,
    query: Annotated[bool, typer.Option("--query", help="The texts are queries, not documents.")] = False,
    task: Annotated[
        str,
        typer.Option("--task", metavar="TASK", help="retrieval, text-matching, clustering or classification."),
    ] = "retrieval",
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode documents into embeddings of unit length, or into codes.

    DOCUMENTS has a JSON object a line, as for 'jv5kit index'; only "title" and "text" are used.
    """
    from jv5kit.documents import count_lines, read_documents
    from jv5kit.encoder import Encoder, one_warning
    from jv5kit.errors import InputError
    from jv5kit.logs import log_to_stderr
    from jv5kit.progress import ProgressBar
    from jv5kit.tasks import TASKS

    log_to_stderr(quiet=quiet, verbose=verbose)
    wanted = wanted_precision(precision, binary=binary, known=("float32", "ubinary")) or "float32"
    if task not in TASKS:
        raise InputError(f"--task {task} is not known; choose one of {', '.join(TASKS)}")
    if output is not None and output.is_dir():
        raise InputError(f"{output} is a folder; name a file")
    if output is not None and output.exists() and not force:
        raise InputError(f"{output} exists; replace it with --force")
    # The first document before the model is loaded: that takes seconds.
    read = read_documents(documents)
    first = next(read, None)
    if first is None:
        raise InputError("there is no document to encode")
    read = chain([first], read)
    encoder = Encoder.from_pretrained(model)
    if dim is not None and not 1 <= dim <= encoder.dim:
        raise InputError(f"--dim {dim} is outside 1..{encoder.dim}, the model's dimensions")
    if wanted == "ubinary" and (dim or encoder.dim) % 8:
        raise InputError(f"--dim {dim or encoder.dim} is not a multiple of 8, which one bit a dimension needs")

    def batches() -> Iterator[NDArray[Any]]:
        encode_batch = encoder.encode_query if query else encoder.encode_document
        with (
            one_warning(),
            ProgressBar(
                "Encoding", lambda: count_lines(documents), "documents", show=False if quiet else None
            ) as progress,
        ):
            while batch := [document.content for document in islice(read, _BATCH)]:
                yield encode_batch(batch, task=task, truncate_dim=dim, precision=wanted, show_progress_bar=False)
                progress(len(batch))

    if output is None:
        for rows in batches():
            for row in rows.tolist():
                print(json.dumps(row))
        return
    count = _write_npy(output, batches())
    print(f"{output}: {count:,} embeddings", file=sys.stderr)


def _write_npy(path: Path, batches: Iterator[NDArray[Any]]) -> int:
    """Write batches of rows to one ``.npy`` file, complete or not at all; returns the number of rows."""
    from numpy.lib import format as npy

    from jv5kit.errors import InputError

    unnamed = path.with_name(f".{path.name}.tmp")
    count = 0
    header: dict[str, Any] | None = None
    try:
        with unnamed.open("wb") as file:
            for rows in batches:
                if header is None:
                    header = {"descr": npy.dtype_to_descr(rows.dtype), "fortran_order": False, "shape": rows.shape}
                    npy.write_array_header_1_0(file, header)
                count += len(rows)
                file.write(rows.data)
            if header is None:
                raise InputError("there is no document to encode")
            # The header has room for any number of rows, so that it can be written again in place.
            file.seek(0)
            npy.write_array_header_1_0(file, header | {"shape": (count, *header["shape"][1:])})
        unnamed.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        unnamed.unlink(missing_ok=True)
    return count
