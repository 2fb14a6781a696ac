"""Training rows: pairs, scored pairs, labeled texts and texts, in files or on the hub, and where each of them stands.

A source is checked as a whole when it is first opened, in one pass that also stores it as Arrow (see
:mod:`jv5kit.training.store`); afterwards any row can be had at once, and memory does not grow with their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jv5kit.errors import InputError, Jv5kitError, MissingExtraError
from jv5kit.training.labels import LabelGroups
from jv5kit.training.reading import data_files
from jv5kit.training.store import ROW_FIELDS, checked_rows, columns_of, stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jv5kit.training.columns import Kind
    from jv5kit.training.store import Facts, Part


READ = 1024
"""Rows of a data set that are read together."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that belong together, a query and its document above all, and texts that do not belong to the first."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """Two texts and how near they are: any range, only the order of the scores matters."""

    sentence1: str
    sentence2: str
    score: float


@dataclass(frozen=True, slots=True)
class Labeled:
    """A text with a label, or with several."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A text by itself."""

    text: str


Row = Pair | Scored | Labeled | Text


def _row(kind: Kind, values: Sequence[Any]) -> Row:
    """The row of the values of its fields, in their order."""
    match kind:
        case "pairs":
            return Pair(values[0], values[1], tuple(values[2]))
        case "scored":
            return Scored(*values)
        case "labeled":
            return Labeled(values[0], tuple(values[1]))
        case "texts":
            return Text(*values)


class Source:
    """Rows of one kind; make one with :func:`open_source`.

    Attributes:
        name: for messages and metrics.
        kind: of every row.
        weight: how often a batch comes from here, against other sources.
        batch: rows a batch; None for the run's.
        length: tokens of a text that are read; None for the run's.
        labels: the rows of each label, of a source of labeled rows.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        facts: Facts,
        parts: Sequence[Part],
        *,
        weight: float = 1.0,
        batch: int | None = None,
        length: int | None = None,
    ) -> None:
        from datasets import Dataset

        self.name, self.kind, self.weight, self.batch, self.length = name, facts.kind, weight, batch, length
        self.labels = LabelGroups(folder, facts.rows) if facts.kind == "labeled" else None
        self._facts, self._parts = facts, parts
        self._data = Dataset.from_file(str(folder / "rows.arrow"))
        if len(self._data) != facts.rows:
            raise Jv5kitError(f"{folder} is damaged; remove it, and the rows are read again")
        self._rows = self._data.select_columns(list(ROW_FIELDS[facts.kind]))

    def __len__(self) -> int:
        """Number of rows."""
        return self._facts.rows

    def rows(self, positions: Sequence[int]) -> list[Row]:
        """The rows at some positions, each from 0 to below the length."""
        if not len(positions):
            return []
        columns: dict[str, list[Any]] = self._rows[list(positions)]
        values = zip(*(columns[name] for name in ROW_FIELDS[self.kind]), strict=True)
        return [_row(self.kind, value) for value in values]

    def origin(self, position: int) -> str:
        """Where a row was read, for messages: ``pairs.jsonl:17``."""
        place = self._data[position]
        part: Part = self._parts[place["part"]]
        return part.origin(place["number"])

    def fingerprint(self) -> str:
        """A checksum of all the rows in their order."""
        return self._facts.fingerprint


def open_source(
    path: str,
    *,
    weight: float = 1.0,
    batch: int | None = None,
    length: int | None = None,
    name: str | None = None,
) -> Source:
    """Open training rows.

    Args:
        path: a file (.jsonl, .csv, .tsv, each plain or .gz, or .parquet), a folder of such files that together are one
            source, or a data set of the hub: ``OWNER/NAME``, ``OWNER/NAME:CONFIG`` or ``OWNER/NAME:CONFIG:SPLIT``; the
            split is "train" if none is named.
        weight: how often a batch comes from here, against other sources; 0 never.
        batch: rows a batch, beats that of the run.
        length: tokens of a text that are read, beats that of the run.
        name: by default the name of the file, without its suffix, or of the data set.

    Raises:
        InputError: there is nothing that can be read, or a row is wrong: the message begins with ``file:line``.
        MissingExtraError: ``datasets`` is not installed.
    """
    try:
        import datasets  # noqa: F401 - before anything is read: without it nothing can be.
    except ImportError:
        raise MissingExtraError("training rows need datasets: pip install 'jv5kit[train]'") from None
    _check_options(path, weight, batch, length)
    file = Path(path)
    if not file.exists():
        if path.count("/") == 1 and not path.startswith((".", "/")) and not path.endswith("/") and not file.suffix:
            return _hub_source(path, name, weight, batch, length)
        raise InputError(f"there is no {path}: name a file, a folder, or a data set of the hub as OWNER/NAME")
    parts = data_files(file)
    states = [part.path.stat() for part in parts]
    state = [(part.path.name, info.st_size, info.st_mtime_ns) for part, info in zip(parts, states, strict=True)]
    name = name or (file.name if file.is_dir() else file.name.removesuffix(".gz").rpartition(".")[0])
    size = sum(info.st_size for info in states)
    folder, facts = stored(file.name, str(file.resolve()), state, parts, size, None)
    return Source(name, folder, facts, parts, weight=weight, batch=batch, length=length)


def read_rows(path: str) -> Iterator[tuple[Row, str]]:
    """The rows of a file or a folder, or of a data set of the hub, once in their order; files are not stored for it.

    Returns:
        Each row, with where it was read.

    Raises:
        InputError: as :func:`open_source`; a bad row when it is reached.
    """
    if not Path(path).exists():
        source = open_source(path)
        for start in range(0, len(source), READ):
            positions = range(start, min(start + READ, len(source)))
            yield from ((row, source.origin(at)) for at, row in zip(positions, source.rows(positions), strict=True))
        return
    parts = data_files(Path(path))
    columns = columns_of(Path(path).name, parts)
    for index, number, values in checked_rows(columns, parts):
        row = _row(columns.kind, [values[name] for name in ROW_FIELDS[columns.kind]])
        yield row, parts[index].origin(number)


def _check_options(path: str, weight: float, batch: int | None, length: int | None) -> None:
    if not 0 <= weight < float("inf"):
        raise InputError(f"{path}: weight={weight}; it must be 0 or more")
    for name, value in (("batch", batch), ("length", length)):
        if value is not None and value < 1:
            raise InputError(f"{path}: {name}={value}; it must be at least 1")


@dataclass(slots=True)
class _HubPart:
    """A data set of the hub, which ``datasets`` has downloaded and mapped."""

    name: str
    data: Any
    textual: bool = False
    done: int = 0

    def origin(self, number: int) -> str:
        return f"{self.name}: row {number}"

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        per_row = (self.data.dataset_size or 0) / max(len(self.data), 1)
        for number, record in enumerate(self.data, 1):
            self.done = int(per_row * number)
            yield number, record


def _hub_source(path: str, name: str | None, weight: float, batch: int | None, length: int | None) -> Source:
    import datasets

    repository, _, rest = path.partition(":")
    config, _, split = rest.partition(":")
    try:
        data = datasets.load_dataset(repository, config or None, split=split or "train")
    except Exception as error:
        # The library raises what it likes: no such set, no such split, no network, a configuration to be named.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot load {path} from the hub: {reason}; name it OWNER/NAME, OWNER/NAME:CONFIG or "
            "OWNER/NAME:CONFIG:SPLIT, or give a file"
        ) from None
    part = _HubPart(path, data)
    names = [_class_names(data.features[field]) for field in ("label", "labels") if field in data.features]
    state = [data._fingerprint, len(data)]
    folder, facts = stored(path, f"hub:{path}", state, [part], data.dataset_size or 0, names[0] if names else None)
    return Source(
        name or repository.rpartition("/")[2], folder, facts, [part], weight=weight, batch=batch, length=length
    )


def _class_names(feature: Any) -> list[str] | None:
    """The names of labels that are stored as numbers."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return list(names) if names else None
