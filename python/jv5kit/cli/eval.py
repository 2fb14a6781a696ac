"""``jv5kit eval``: how good a model is, at every dimension and precision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jv5kit.cli.options import Json, Model, Quiet, Verbose, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.encoder import Encoder
    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.runner import Report, Result
    from jv5kit.evaluation.tasks import EvaluationSet

_MADE = "long-documents"
"""The kind of which there are sets that no folder holds."""


def evaluate(
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Evaluation sets: a folder that is one or holds some; or a file."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            metavar="NAME,…",
            help="Kinds of sets, or names of sets, * and ? in them (default: all in --data). 'long-documents' adds "
            "passkey and needle sets that are made on the spot.",
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", metavar="test|dev", help="Which part of each set.")] = "test",
    dims: Annotated[
        str | None,
        typer.Option("--dims", metavar="N,…", help="Dimensions to keep (default: all of the model, 1024 … 32 below)."),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(
            "--precisions",
            metavar="NAME,…",
            help="float32, int8, ubinary, ubinary+codes, ubinary+int8: what is kept of a document, and what candidates "
            "are rescored by (default: all).",
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            "--lengths", metavar="N,…", help="Tokens of the documents made on the spot (default: 256 … 32768)."
        ),
    ] = None,
    mteb: Annotated[
        str | None,
        typer.Option("--mteb", metavar="NAME,…", help="Tasks or a benchmark of mteb, which loads and scores them."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Scores of another model, as --json printed them: say what share of them this one reaches.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="DIR", help="Draw quality against bytes and dimensions: PNG files.")
    ] = None,
    model: Model = None,
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="native|torch", help="What runs the model (default: the faster).")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="NAME", help="Where torch runs it.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", metavar="float32|bfloat16", help="What matrices are multiplied in (default: fastest)."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure how good a model is: a table of dimensions and precisions for each evaluation set.

    A set is a folder. Retrieval: corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR has them. Others: rows in
    test.jsonl, .csv or .tsv, whose fields say what they are. sentence1, sentence2, score: sts. With label (1 or 0)
    instead: pair-classification. sentence1, sentence2 alone: bitext. query, positive, negative: reranking. text,
    summaries, scores: summarization. text, label (or labels, a list) with rows of the same in train.*: classification.
    text, label in clustering.*: clustering.

    Every text is encoded once, with the adapter of its kind. --json prints one object.
    """
    from jv5kit.encoder import Encoder
    from jv5kit.errors import InputError
    from jv5kit.evaluation.encoding import TextEncoder
    from jv5kit.evaluation.quantized import check_dims
    from jv5kit.evaluation.runner import Report, default_dims
    from jv5kit.logs import log_to_stderr

    log_to_stderr(quiet=quiet, verbose=verbose)
    wanted = _names("--tasks", tasks)
    kept, tokens = _numbers("--dims", dims), _numbers("--lengths", lengths)
    compared = _precisions(precisions)
    if mteb is not None and (data is not None or tasks is not None or lengths is not None or split != "test"):
        raise InputError(
            "--mteb names tasks that have their own data and splits: it cannot go with --data, --tasks, --split or "
            "--lengths"
        )
    if mteb is None and data is None and _MADE not in wanted:
        raise InputError(
            "there is nothing to evaluate on: --data DIR names a folder of evaluation sets (see 'jv5kit eval --help'), "
            f"--mteb NAME tasks of mteb, and --tasks {_MADE} has sets that are made on the spot"
        )
    if tokens and _MADE not in wanted:
        raise InputError(f"--lengths is about the documents that --tasks {_MADE} makes; give that too")
    if plot is not None:
        _check_plots(plot)
    other = None
    if against is not None:
        from jv5kit.evaluation.shares import read_scores

        other = read_scores(against)
    # The sets before the model: what is wrong with them is said at once.
    sets = _read(data, split, wanted) if mteb is None else []
    named = _mteb_tasks(mteb) if mteb is not None else []
    if other is not None and sets:
        from jv5kit.evaluation.shares import check_common

        check_common([name for name, _ in sets], other)
    # What is typed may be no backend and no dtype: that is found out, and said, there.
    encoder = Encoder.from_pretrained(model, backend=backend, device=device, dtype=dtype)  # type: ignore[arg-type]
    kept = kept or default_dims(encoder.dim)
    check_dims(kept, compared, encoder.dim)
    facts = {"backend": encoder.backend.name, "device": encoder.backend.device, "dtype": encoder.backend.dtype}
    report = Report(encoder.checkpoint.name, facts, kept, compared)
    talk = _Talk(report, other, json=json, quiet=quiet)
    texts = TextEncoder(encoder, show_progress_bar=False if quiet else None)
    if mteb is not None:
        from jv5kit.evaluation.mteb_adapter import run_tasks

        run_tasks(report, texts, named, talk.begin, talk.result)
    else:
        from jv5kit.evaluation.runner import run, usable

        if _MADE in wanted:
            sets += _made(report, encoder, tokens)
        sets = usable(report, encoder, sets, wanted)
        if not sets:
            raise InputError(f"nothing is left to evaluate on: {'; '.join(report.skipped)}")
        run(report, texts, sets, talk.begin, talk.result)
    talk.end()
    if plot is not None:
        from jv5kit.evaluation.plots import draw

        for path in draw(report, plot):
            print(path, file=sys.stderr)


class _Talk:
    """What is printed of a report as it grows: tables as they are known, or one object at the end."""

    def __init__(self, report: Report, other: dict[str, Any] | None, *, json: bool, quiet: bool) -> None:
        self._report = report
        self._other = other
        self._json = json
        self._quiet = quiet

    def begin(self, name: str, size: str) -> None:
        if not self._quiet:
            print(f"jv5kit: {name}: {size}", file=sys.stderr, flush=True)

    def result(self, result: Result) -> None:
        from jv5kit.evaluation.table import head_lines, set_lines

        if self._json:
            return
        first = len(self._report.results) == 1
        for line in (*(head_lines(self._report) if first else ()), *set_lines(self._report, result)):
            print(line)
        sys.stdout.flush()

    def end(self) -> None:
        from jv5kit.evaluation import shares
        from jv5kit.evaluation.table import tail_lines, to_json

        scores = to_json(self._report)
        try:
            if self._other is not None:
                found, model = shares.shares(scores, self._other), str(self._other.get("model"))
                scores["against"] = shares.to_json(found, model)
        finally:
            # What was measured is told, whether it can be compared or not.
            if self._json:
                print_json(scores)
            else:
                for line in tail_lines(self._report):
                    print(line)
        if self._other is not None and not self._json:
            print("", *shares.lines(found, model), sep="\n")


def _read(data: Path | None, split: str, wanted: Sequence[str]) -> list[tuple[str, EvaluationSet]]:
    """The sets of ``--data`` that are asked for."""
    from jv5kit.errors import InputError
    from jv5kit.evaluation.folders import choose, find_sets
    from jv5kit.evaluation.runner import check_extras
    from jv5kit.logs import logger

    if not split.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--split {split!r} is no name of a split, such as test or dev")
    found, strange = find_sets(data, split) if data is not None else ([], [])
    if strange:
        logger.warning("%s: no evaluation set of the split %s is in %s", data, split, ", ".join(strange))
    sets = [(one.name, one.read()) for one in (choose(found, wanted) if wanted else found)]
    check_extras(sets)
    return sets


def _mteb_tasks(names: str) -> list[Any]:
    from jv5kit.evaluation.mteb_adapter import tasks_named

    return tasks_named(_names("--mteb", names))


def _made(report: Report, encoder: Encoder, lengths: list[int]) -> list[tuple[str, EvaluationSet]]:
    """The sets of long documents that fit the model."""
    from jv5kit.evaluation.long_documents import LENGTHS, long_document_sets

    sets, skipped = long_document_sets(encoder, lengths or LENGTHS)
    report.skipped.extend(skipped)
    return [(one.name, one.read()) for one in sets]


def _names(option: str, value: str | None) -> list[str]:
    """The parts of an option's value, between commas."""
    from jv5kit.errors import InputError

    if value is None:
        return []
    names = [name.strip() for name in value.split(",")]
    if not all(names):
        raise InputError(f"{option} {value!r} has nothing in front of a comma or behind it")
    return list(dict.fromkeys(names))


def _numbers(option: str, value: str | None) -> list[int]:
    from jv5kit.errors import InputError

    names = _names(option, value)
    wrong = next((name for name in names if not (name.isascii() and name.isdigit() and 0 < int(name) < 1 << 31)), None)
    if wrong is not None:
        raise InputError(f"{option} {wrong}: it must be whole numbers from 1 on, with commas between them")
    return [int(name) for name in names]


def _precisions(value: str | None) -> list[StoredPrecision]:
    from jv5kit.errors import InputError
    from jv5kit.evaluation.quantized import STORED_PRECISIONS

    names = _names("--precisions", value)
    wrong = next((name for name in names if name not in STORED_PRECISIONS), None)
    if wrong is not None:
        raise InputError(f"--precisions {wrong} is not known; choose of {', '.join(STORED_PRECISIONS)}")
    return [known for known in STORED_PRECISIONS if not names or known in names]


def _check_plots(folder: Path) -> None:
    """Refuse what cannot be drawn before hours of work."""
    import importlib.util

    from jv5kit.errors import InputError, MissingExtraError

    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("--plot needs matplotlib: pip install 'jv5kit[eval]'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--plot {folder} cannot be made: {error.strerror}") from None
