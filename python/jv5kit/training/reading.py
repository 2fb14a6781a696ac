"""Files of training rows, record by record: JSON Lines, CSV, TSV and Parquet, none of them ever held in memory.

Every record comes with its number, the line on which it begins or the row of a Parquet file, so that what is wrong with
it can be said as ``file:line``. Blank lines are passed over, and counted.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast

from jv5kit.documents import MAX_LINE_BYTES, CutShortError, json_object, read_line
from jv5kit.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Numbered = Iterator[tuple[int, dict[str, Any]]]

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
"""What is read; each but Parquet may end in ``.gz`` too."""

PARQUET_ROWS = 1024
"""Rows of a Parquet file that are made Python objects at a time."""


@dataclass(slots=True)
class DataFile:
    """A file of records.

    Attributes:
        path: where it is.
        done: bytes of it that were read, for progress.
    """

    path: Path
    done: int = field(default=0, init=False)

    @property
    def suffix(self) -> str:
        """What is in it, whether compressed or not."""
        return self.path.with_suffix("").suffix if self.path.suffix == ".gz" else self.path.suffix

    @property
    def textual(self) -> bool:
        """Whether every value is a string, and an empty one stands for none."""
        return self.suffix in (".csv", ".tsv")

    def origin(self, number: int) -> str:
        """Where a record is, for messages."""
        return f"{self.path.name}: row {number}" if self.suffix == ".parquet" else f"{self.path.name}:{number}"

    def records(self) -> Numbered:
        """The number and the fields of each record.

        Raises:
            InputError: the file cannot be read, or is not what its name says, as ``file:line: what is wrong``.
            MissingExtraError: it is Parquet, and ``datasets`` is not installed.
        """
        if self.suffix == ".parquet":
            yield from self._parquet()
            return
        try:
            raw = self.path.open("rb")
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from None
        with raw:
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if self.path.suffix == ".gz" else raw
            yield from self._json(file, raw) if self.suffix == ".jsonl" else self._table(file, raw)

    def _json(self, file: IO[bytes], raw: IO[bytes]) -> Numbered:
        number = 0
        while True:
            number += 1
            try:
                line = read_line(file)
                if line is None:
                    return
                if line.isspace():
                    continue
                record = json_object(line, number)
            except (ValueError, CutShortError) as error:
                raise InputError(f"{self.origin(number)}: {error}") from None
            self.done = raw.tell()
            yield number, record

    def _table(self, file: IO[bytes], raw: IO[bytes]) -> Numbered:
        """The rows of CSV or TSV; a quoted field may go over several lines."""
        # The module's own limit, of 128 KiB a field, is for the whole process: it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        reader = csv.reader(self._lines(file), delimiter="," if self.suffix == ".csv" else "\t", strict=True)
        header: list[str] | None = None
        while True:
            number = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(
                    f"{self.origin(number)}: {error}; a field that begins with a quote must end with one, and a quote "
                    "inside it is written twice"
                ) from None
            self.done = raw.tell()
            if not row:
                continue
            if header is None:
                header = row
                if len(set(header)) < len(header):
                    raise InputError(f"{self.origin(number)}: the header {', '.join(header)} has a name twice")
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{self.origin(number)}: {len(row)} fields, but the header names {len(header)}: "
                    f"{', '.join(header)}; put a field that holds the separator in quotes"
                )
            yield number, dict(zip(header, row, strict=True))

    def _lines(self, file: IO[bytes]) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            try:
                line = read_line(file)
                if line is None:
                    return
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                reason = f"not UTF-8: {error.reason} at byte {error.start + 1} of the line"
                raise InputError(f"{self.origin(number)}: {reason}") from None
            except (ValueError, CutShortError) as error:
                raise InputError(f"{self.origin(number)}: {error}") from None
            yield text

    def _parquet(self) -> Numbered:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingExtraError(f"{self.path.name} needs datasets: pip install 'jv5kit[train]'") from None
        number, size = 0, self.path.stat().st_size
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(PARQUET_ROWS):
                    for record in batch.to_pylist():
                        number += 1
                        self.done = size * number // max(file.metadata.num_rows, 1)
                        yield number, record
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.origin(number + 1)}: cannot be read: {str(error).splitlines()[0]}") from None


def data_files(path: Path) -> list[DataFile]:
    """The file at a path, or those of the folder there, in the order of their names.

    Raises:
        InputError: the file is of a kind that is not read, or the folder has none that is.
    """
    if not path.is_dir():
        file = DataFile(path)
        if file.suffix not in SUFFIXES or path.name.endswith(".parquet.gz"):
            raise InputError(f"{path} is no file of rows; its name must end in {', '.join(SUFFIXES)} or .gz after it")
        return [file]
    found = [DataFile(file) for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in found if file.suffix in SUFFIXES]
    if not files:
        raise InputError(f"{path} has no file of rows, whose name ends in {', '.join(SUFFIXES)} or .gz after it")
    return files
