"""What the commands that work in shards share: how a job is finished, and what is told of it."""

from __future__ import annotations

import sys
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jv5kit.cli.options import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jv5kit.errors import InputError
    from jv5kit.sharding.engines import Engine
    from jv5kit.sharding.pieces import Done
    from jv5kit.sharding.ranges import Cut
    from jv5kit.stores.sharded import ShardedIndex


def finish(
    running: Iterator[Done],
    there: Sequence[Done],
    ranges: Cut,
    description: str,
    output: Path | str,
    *,
    json: bool,
    quiet: bool,
) -> list[Done]:
    """Wait for the shards of a job that are not there yet, telling of each; returns all of them.

    An error, or an interruption, says how much is done and how to go on.
    """
    from jv5kit.encoder import CutTexts
    from jv5kit.errors import DocumentError, DuplicateError, Jv5kitError
    from jv5kit.logs import logger
    from jv5kit.progress import ProgressBar

    finished: list[Done] = []
    texts = CutTexts()
    bar = False if quiet or json else None
    try:
        with ProgressBar(description, lambda: ranges.lines, "documents", show=bar) as progress:
            for done in chain(there, running):
                finished.append(done)
                texts.add(done.cut)
                for message in done.skipped:
                    logger.warning("skipped: %s", message)
                if json and len(finished) > len(there):
                    print_json({"shard": done.piece.name, "documents": done.documents})
                    sys.stdout.flush()
                progress(done.piece.range.lines)
    except (KeyboardInterrupt, Jv5kitError) as error:
        there_now = f"{len(finished)} of {len(ranges.ranges)} shards are in {output}"
        if isinstance(error, KeyboardInterrupt):
            print(f"jv5kit: interrupted; {there_now}; the same command goes on", file=sys.stderr)
        elif isinstance(error, DocumentError | DuplicateError):
            error.args = (f"{error}\n{there_now}; the same command with --skip-invalid goes on",)
        else:
            error.args = (f"{error}\n{there_now}; once that is mended, the same command goes on",)
        raise
    texts.warn()
    return finished


def index_in_shards(
    documents: Path,
    place: Path,
    wanted: dict[str, Any],
    model: str | None,
    shards: int,
    engine: Engine,
    *,
    force: bool,
    skip_invalid: bool,
    json: bool,
    quiet: bool,
) -> tuple[ShardedIndex, int]:
    """Build an index in shards of a file of documents, or go on with it.

    Args:
        documents: the file.
        place: the folder of the index.
        wanted: its settings, as the command line asks for them.
        model: that is asked for.
        shards: how many.
        engine: builds them.
        force: replace an index that is there.
        skip_invalid: pass over documents that cannot be used.
        json: tell a program of each shard.
        quiet: show no progress.

    Returns:
        The index, and how many documents were passed over.
    """
    from jv5kit.documents import read_documents
    from jv5kit.encoder import shared_encoder
    from jv5kit.errors import InputError
    from jv5kit.index_settings import settings_of
    from jv5kit.logs import logger
    from jv5kit.sharding.encoding import Encoding
    from jv5kit.sharding.index_job import IndexJob, fitted_rotation
    from jv5kit.sharding.ranges import cut
    from jv5kit.sources import Source
    from jv5kit.stores.sharded import ShardedIndex, refuse_settings

    if shards < 1:
        raise InputError(f"--shards {shards}: it must be at least 1")
    refuse_settings(lexical=wanted["lexical"], hnsw=wanted["hnsw"])
    kind = {"precision": wanted["precision"] or "ubinary", "rescore": wanted["rescore"], "passages": wanted["passages"]}
    ShardedIndex.check_new(place, force=force, **kind)
    ranges = cut(documents, shards)
    if next(read_documents(documents, (lambda _: None) if skip_invalid else None), None) is None:
        raise InputError("there is no document to index")
    encoder = shared_encoder(model)
    settings = settings_of(Source((), encoder), wanted["dim"], **kind)
    rotated = wanted["rotate"]
    rotation = fitted_rotation(documents, encoder, settings, skip_invalid=skip_invalid) if rotated else None
    # Other processes have other working directories.
    paths = documents.absolute(), place.absolute()
    job = IndexJob(paths[0], ranges, Encoding.of(model), settings, paths[1], rotation, skip_invalid=skip_invalid)

    def refused(error: InputError) -> None:
        logger.warning("skipped: %s", error)

    with job.open(force=force) as there:
        with closing(job.run(there, engine)) as running:
            finish(running, there, ranges, "Indexing", place, json=json, quiet=quiet)
        job.publish(refused)
    built = ShardedIndex.open(place)
    return built, ranges.lines - len(built)
