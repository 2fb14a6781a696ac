"""Rows of every kind out of every kind of file, where each stands, and what is refused."""

import csv
import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import RowsFile

from jv5kit.errors import InputError, MissingExtraError
from jv5kit.training import store
from jv5kit.training.rows import Labeled, Pair, Row, Scored, Text, open_source

pytestmark = pytest.mark.usefixtures("rows_cache")


def rows(path: Path | str) -> list[Row]:
    source = open_source(str(path))
    return source.rows(range(len(source)))


def refused(path: Path | str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_source(str(path), **options)
    return str(caught.value)


KINDS: list[tuple[str, dict[str, Any], Row]] = [
    ("pairs", {"anchor": "a", "positive": "p"}, Pair("a", "p")),
    ("pairs", {"query": "a", "document": "p", "negative": "n"}, Pair("a", "p", ("n",))),
    ("pairs", {"question": "a", "answer": "p", "id": 3}, Pair("a", "p")),
    (
        "pairs",
        {"anchor": "a", "positive": "p", "negative_10": "j", "negative_2": "b", "negative_1": None},
        Pair("a", "p", ("b", "j")),
    ),
    ("pairs", {"anchor": "a", "positive": "p", "negatives": ["m", "n"]}, Pair("a", "p", ("m", "n"))),
    ("pairs", {"anchor": "é", "positive": "漢字\nand a line"}, Pair("é", "漢字\nand a line")),
    ("scored", {"sentence1": "a", "sentence2": "b", "score": -2}, Scored("a", "b", -2.0)),
    ("labeled", {"text": "a", "label": "x"}, Labeled("a", ("x",))),
    ("labeled", {"text": "a", "label": 3}, Labeled("a", ("3",))),
    ("labeled", {"text": "a", "labels": ["x", "y", "x"]}, Labeled("a", ("x", "y"))),
    ("texts", {"text": "a", "wellformed": 0.5}, Text("a")),
]

# What each kind needs beside the row that is looked at.
OTHERS: dict[str, list[dict[str, Any]]] = {
    "scored": [{"sentence1": "c", "sentence2": "d", "score": 7.5}],
    "labeled": [{"text": "b", "label": "z", "labels": ["z", "x"]}, {"text": "c", "label": "z", "labels": ["z"]}],
}


@pytest.mark.parametrize(("kind", "record", "expected"), KINDS)
def test_kinds_by_their_fields(kind: str, record: dict[str, Any], expected: Row, rows_file: RowsFile) -> None:
    source = open_source(str(rows_file([record, *OTHERS.get(kind, [])])))
    assert source.kind == kind
    assert source.name == "rows"
    assert source.rows([0]) == [expected]
    assert source.rows([]) == []


TABLE = [
    ("a", "plain", "n"),
    ("b, with a comma\tand a tab", 'a "quote"', ""),
    ("c", "two\nlines\n\nand more", "n"),
    ("d", "the last", "n"),
]
LINES = [2, 3, 4, 9]


def write_table(path: Path, delimiter: str) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(["anchor", "positive", "negative"])
        writer.writerows(TABLE[:3])
        file.write("\n")
        writer.writerows(TABLE[3:])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz"])
def test_tables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix.removesuffix('.gz')}"
    write_table(path, "," if ".csv" in suffix else "\t")
    if suffix.endswith(".gz"):
        path.with_suffix(suffix).write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_suffix(suffix)
    source = open_source(str(path))
    expected = [Pair(anchor, positive, (negative,) if negative else ()) for anchor, positive, negative in TABLE]
    assert source.rows(range(4)) == expected
    # A quoted field goes over several lines, and a blank one is passed over.
    assert [source.origin(i) for i in range(4)] == [f"{path.name}:{line}" for line in LINES]


def test_numbers_and_labels_of_tables(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("sentence1,sentence2,score\r\na,b, 2.5\r\nc,d,1e-3\r\n", encoding="utf-8")
    assert rows(tmp_path / "s.csv") == [Scored("a", "b", 2.5), Scored("c", "d", 0.001)]
    (tmp_path / "l.tsv").write_text("label\ttext\nx;y\ta\nx;y\tb\n7\tc\n", encoding="utf-8")
    assert rows(tmp_path / "l.tsv") == [Labeled("a", ("x;y",)), Labeled("b", ("x;y",)), Labeled("c", ("7",))]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    columns = {"anchor": ["a", "b"], "positive": ["p", "q"], "negatives": [["n"], None]}
    pq.write_table(pa.table(columns), path)
    source = open_source(str(path))
    assert source.rows([1, 0, 1]) == [Pair("b", "q"), Pair("a", "p", ("n",)), Pair("b", "q")]
    assert source.origin(1) == "rows.parquet: row 2"
    pq.write_table(pa.table(columns | {"positive": ["p", None]}), path)
    assert refused(path) == "rows.parquet: row 2: 'positive' is missing; every row needs a text there"
    path.write_bytes(path.read_bytes()[:-9])
    assert refused(path).startswith("rows.parquet: row 1: cannot be read: ")


def test_a_line_is_where_it_is_counted_with_blank_ones(rows_file: RowsFile) -> None:
    lines: list[dict[str, str] | str] = ["", {"text": "a"}, "  \t", "", {"text": "b"}, "", {"text": "c"}]
    source = open_source(str(rows_file(lines)))
    assert [source.origin(i) for i in range(3)] == ["rows.jsonl:2", "rows.jsonl:5", "rows.jsonl:7"]
    assert refused(rows_file([*lines, {"text": " "}])).startswith("rows.jsonl:8: 'text' is empty")


def test_folder_is_one_source(rows_file: RowsFile, tmp_path: Path) -> None:
    rows_file([{"anchor": "a", "positive": "p"}] * 3, "set/1.jsonl")
    rows_file([{"query": "b", "answer": "q"}], "set/2.jsonl")
    (tmp_path / "set/3.csv").write_text("question,answer\nc,r\n", encoding="utf-8")
    (tmp_path / "set/README.md").write_text("no data", encoding="utf-8")
    source = open_source(str(tmp_path / "set"), weight=2, batch=3, length=4)
    assert (source.name, source.weight, source.batch, source.length, len(source)) == ("set", 2, 3, 4, 5)
    assert source.rows([3, 4]) == [Pair("b", "q"), Pair("c", "r")]
    assert [source.origin(i) for i in (2, 3, 4)] == ["1.jsonl:3", "2.jsonl:1", "3.csv:2"]
    rows_file(["", {"text": "b"}], "set/4.jsonl")
    assert refused(tmp_path / "set").startswith("4.jsonl:2: here are texts, but pairs in the files before; name files")


GOOD: dict[str, dict[str, Any]] = {
    "pairs": {"anchor": "a", "positive": "p"},
    "scored": {"sentence1": "a", "sentence2": "b", "score": 1},
    "labeled": {"text": "a", "label": "x"},
}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("pairs", {"positive": None}, "'positive' is missing; every row needs a text there"),
        ("pairs", {"anchor": "\n "}, "'anchor' is empty; give it a text, or leave the row out"),
        ("pairs", {"anchor": 5}, "'anchor' is 5; it must be a string"),
        ("pairs", {"positive": {"text": "p"}}, "'positive' is an object; it must be a string"),
        ("pairs", {"negative_1": ""}, "'negative_1' is empty"),
        ("pairs", {"negatives": ["n", 1]}, "'negatives[1]' is 1; it must be a string"),
        ("pairs", {"negatives": "n\0"}, "'negatives' has a NUL character"),
        ("pairs", {"anchor": "\ud800"}, "'anchor' has half of a surrogate pair"),
        ("scored", {"score": "2"}, "'score' is '2'; it must be a number"),
        ("scored", {"score": True}, "'score' is True; it must be a number"),
        ("scored", {"score": None}, "'score' is missing"),
        ("scored", {"score": 10**400}, "'score' is inf; it must be finite"),
        ("labeled", {"label": None}, "'label' is missing or empty; every row needs one"),
        ("labeled", {"label": []}, "'label' is an empty list; every row needs a label"),
        ("labeled", {"label": 0.5}, "'label' has 0.5; a label is a string that is not empty, or a whole number"),
    ],
)
def test_a_bad_row_late_in_a_file(kind: str, change: dict[str, Any], message: str, rows_file: RowsFile) -> None:
    """Later than whatever types are guessed by: the message names the line, not a type of Arrow."""
    bad = json.dumps(GOOD[kind] | change)
    path = rows_file([GOOD[kind]] * 1500 + [bad])
    assert refused(path).startswith(f"rows.jsonl:1501: {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "rows.jsonl:3: not JSON: "),
        ("[1]", "rows.jsonl:3: not a JSON object, but a list"),
        ('{"sentence1": "a", "sentence2": "b", "score": NaN}', "rows.jsonl:3: NaN is not JSON"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1e999}', "rows.jsonl:3: 'score' is inf; it must be finite"),
    ],
)
def test_bad_lines(line: str, message: str, rows_file: RowsFile) -> None:
    assert refused(rows_file([GOOD["scored"], "", line])).startswith(message)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("anchor,positive\na,b\nc\n", "r.csv:3: 1 fields, but the header names 2: anchor, positive"),
        ("anchor,positive\na,b\nc,d,e\n", "r.csv:3: 3 fields, but the header names 2: anchor, positive"),
        ("anchor,positive\n\na,\n", "r.csv:3: 'positive' is empty"),
        ('anchor,positive\n"a\n\nb",c\nd,"e"f\n', "r.csv:5: "),
        ('anchor,positive\na,b\nc,"d\n', "r.csv:3: unexpected end of data; a field that begins with a quote"),
        ("anchor,anchor\na,b\n", "r.csv:1: the header anchor, anchor has a name twice"),
        ("sentence1,sentence2,score\na,b,1\nc,d,high\n", "r.csv:3: 'score' is 'high'; it must be a number"),
        ("sentence1,sentence2,score\na,b,1\nc,d,nan\n", "r.csv:3: 'score' is nan; it must be finite"),
        ("text,label\na,x\nb,\n", "r.csv:3: 'label' is missing or empty"),
        ("anchor,positive\na,\xe9\n", "r.csv:2: not UTF-8: "),
        ("anchor,positive\n", "r.csv has no row"),
    ],
)
def test_bad_tables(table: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(table.encode("latin-1"))
    assert refused(tmp_path / "r.csv").startswith(message)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "rows.jsonl has no row"),
        ([{"a": "x", "b": "y"}], "rows.jsonl:1: the fields are a, b; a row needs anchor and positive"),
        ([{"anchor": "x", "b": "y"}], "rows.jsonl:1: there is 'anchor', but no 'positive' (or document, answer)"),
        ([{"answer": "x"}], "rows.jsonl:1: there is 'answer', but no 'anchor' (or query, question)"),
        ([{"sentence1": "x", "sentence2": "y"}], "rows.jsonl:1: 'score' is missing; name the sentences anchor and"),
        ([{"sentence2": "y", "score": 1}], "rows.jsonl:1: 'sentence1' is missing"),
        ([GOOD["labeled"]] * 3, "rows.jsonl: every row has the label 'x'; there must be two at least"),
        ([{"text": "a", "label": i} for i in range(3)], "rows.jsonl: no two rows have the same label"),
        ([GOOD["scored"]] * 3, "rows.jsonl: every score is 1; what is learned is their order"),
    ],
)
def test_bad_sources(records: list[dict[str, Any]], message: str, rows_file: RowsFile, rows_cache: Path) -> None:
    assert refused(rows_file(records)).startswith(message)
    assert not list(rows_cache.glob("rows/*"))
    assert not list(rows_cache.glob("rows/.*"))


def test_bad_arguments(tmp_path: Path, rows_file: RowsFile) -> None:
    path = rows_file([{"text": "a"}])
    assert refused(tmp_path / "none.jsonl").startswith(f"there is no {tmp_path}/none.jsonl")
    assert "its name must end in .jsonl, .csv, .tsv, .parquet" in refused(rows_file([], "rows.txt"))
    assert "has no file of rows" in refused(rows_file([], "empty/rows.txt").parent)
    assert refused(path, weight=-1).endswith("weight=-1; it must be 0 or more")
    assert refused(path, weight=float("nan")).endswith("weight=nan; it must be 0 or more")
    assert refused(path, batch=0).endswith("batch=0; it must be at least 1")
    assert refused(path, length=0).endswith("length=0; it must be at least 1")
    damaged = tmp_path / "rows.jsonl.gz"
    damaged.write_bytes(gzip.compress(b'{"text": "a"}\n' * 5000)[:-20])
    assert refused(damaged).startswith("rows.jsonl.gz:")


def test_it_is_read_once(rows_file: RowsFile, monkeypatch: pytest.MonkeyPatch, rows_cache: Path) -> None:
    path = rows_file([{"text": "a"}])
    reads = []
    write = store._write

    def counted(*arguments: Any) -> store.Facts:
        reads.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(store, "_write", counted)
    assert rows(path) == rows(path) == [Text("a")]
    assert len(reads) == 1
    rows_file([{"text": "b"}, {"text": "c"}])
    assert rows(path) == [Text("b"), Text("c")]
    # What it was before is gone from the cache.
    assert len(list(rows_cache.glob("rows/*"))) == 1
    next(rows_cache.glob("rows/*/facts.json")).write_text("{", encoding="utf-8")
    assert rows(path) == [Text("b"), Text("c")]
    assert len(reads) == 3


def test_fingerprint_is_of_the_rows_in_their_order(rows_file: RowsFile, tmp_path: Path) -> None:
    records = [{"text": f"text {i}"} for i in range(10)]
    plain = open_source(str(rows_file(records))).fingerprint()
    packed = tmp_path / "other.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    assert open_source(str(packed)).fingerprint() == plain
    assert open_source(str(rows_file(records[::-1], "turned.jsonl"))).fingerprint() != plain
    assert open_source(str(rows_file(records[:-1], "short.jsonl"))).fingerprint() != plain
    labeled = [record | {"label": i % 2} for i, record in enumerate(records)]
    assert open_source(str(rows_file(labeled, "labeled.jsonl"))).fingerprint() != plain


def test_a_cache_that_cannot_be_written(rows_file: RowsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rows_file([{"text": "a"}])
    monkeypatch.setenv("JV5KIT_CACHE", str(path))
    message = refused(path)
    assert message.startswith(f"cannot write {path}/rows: ")
    assert "JV5KIT_CACHE names a folder with room" in message


def test_several_at_once(rows_file: RowsFile, rows_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the processes of one run do: each writes the rows aside, and there is one copy in the end."""
    path = rows_file([{"text": f"text {i}"} for i in range(20)])
    both_began = threading.Barrier(2, timeout=30)
    write = store._write

    def slow_write(*arguments: Any) -> store.Facts:
        both_began.wait()
        return write(*arguments)

    monkeypatch.setattr(store, "_write", slow_write)
    with ThreadPoolExecutor(2) as pool:
        assert list(map(len, pool.map(rows, [path, path]))) == [20, 20]
    assert [len(list(rows_cache.glob(f"rows/{pattern}"))) for pattern in ("*", ".*")] == [1, 0]


def test_what_another_process_finishes_meanwhile(
    rows_file: RowsFile, rows_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rows_file([{"text": f"text {i}"} for i in range(20)])
    stem = hashlib.blake2b(str(path.resolve()).encode(), digest_size=10).hexdigest()
    theirs = rows_cache / "rows" / f".{stem}-theirs"
    theirs.mkdir(parents=True)

    class Clock:
        @staticmethod
        def time() -> float:
            # Between the listing of the folder and the look at this one.
            if theirs.exists():
                theirs.rmdir()
            return time.time()

    monkeypatch.setattr(store, "time", Clock)
    assert len(rows(path)) == 20
    assert not theirs.exists()


def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``datasets`` is asked as for any data set of the hub; its named labels come back as their names."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["cold", "warm"])}
    )
    data = datasets.Dataset.from_dict({"text": ["ice", "sun", "snow"], "label": [0, 1, 0]}, features=features)
    asked = []

    def load_dataset(*names: Any, split: str) -> datasets.Dataset:
        asked.append((*names, split))
        return data

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source("owner/weather:daily:validation", weight=0.5)
    assert (source.name, source.weight, source.kind) == ("weather", 0.5, "labeled")
    assert source.rows([2, 1]) == [Labeled("snow", ("cold",)), Labeled("sun", ("warm",))]
    assert source.origin(2) == "owner/weather:daily:validation: row 3"
    open_source("owner/weather")
    assert asked == [("owner/weather", "daily", "validation"), ("owner/weather", None, "train")]


def test_hub_out_of_reach() -> None:
    message = refused("no-owner-has/this-set")
    assert message.startswith("cannot load no-owner-has/this-set from the hub: ")
    assert "OWNER/NAME:CONFIG:SPLIT" in message


def test_without_datasets(rows_file: RowsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rows_file([{"text": "a"}])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'jv5kit\[train\]'"):
        open_source(str(path))


# `JV5KIT_TEST_ROWS=100000000` takes hours, and no more memory.
MANY = int(os.environ.get("JV5KIT_TEST_ROWS", "9_000"))


def test_memory_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FLUSH_ROWS", 500)
    monkeypatch.setattr("jv5kit.training.labels.BLOCK", 500)

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f'{{"text": "a text, number {i}", "label": {i % 9}}}\n' for i in range(count))
        tracemalloc.start()
        source = open_source(str(path))
        assert source.rows([count - 1]) == [Labeled(f"a text, number {count - 1}", (str((count - 1) % 9),))]
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(10)
    assert peak(MANY) < 1.2 * peak(MANY // 3)


def test_nothing_is_loaded_before_it_is_used() -> None:
    """The command line knows its options, and mines, without these seconds."""
    program = "import sys, jv5kit.training.batches; print(*{'datasets', 'pyarrow', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"\n"
