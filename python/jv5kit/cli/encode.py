"""``jv5kit encode``: texts to embeddings."""

from __future__ import annotations

import json as json_lines
import sys
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli.options import (
    Binary,
    Dim,
    Force,
    Json,
    Model,
    OnRay,
    Quiet,
    SkipInvalid,
    Verbose,
    Workers,
    engine_of,
    print_json,
    wanted_precision,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jv5kit.errors import InputError
    from jv5kit.sharding.encoding import Encoding
    from jv5kit.sharding.engines import Engine
    from jv5kit.types import Document


def encode(
    documents: Annotated[
        Path, typer.Argument(metavar="DOCUMENTS", help="JSON Lines, .gz or not; - is standard input.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="X.npy|DIR",
            help="A new file, or a folder of shards (default: standard output, one JSON array a line).",
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
    shards: Annotated[
        int | None, typer.Option("--shards", metavar="N", help="Shards of a folder (default: one for 4 MiB of input).")
    ] = None,
    workers: Workers = None,
    ray: OnRay = None,
    force: Force = False,
    skip_invalid: SkipInvalid = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Encode documents into embeddings of unit length, or into codes.

    DOCUMENTS has a JSON object a line, as for 'jv5kit index'; only "title" and "text" are used. Into a folder they are
    encoded in shards, by several --workers or those of a Ray cluster: 'jv5kit index --embeddings DIR' takes it. A shard
    is safe as soon as it is done, and the same command goes on with an interrupted one.
    """
    from jv5kit.errors import InputError
    from jv5kit.logs import log_to_stderr
    from jv5kit.sharding.encoding import Encoding
    from jv5kit.tasks import TASKS

    log_to_stderr(quiet=quiet, verbose=verbose)
    wanted = wanted_precision(precision, binary=binary, known=("float32", "ubinary"))
    if task not in TASKS:
        raise InputError(f"--task {task} is not known; choose one of {', '.join(TASKS)}")
    encoding = partial(Encoding.of, model, task=task, query=query, dim=dim, binary=wanted == "ubinary")
    run = _Run(documents, encoding, skip_invalid=skip_invalid, json=json, quiet=quiet)
    if output is not None and output.suffix != ".npy":
        if shards is not None and shards < 1:
            raise InputError(f"--shards {shards}: it must be at least 1")
        run.to_shards(output, shards, engine_of(workers, ray), force=force)
        return
    for option, given in (("--shards", shards), ("--workers", None if workers == 1 else workers), ("--ray", ray)):
        if given is not None:
            raise InputError(f"{option} {given} makes a folder of shards: name one with -o DIR")
    if output is None and json:
        raise InputError("--json says what was written: name a file or a folder with -o")
    run.to_file(output, force=force)


class _Run:
    """One run: what is encoded and how, and what there is to tell of it."""

    def __init__(
        self, documents: Path, encoding: Callable[[], Encoding], *, skip_invalid: bool, json: bool, quiet: bool
    ) -> None:
        self._documents = documents
        self._encoding = encoding
        self._skip_invalid = skip_invalid
        self._skipped = 0
        self._json = json
        self._quiet = quiet

    def to_file(self, output: Path | None, *, force: bool) -> None:
        """Write the embeddings to one file, or without it to standard output."""
        from jv5kit.documents import count_lines, read_documents
        from jv5kit.encoder import one_warning
        from jv5kit.errors import InputError
        from jv5kit.progress import ProgressBar
        from jv5kit.storage.folder import new_file

        if output is not None and output.is_dir():
            raise InputError(f"{output} is a folder; name a file")
        if output is not None and output.exists() and not force:
            raise InputError(f"{output} exists; replace it with --force")
        # The first document before the model is loaded: that takes seconds.
        read = read_documents(self._documents, self._skip if self._skip_invalid else None)
        first = next(read, None)
        if first is None:
            raise InputError("there is no document to encode")
        read = chain([first], read)
        encoding = self._encoding()
        encoder = encoding.load()
        with (
            one_warning(),
            ProgressBar(
                "Encoding", lambda: count_lines(self._documents), "documents", show=False if self._quiet else None
            ) as progress,
        ):

            def encoded(batch: list[Document]) -> None:
                progress(len(batch))

            if output is None:
                for rows in encoding.batches(encoder, read, encoded):
                    for row in rows.tolist():
                        print(json_lines.dumps(row))
                return
            try:
                with new_file(output) as file:
                    count = encoding.write(encoder, read, file, encoded)
            except OSError as error:
                raise InputError(f"cannot write {output}: {error.strerror}") from None
        self._tell({"output": str(output), "embeddings": count, "skipped": self._skipped})

    def to_shards(self, output: Path, shards: int | None, engine: Engine, *, force: bool) -> None:
        """Write the embeddings to a folder of shards, or go on with it."""
        from jv5kit.cli.shards import finish
        from jv5kit.documents import read_documents
        from jv5kit.errors import InputError
        from jv5kit.sharding.encode_job import EncodeJob
        from jv5kit.sharding.ranges import cut

        ranges = cut(self._documents, shards)
        if next(read_documents(self._documents, (lambda _: None) if self._skip_invalid else None), None) is None:
            raise InputError("there is no document to encode")
        # Other processes have other working directories.
        job = EncodeJob(
            self._documents.absolute(), ranges, self._encoding(), output.absolute(), skip_invalid=self._skip_invalid
        )
        with job.open(force=force) as there, closing(job.run(there, engine)) as running:
            finished = finish(running, there, ranges, "Encoding", output, json=self._json, quiet=self._quiet)
        count = sum(done.documents for done in finished)
        facts = {"embeddings": count, "skipped": ranges.lines - count, "shards": len(finished)}
        self._tell({"output": str(output)} | facts)

    def _skip(self, error: InputError) -> None:
        from jv5kit.logs import logger

        self._skipped += 1
        logger.warning("skipped: %s", error)

    def _tell(self, facts: dict[str, Any]) -> None:
        """Say what was written."""
        if self._json:
            print_json(facts)
            return
        if facts["skipped"]:
            print(f"{facts['skipped']:,} documents were skipped", file=sys.stderr)
        shards = f" in {facts['shards']:,} shards" if "shards" in facts else ""
        print(f"{facts['output']}: {facts['embeddings']:,} embeddings{shards}", file=sys.stderr)
