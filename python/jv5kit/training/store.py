"""The rows of a source as Arrow files that are mapped into memory, written once and found again by any later run.

One pass over the data checks every row and writes it, with its line, in columns of a type that is fixed beforehand:
nothing is guessed from the first rows. Beside the Arrow file there is what was counted, and for labeled rows which rows
each label has. A folder is written aside and renamed, so that what is there is whole, whichever process wrote it::

    CACHE/rows/PATH-STATE/rows.arrow      the rows: Arrow IPC stream
                          facts.json      kind, number of rows, fingerprint, files
                          labels.json     the labels; groups.npy, starts.npy: see labels.py
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jv5kit.errors import InputError, MissingExtraError
from jv5kit.progress import ProgressBar
from jv5kit.training.columns import Columns, Kind
from jv5kit.training.labels import LabelWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

FORMAT = 1
"""Counted up when what is stored changes: folders of another one are not found."""

FLUSH_ROWS, FLUSH_CHARACTERS = 10_000, 8 << 20
"""Rows, or characters, that are written together: they bound the memory. Fingerprints depend on them."""

WORTH_A_BAR = 16 << 20
"""Bytes of data from which on a bar is shown on a terminal."""

ABANDONED = 24 * 3600
"""Seconds without a new file after which what is written aside belongs to no run any more."""

MIB = 1 << 20


class Part(Protocol):
    """A file, or a data set of the hub."""

    @property
    def textual(self) -> bool:
        """As in :class:`Columns`."""

    @property
    def done(self) -> int:
        """Bytes that were read."""

    def origin(self, number: int) -> str:
        """Where a record is."""

    def records(self) -> Iterable[tuple[int, dict[str, Any]]]:
        """The number and the fields of each record."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was counted in the pass over a source: its kind, its rows, and a checksum of them all in their order."""

    kind: Kind
    rows: int
    fingerprint: str


def cache_folder() -> Path:
    """Where sources are kept: under ``JV5KIT_CACHE``, else beside what ``datasets`` keeps."""
    named = os.environ.get("JV5KIT_CACHE")
    if named:
        return Path(named) / "rows"
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / "jv5kit-rows"


def stored(
    name: str, path: str, state: Sequence[object], parts: Sequence[Part], size: int, label_names: Sequence[str] | None
) -> tuple[Path, Facts]:
    """The folder of a source, written first if it is not there.

    Args:
        name: of the source, for messages.
        path: what tells it from others.
        state: what tells it from what was at that path before.
        parts: its data.
        size: bytes of them all, for progress.
        label_names: of labels that are numbers.

    Raises:
        InputError: a row is wrong, or the cache cannot be written.
    """
    cache = cache_folder()
    stem = hashlib.blake2b(path.encode(), digest_size=10).hexdigest()
    folder = cache / f"{stem}-{hashlib.blake2b(repr((FORMAT, *state)).encode(), digest_size=10).hexdigest()}"
    facts = _facts(folder)
    if facts is None:
        with _writable(cache):
            cache.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{stem}-", dir=cache))
        try:
            with _writable(cache):
                facts = _write(aside, name, parts, size, label_names)
                _sweep(cache, stem, folder)
                try:
                    aside.rename(folder)
                except OSError:
                    # Another process was faster, with the same rows.
                    if _facts(folder) != facts:
                        raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder, facts


def _sweep(cache: Path, stem: str, folder: Path) -> None:
    """Remove what the source was before, a folder that lost a file, and what a killed run left; open maps stay."""
    for old in cache.glob(f"{stem}-*"):
        if old != folder or _facts(old) is None:
            shutil.rmtree(old, ignore_errors=True)
    for aside in cache.glob(f".{stem}-*"):
        # Another process may be done with it by now.
        with suppress(FileNotFoundError):
            if time.time() - aside.stat().st_mtime > ABANDONED:
                shutil.rmtree(aside, ignore_errors=True)


def _facts(folder: Path) -> Facts | None:
    """The facts of a whole folder."""
    try:
        return Facts(**json.loads((folder / "facts.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _writable(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {cache}: {error.strerror or error}; JV5KIT_CACHE names a folder with room for the rows"
        ) from None


def _write(folder: Path, name: str, parts: Sequence[Part], size: int, label_names: Sequence[str] | None) -> Facts:
    """One pass over all records: check, write and count them."""
    columns = columns_of(name, parts, label_names)
    labels = LabelWriter(folder) if columns.kind == "labeled" else None
    show = None if size >= WORTH_A_BAR else False
    scores: tuple[float, float] | None = None
    with (
        _RowFile(folder / "rows.arrow", columns.kind) as file,
        ProgressBar(f"Reading {name}", lambda: -(-size // MIB), "MiB", show=show) as progress,
    ):
        for index, number, row in checked_rows(columns, parts, progress):
            if labels is not None:
                labels.add(file.rows, row["labels"])
            elif columns.kind == "scored":
                score = row["score"]
                scores = (min(scores[0], score), max(scores[1], score)) if scores else (score, score)
            file.add(row | {"part": index, "number": number})
    if scores and scores[0] == scores[1]:
        raise InputError(f"{name}: every score is {scores[0]:g}; what is learned is their order, so they must differ")
    if labels is not None:
        _check_labels(name, columns, labels)
        labels.close()
    facts = Facts(columns.kind, file.rows, file.fingerprint())
    (folder / "facts.json").write_text(json.dumps(asdict(facts)), encoding="utf-8")
    return facts


def _check_labels(name: str, columns: Columns, labels: LabelWriter) -> None:
    if len(labels.counts) == 1:
        raise InputError(
            f"{name}: every row has the {columns.label} {labels.names[0]!r}; there must be two at least, or there is "
            "nothing to tell apart"
        )
    if max(labels.counts) == 1:
        raise InputError(f"{name}: no two rows have the same {columns.label}; some must, to be drawn to each other")


def columns_of(name: str, parts: Sequence[Part], label_names: Sequence[str] | None = None) -> Columns:
    """The columns of a source, by its first record.

    Raises:
        InputError: there is none, or it tells no kind.
    """
    for part in parts:
        for number, record in part.records():
            return Columns.of(record, part.origin(number), textual=part.textual, label_names=label_names)
    raise InputError(f"{name} has no row")


def checked_rows(
    columns: Columns, parts: Sequence[Part], progress: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The part, the number and the checked values of each record; ``progress`` is called with MiB.

    Raises:
        InputError: a record is wrong, or of another kind.
    """
    finished = shown = 0
    for index, part in enumerate(parts):
        of_part = columns if index == 0 else None
        for number, record in part.records():
            if of_part is None:
                of_part = _same_kind(columns, part, number, record)
            try:
                row = of_part.row(record)
            except ValueError as error:
                raise InputError(f"{part.origin(number)}: {error}") from None
            yield index, number, row
            done = (finished + part.done) // MIB
            if done > shown:
                progress(done - shown)
                shown = done
        finished += part.done


def _same_kind(columns: Columns, part: Part, number: int, record: dict[str, Any]) -> Columns:
    """The columns of a further file, which may have synonyms of its own, though not another kind."""
    found = Columns.of(record, part.origin(number), textual=part.textual, label_names=columns.label_names)
    if found.kind != columns.kind:
        raise InputError(
            f"{part.origin(number)}: here are {found.kind}, but {columns.kind} in the files before; name files of "
            "different kinds as sources of their own"
        )
    return found


class _RowFile:
    """An Arrow file that is written row by row."""

    def __init__(self, path: Path, kind: Kind) -> None:
        try:
            import pyarrow as pa
        except ImportError:
            raise MissingExtraError("training rows need datasets: pip install 'jv5kit[train]'") from None
        types = {"score": pa.float64(), "labels": pa.list_(pa.string()), "negatives": pa.list_(pa.string())}
        places = {"part": pa.int32(), "number": pa.int64()}
        names = ROW_FIELDS[kind]
        self._pa = pa
        self._schema = pa.schema({name: types.get(name, pa.string()) for name in names} | places)
        self._file = path.open("wb")
        self._writer = pa.ipc.new_stream(self._file, self._schema)
        self._values = names
        self._waiting: list[dict[str, Any]] = []
        self._characters = 0
        self._digest = hashlib.blake2b(kind.encode(), digest_size=16)
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        self._characters += sum([len(value) for value in row.values() if type(value) is str])
        self.rows += 1
        if len(self._waiting) >= FLUSH_ROWS or self._characters >= FLUSH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = {name: [row[name] for row in self._waiting] for name in self._schema.names}
        # The rows themselves, wherever they came from: a file that was compressed meanwhile is the same data.
        values = [columns[name] for name in self._values]
        self._digest.update(json.dumps(values, ensure_ascii=False).encode())
        self._writer.write_batch(self._pa.RecordBatch.from_pydict(columns, schema=self._schema))
        self._waiting.clear()
        self._characters = 0

    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def __enter__(self) -> _RowFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._writer.close()
        finally:
            self._file.close()


ROW_FIELDS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("anchor", "positive", "negatives"),
    "scored": ("sentence1", "sentence2", "score"),
    "labeled": ("text", "labels"),
    "texts": ("text",),
}
"""The fields of a row of each kind, in the order of its class."""
