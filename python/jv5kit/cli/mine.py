"""``jv5kit mine``: hard negatives for training pairs."""

from __future__ import annotations

import json as json_lines
import sys
import tempfile
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli.options import Dim, Force, Json, Model, Quiet, Verbose, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jv5kit.mining import Tally
    from jv5kit.progress import ProgressBar
    from jv5kit.training.rows import Pair


def mine(
    rows: Annotated[
        str, typer.Argument(metavar="ROWS", help="Pairs: JSON Lines, CSV, TSV or Parquet, a folder, or a hub id.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="X.jsonl", help="A new file (default: standard output)."),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", metavar="DOCUMENTS", help="More documents that may be negatives: JSON Lines."),
    ] = None,
    negatives: Annotated[int, typer.Option("--negatives", "-n", metavar="N", help="Negatives a row.")] = 7,
    ranks: Annotated[
        str, typer.Option("--ranks", metavar="FIRST-LAST", help="Which of what an anchor finds is looked at.")
    ] = "1-100",
    margin: Annotated[
        float, typer.Option("--margin", metavar="X", help="A negative scores less than the positive by this cosine.")
    ] = 0.0,
    relative_margin: Annotated[
        float, typer.Option("--relative-margin", metavar="X", help="And by this part of the positive's score.")
    ] = 0.05,
    similarity: Annotated[
        float,
        typer.Option("--similarity", metavar="X", help="From this cosine to the positive on it says the same: none."),
    ] = 0.95,
    dim: Dim = None,
    model: Model = None,
    kept: Annotated[
        Path | None,
        typer.Option("--index", metavar="DIR", help="Keep the index, and use it again: nothing is encoded twice."),
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Give training pairs hard negatives, found with a binary index of their positives.

    ROWS has pairs under the names that 'jv5kit train' takes, such as "anchor" and "positive"; what is written has
    "negative_1", "negative_2" and so on beside them, the hardest first. A row for which fewer are found has fewer.
    """
    from jv5kit.encoder import Encoder, one_warning
    from jv5kit.errors import InputError
    from jv5kit.logs import log_to_stderr
    from jv5kit.mining import Settings, Tally
    from jv5kit.mining import mine as mined
    from jv5kit.progress import ProgressBar

    log_to_stderr(quiet=quiet, verbose=verbose)
    settings = Settings(
        negatives=negatives,
        ranks=_ranks(ranks),
        margin=margin,
        relative_margin=relative_margin,
        similarity=similarity,
    )
    if json and output is None:
        raise InputError("--json prints a summary on standard output, where the rows go: name a file for them with -o")
    if output is not None and output.is_dir():
        raise InputError(f"{output} is a folder; name a file")
    if output is not None and not output.parent.is_dir():
        raise InputError(f"cannot write {output}: there is no folder {output.parent}")
    if output is not None and output.exists() and not force:
        raise InputError(f"{output} exists; replace it with --force")
    # All rows before the model is loaded: a bad one late in the file would come after hours.
    count = sum(1 for _ in _pairs(rows))
    if corpus is not None:
        next(iter(_corpus(corpus)), None)
    encoder = Encoder.from_pretrained(model)
    tally = Tally()
    show = False if quiet or json else None
    try:
        with ExitStack() as stack:
            stack.enter_context(one_warning())
            index = kept
            if index is None:
                beside = tempfile.TemporaryDirectory(prefix=".mine-", dir=None if output is None else output.parent)
                index = Path(stack.enter_context(beside)) / "mine.jv5"
            found = mined(
                lambda: _pairs(rows),
                index,
                encoder,
                settings,
                corpus=_corpus(corpus),
                dim=dim,
                tally=tally,
                show_progress_bar=show,
            )
            # The first row comes after all documents are encoded, with a bar of their own.
            first = next(found)
            progress = stack.enter_context(ProgressBar("Mining", lambda: count, "rows", show=show))
            _write(output, chain([first], found), progress)
    except KeyboardInterrupt:
        kept_in = f"; what was encoded is in {kept}: the same command goes on" if kept is not None else ""
        print(f"jv5kit: interrupted; nothing was written{kept_in}", file=sys.stderr)
        raise
    _report(tally, output, json=json)


def _ranks(text: str) -> tuple[int, int]:
    from jv5kit.errors import InputError

    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise InputError(f"--ranks {text}; give the first and the last, such as 1-100")
    return int(first), int(last)


def _pairs(path: str) -> Iterator[Pair]:
    """The pairs of a source; what is no pair is an error."""
    from jv5kit.errors import InputError
    from jv5kit.training.rows import Pair, read_rows

    for row, origin in read_rows(path):
        if not isinstance(row, Pair):
            raise InputError(f"{origin}: no pair; negatives are mined for rows with an anchor and a positive")
        yield row


def _corpus(path: Path | None) -> Iterable[Any]:
    from jv5kit.documents import read_documents

    return () if path is None else read_documents(path)


def _write(output: Path | None, rows: Iterable[Pair], progress: ProgressBar) -> None:
    """Write the rows, complete or not at all."""
    from jv5kit.errors import InputError

    if output is None:
        for row in rows:
            print(_line(row))
            progress(1)
        return
    aside = output.with_name(f".{output.name}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(_line(row) + "\n")
                progress(1)
        aside.replace(output)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)


def _line(row: Pair) -> str:
    negatives = {f"negative_{i}": text for i, text in enumerate(row.negatives, start=1)}
    return json_lines.dumps({"anchor": row.anchor, "positive": row.positive} | negatives, ensure_ascii=False)


def _report(tally: Tally, output: Path | None, *, json: bool) -> None:
    if json:
        print_json({"output": str(output)} | tally.facts())
        return
    name = "" if output is None else f"{output}: "
    print(
        f"{name}{tally.rows:,} rows with {tally.negatives:,} negatives from {tally.documents:,} documents; "
        f"{tally.incomplete:,} rows have fewer than wanted, {tally.without:,} of them none",
        file=sys.stderr,
    )
    print(
        f"left out: {tally.within_margin:,} too near to the query, {tally.like_positive:,} like the positive",
        file=sys.stderr,
    )
