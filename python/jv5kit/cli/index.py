"""``jv5kit index``: documents into an index."""

from __future__ import annotations

import json as json_lines
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli.options import Binary, Dim, Documents, Force, Json, Model, Quiet, Verbose, wanted_precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jv5kit.index import Index
    from jv5kit.types import Document, Precision


def index(
    documents: Documents = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="The index (default: the input's name with .jv5, here)."),
    ] = None,
    binary: Binary = False,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="ubinary|float32", help="How to store (default: ubinary).")
    ] = None,
    dim: Dim = None,
    model: Model = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            "--embeddings", metavar="X.npy", help="Your own embeddings, one row a document; no model is used."
        ),
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to an index; identical documents are passed over.")
    ] = False,
    force: Force = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Pass over documents that cannot be used; log and count them.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode documents and write an index of them.

    Each line of DOCUMENTS is a JSON object: "text" is required; "id" (or "_id") is by default the line number; "title"
    is optional; everything else is metadata. Batches are on disk as soon as they are done: an interrupted run goes on
    with --append.
    """
    from jv5kit.embeddings import EmbeddingsFile
    from jv5kit.errors import InputError, Jv5kitError
    from jv5kit.logs import log_to_stderr, logger

    log_to_stderr(quiet=quiet, verbose=verbose)
    if documents is None and embeddings is None:
        raise InputError("there is nothing to index: name a file of documents, or --embeddings X.npy, or both")
    if append and force:
        raise InputError("--append adds to an index and --force replaces it: choose one")
    if skip_invalid and embeddings is not None:
        raise InputError("--skip-invalid cannot go with --embeddings: documents and rows would no longer match")
    if model is not None and embeddings is not None:
        raise InputError("--model cannot go with --embeddings: nothing is left to encode")
    path = output or _default_output(documents or embeddings or Path("index"))
    run = _Run(path, json=json)

    def skip(error: InputError) -> None:
        run.skipped += 1
        logger.warning("skipped: %s", error)

    rows = EmbeddingsFile(embeddings) if embeddings is not None else None
    if rows is not None and not len(rows):
        raise InputError(f"{embeddings} holds no embedding")
    lines = _Lines(documents, skip if skip_invalid else None) if documents is not None else None
    options: dict[str, Any] = {
        "embeddings": rows,
        # By position in the file, so that the same file again meets its own rows.
        "ids": range(len(rows)) if rows is not None and documents is None else None,
        "skip": skip if skip_invalid else None,
        "on_commit": run.committed,
        "show_progress_bar": False if quiet or json else None,
    }
    wanted = wanted_precision(precision, binary=binary)
    try:
        opened = (
            _append(path, lines, wanted, dim, model, options, run)
            if append
            else _build(path, lines, wanted, dim, model, force, options, run)
        )
    except (KeyboardInterrupt, Jv5kitError) as error:
        raise run.stopped(error) from None
    run.done(opened)


def _build(
    path: Path,
    lines: _Lines | None,
    precision: Precision | None,
    dim: int | None,
    model: str | None,
    force: bool,
    options: dict[str, Any],
    run: _Run,
) -> Index:
    from jv5kit.encoder import shared_encoder
    from jv5kit.errors import InputError
    from jv5kit.index import Index
    from jv5kit.storage.folder import check_free

    check_free(path, force=force)
    if lines is not None and not lines.read_first():
        raise InputError(f"there is no document to index ({run.skipped} were skipped)")
    encoder = shared_encoder(model) if options["embeddings"] is None else None
    return Index.build(path, lines, encoder, dim=dim, precision=precision or "ubinary", force=force, **options)


def _append(
    path: Path,
    lines: _Lines | None,
    precision: Precision | None,
    dim: int | None,
    model: str | None,
    options: dict[str, Any],
    run: _Run,
) -> Index:
    from jv5kit.errors import InputError
    from jv5kit.index import Index

    opened = Index.open(path)
    for name, given, stored in (
        ("--precision", precision, opened.settings.precision),
        ("--dim", dim, opened.settings.dim),
    ):
        if given is not None and given != stored:
            raise InputError(f"{name} {given}: {path} has {stored}, which --append cannot change")
    if model is not None:
        opened.use_encoder(model)
    run.begins_with(len(opened))
    added = opened.add(lines, **options)
    if added.identical:
        print(f"{added.identical:,} documents were there already, identical", file=sys.stderr)
    return opened


class _Lines:
    """The documents of a file, read once, and how many lines it has, for the progress bar."""

    def __init__(self, path: Path, skip: Any) -> None:
        from jv5kit.documents import read_documents

        self._path = path
        self._documents = read_documents(path, skip)

    def read_first(self) -> bool:
        """Read the first document, before a model is loaded for it: that takes seconds. Whether there is one."""
        first = next(self._documents, None)
        if first is not None:
            self._documents = chain([first], self._documents)
        return first is not None

    def __iter__(self) -> Iterator[Document]:
        return self._documents

    def __length_hint__(self) -> int:
        from jv5kit.documents import count_lines

        lines = count_lines(self._path)
        return NotImplemented if lines is None else lines


class _Run:
    """What a run has to tell, as it goes and at its end."""

    def __init__(self, path: Path, *, json: bool) -> None:
        self.skipped = 0
        self._path = path
        self._json = json
        self._documents: int | None = None
        self._added = False

    def begins_with(self, documents: int) -> None:
        """Note the documents that are there before the run adds any."""
        self._documents = documents

    def committed(self, documents: int) -> None:
        """Tell a program that so many documents are safe."""
        self._documents, self._added = documents, True
        if self._json:
            print(json_lines.dumps({"committed": documents}), flush=True)

    def stopped(self, error: BaseException) -> BaseException:
        """The error that ends the run, with what was committed before it."""
        if self._documents is None:
            hint = "nothing was added"
        else:
            hint = f"{self._documents:,} documents are in {self._path}; the same command with --append goes on"
        if isinstance(error, KeyboardInterrupt):
            print(f"jv5kit: interrupted; {hint}", file=sys.stderr)
        elif self._added:
            error.args = (f"{error}\n{hint}",)
        return error

    def done(self, index: Index) -> None:
        """Say what there is now."""
        from jv5kit.storage.size import bytes_a_document

        settings = index.settings
        if self._json:
            print(json_lines.dumps({"index": str(self._path), "documents": len(index), "skipped": self.skipped}))
            return
        if self.skipped:
            print(f"{self.skipped:,} documents were skipped", file=sys.stderr)
        print(
            f"{self._path}: {len(index):,} documents, {settings.dim} dimensions, {settings.precision}, "
            f"{bytes_a_document(index):,.0f} bytes a document",
            file=sys.stderr,
        )


def _default_output(source: Path) -> Path:
    from jv5kit.documents import STDIN
    from jv5kit.errors import InputError

    if source == STDIN:
        raise InputError("standard input has no name: say where the index goes with -o DIR")
    name = source.name.removesuffix(".gz")
    return Path(Path(name).stem + ".jv5")
