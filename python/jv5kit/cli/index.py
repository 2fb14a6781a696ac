"""``jv5kit index``: documents into an index."""

from __future__ import annotations

import json as json_lines
import sys
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli import publish
from jv5kit.cli.options import (
    Binary,
    Dim,
    Documents,
    Force,
    Json,
    Model,
    OnRay,
    Quiet,
    Replicas,
    SkipInvalid,
    Verbose,
    Workers,
    engine_of,
    wanted_precision,
    wanted_rescore,
)
from jv5kit.cli.shards import index_in_shards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jv5kit.embeddings import EmbeddingsFile
    from jv5kit.sharding.reading import EmbeddingsFolder
    from jv5kit.stores import Store
    from jv5kit.types import Document, Precision, Rescore


def index(
    documents: Documents = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="DIR", help="The index (default: the input's name with .jv5, here)."),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="Keep the index in an engine instead of a folder.")
    ] = None,
    binary: Binary = False,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="float32|int8|ubinary", help="How to store (default: ubinary).")
    ] = None,
    rescore: Annotated[
        str | None,
        typer.Option(
            "--rescore",
            metavar="int8|codes|none",
            help="What orders the hits of a ubinary index: int8 rows beside the codes, the codes, or nothing.",
        ),
    ] = None,
    dim: Dim = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Rotate the embeddings so that the dimensions kept hold the most.")
    ] = False,
    lexical: Annotated[bool, typer.Option("--lexical", help="Index the words too, for search --hybrid.")] = False,
    hnsw: Annotated[
        bool, typer.Option("--hnsw", help="Keep a graph for approximate search; in a folder with --precision float32.")
    ] = False,
    passages: Annotated[
        int | None,
        typer.Option(
            "--passages",
            metavar="TOKENS",
            help="Split longer documents into overlapping passages of at most so many tokens, each a hit of its own.",
        ),
    ] = None,
    model: Model = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            "--embeddings",
            metavar="X.npy|DIR",
            help="Your own embeddings, or uint8 codes, one row a document; no model is used.",
        ),
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to an index; identical documents are passed over.")
    ] = False,
    upsert: Annotated[
        bool, typer.Option("--upsert", help="As --append, but documents take the place of those of their id.")
    ] = False,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            metavar="N",
            help="An index in so many shards (by default NAME.jv5s), built apart; see 'publish'.",
        ),
    ] = None,
    workers: Workers = None,
    ray: OnRay = None,
    replicas: Replicas = 1,
    force: Force = False,
    skip_invalid: SkipInvalid = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode documents and write an index of them.

    Each line of DOCUMENTS is a JSON object: "text" is required; "id" (or "_id") is by default the line number; "title"
    is optional; everything else is metadata. Batches are on disk as soon as they are done: an interrupted run goes on
    with --append.
    """
    from jv5kit.errors import InputError, Jv5kitError
    from jv5kit.logs import log_to_stderr, logger

    log_to_stderr(quiet=quiet, verbose=verbose)
    if documents is None and embeddings is None:
        raise InputError("there is nothing to index: name a file of documents, or --embeddings X.npy, or both")
    goes_on = "--upsert" if upsert else "--append" if append else None
    if upsert and append:
        raise InputError("--append refuses other documents of an id that is there and --upsert takes them: choose one")
    if goes_on and force:
        raise InputError(f"{goes_on} adds to an index and --force replaces it: choose one")
    if skip_invalid and embeddings is not None and not embeddings.is_dir():
        raise InputError("--skip-invalid cannot go with --embeddings: documents and rows would no longer match")
    if model is not None and embeddings is not None:
        raise InputError("--model cannot go with --embeddings: nothing is left to encode")
    if passages is not None and embeddings is not None:
        raise InputError(
            "--passages cannot go with --embeddings: it takes a model to split texts and encode their passages; leave "
            "out one of them, or give each passage as a document of its own"
        )
    wanted = _Wanted(
        wanted_precision(precision, binary=binary),
        wanted_rescore(rescore),
        dim,
        rotate=rotate,
        lexical=lexical,
        hnsw=hnsw,
        passages=passages,
    )
    if shards is not None:
        if documents is None or embeddings is not None or goes_on or store is not None:
            raise InputError("--shards cuts a file of DOCUMENTS, for a folder: it goes with no other input or place")
        lasting = publish.is_lasting(ray, replicas)
        folder = Path(output or _default_output(documents, ".jv5s"))
        run = _Run(str(folder), None, json=json)
        engine, flags = engine_of(workers, ray), {"force": force, "skip_invalid": skip_invalid}
        built, run.skipped = index_in_shards(
            documents, folder, asdict(wanted), model, shards, engine, json=json, quiet=quiet, **flags
        )
        run.done(built, publish.start(folder, str(ray), None, replicas) if lasting else None)
        return
    for option, given in (("--workers", workers), ("--ray", ray), ("--replicas", None if replicas == 1 else replicas)):
        if given is not None:
            raise InputError(f"{option} {given} is for an index in shards: say how many with --shards N")
    place = _place(output, store, documents or embeddings or Path("index"))
    run = _Run(place, goes_on, json=json)

    def skip(error: InputError) -> None:
        run.skipped += 1
        logger.warning("skipped: %s", error)

    rows = _rows(embeddings)
    if rows is not None and not len(rows):
        raise InputError(f"{embeddings} holds no embedding")
    lines = _Lines(documents, skip if skip_invalid else None, rows) if documents is not None else None
    options: dict[str, Any] = {
        "embeddings": rows,
        # By default by position in the file, so that the same file again meets its own rows.
        "ids": getattr(rows, "ids", range(len(rows))) if rows is not None and documents is None else None,
        "skip": skip if skip_invalid else None,
        "on_commit": run.committed,
        "show_progress_bar": False if quiet or json else None,
    }
    try:
        opened = (
            _go_on(place, lines, wanted, model, options, run)
            if goes_on
            else _build(place, lines, wanted, model, force, options, run)
        )
    except (KeyboardInterrupt, Jv5kitError) as error:
        raise run.stopped(error) from None
    run.done(opened)


def _rows(embeddings: Path | None) -> EmbeddingsFile | EmbeddingsFolder | None:
    """The embeddings of a file, or of a folder of shards."""
    from jv5kit.embeddings import EmbeddingsFile

    if embeddings is not None and embeddings.is_dir():
        from jv5kit.sharding.reading import EmbeddingsFolder

        return EmbeddingsFolder(embeddings)
    return None if embeddings is None else EmbeddingsFile(embeddings)


@dataclass(frozen=True)
class _Wanted:
    """The settings that the command line asks for; None and False where it does not."""

    precision: Precision | None
    rescore: Rescore | None
    dim: int | None
    rotate: bool
    lexical: bool
    hnsw: bool
    passages: int | None

    def check(self, index: Store, goes_on: str) -> None:
        """Refuse what an index does not have.

        Raises:
            InputError: names the option, its value and that of the index.
        """
        from jv5kit.errors import InputError

        settings = index.settings
        for name in ("precision", "rescore", "dim", "passages"):
            given, stored = getattr(self, name), getattr(settings, name)
            if given is not None and given != stored:
                has = "none" if stored is None else stored
                raise InputError(f"--{name} {given}: {index.name} has {has}, which {goes_on} cannot change")
        for name, stored in (
            ("rotate", settings.rotation is not None),
            ("lexical", settings.lexical),
            ("hnsw", settings.hnsw),
        ):
            if getattr(self, name) and not stored:
                raise InputError(f"--{name}: {index.name} was built without it, which {goes_on} cannot change")


def _place(output: str | None, store: str | None, source: Path) -> str:
    """Where the index goes: a folder or a URL."""
    from jv5kit.errors import InputError
    from jv5kit.stores import is_url, shown

    if output is not None and store is not None:
        raise InputError("-o DIR and --store URL are two places for one index: choose one")
    if store is not None and not is_url(store):
        # It may be what libpq takes beside URLs, with a password.
        raise InputError("what --store names is no URL (postgresql://…); a folder is named with -o")
    if output is not None and is_url(output):
        raise InputError(f"-o {shown(output)} is no folder; a URL is named with --store")
    return store or output or str(_default_output(source))


def _build(
    place: str,
    lines: _Lines | None,
    wanted: _Wanted,
    model: str | None,
    force: bool,
    options: dict[str, Any],
    run: _Run,
) -> Store:
    from jv5kit.encoder import shared_encoder
    from jv5kit.errors import InputError
    from jv5kit.stores import store_class

    settings = asdict(wanted) | {"precision": wanted.precision or "ubinary"}
    kind = store_class(place)
    checked = {name: settings[name] for name in ("precision", "rescore", "hnsw", "passages")}
    kind.check_new(place, **checked, force=force)
    if lines is not None and not lines.read_first():
        raise InputError(f"there is no document to index ({run.skipped} were skipped)")
    encoder = shared_encoder(model) if options["embeddings"] is None else None
    return kind.build(place, lines, encoder, force=force, **settings, **options)


def _go_on(
    place: str, lines: _Lines | None, wanted: _Wanted, model: str | None, options: dict[str, Any], run: _Run
) -> Store:
    from jv5kit.stores import store_class

    opened = store_class(place).open(place)
    wanted.check(opened, str(run.goes_on))
    if model is not None:
        opened.use_encoder(model)
    run.begins_with(len(opened))
    added = (opened.upsert if run.goes_on == "--upsert" else opened.add)(lines, **options)
    run.replaced = added.replaced
    if added.identical:
        print(f"{added.identical:,} documents were there already, identical", file=sys.stderr)
    return opened


class _Lines:
    """The documents of a file, read once, and how many lines it has, for the progress bar."""

    def __init__(self, path: Path, skip: Any, rows: EmbeddingsFile | EmbeddingsFolder | None) -> None:
        from jv5kit.documents import read_documents

        self._path = path
        self._documents = read_documents(path, skip)
        if matched := getattr(rows, "matched", None):
            self._documents = matched(self._documents)

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

    def __init__(self, place: str, goes_on: str | None, *, json: bool) -> None:
        from jv5kit.stores import shown

        self.goes_on = goes_on
        self.skipped = self.replaced = 0
        self._name = shown(place)
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
            again = "the same command" if self.goes_on == "--upsert" else "the same command with --append"
            hint = f"{self._documents:,} documents are in {self._name}; {again} goes on"
        if isinstance(error, KeyboardInterrupt):
            print(f"jv5kit: interrupted; {hint}", file=sys.stderr)
        elif self._added:
            error.args = (f"{error}\n{hint}",)
        return error

    def done(self, index: Store, url: str | None = None) -> None:
        """Say what there is now, and where it is published."""
        settings = index.settings
        if self._json:
            facts = {"index": index.name, "documents": len(index), "skipped": self.skipped}
            if settings.passages is not None:
                facts["passages"] = index.row_count
            facts |= {"replaced": self.replaced} if self.goes_on == "--upsert" else {}
            print(json_lines.dumps(facts | ({} if url is None else {"published": url})))
            return
        if self.goes_on == "--upsert":
            print(f"{self.replaced:,} documents were replaced", file=sys.stderr)
        if self.skipped:
            print(f"{self.skipped:,} documents were skipped", file=sys.stderr)
        passages = "" if settings.passages is None else f" in {index.row_count:,} passages"
        print(
            f"{index.name}: {len(index):,} documents{passages}, {settings.dim} dimensions, {settings.precision}, "
            f"{index.bytes_on_disk / max(1, len(index)):,.0f} bytes a document",
            file=sys.stderr,
        )
        if url is not None:
            print(f"published as {url}", file=sys.stderr)


def _default_output(source: Path, suffix: str = ".jv5") -> Path:
    from jv5kit.documents import STDIN
    from jv5kit.errors import InputError

    if source == STDIN:
        raise InputError("standard input has no name: say where the index goes with -o DIR")
    name = source.name.removesuffix(".gz")
    return Path(Path(name).stem + suffix)
