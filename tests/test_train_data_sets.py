"""Nothing of evaluation is in the rows made of the public sets, which are read here in another way than there.

``JV5KIT_TEST_DATA`` names a folder with the sets, unpacked.
"""

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "train/data"))
import prepare

SPLIT_FILES = [
    "stsb_multi/*-dev.csv",
    "stsb_multi/*-test.csv",
    "sick2014/SICK_t[er][si]*.txt",
    "jsts/valid.tsv",
    "jsts/test.tsv",
    "banking77/test.csv",
    "amazon_counterfactual/*_valid.tsv",
    "amazon_counterfactual/*_test.tsv",
    "clu_*/data.tsv",
    "tatoeba_v1/tatoeba_v1.tsv",
    "multi30k/*.val.tsv",
    "multi30k/*.test*.tsv",
    *(
        f"{name}/{kind}*.jsonl"
        for name in ("cranfield", "vaswani", "msmarco_dl_5k", "xquad", "jsquad_retrieval")
        for kind in ("corpus", "queries")
    ),
]


def lines(path: Path) -> list[str]:
    """The lines of a file; some texts have what Python takes for the end of another one."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def cells(path: Path) -> Iterator[str]:
    """Every field of a file with more than a number or a label in it, once with quotes taken and once as it is."""
    if path.suffix == ".jsonl":
        for line in lines(path):
            record = json.loads(line)
            yield from (record[name] for name in ("text", "title") if record.get(name))
        return
    separator = "," if path.suffix == ".csv" else "\t"
    labels = {"category", "label", "lang", "entailment_judgment", "is_counterfactual"}
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        if separator == "," and quoting == csv.QUOTE_NONE:
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter=separator, quoting=quoting)
            first = next(rows)
            header = first if first[0].isidentifier() or "_" in first[0] else None
            for row in rows if header else [first, *rows]:
                names = header or [""] * len(row)
                yield from (value for name, value in zip(names, row, strict=False) if name not in labels)


def held_out_of(root: Path) -> Iterator[str]:
    for pattern in SPLIT_FILES:
        paths = sorted(root.glob(pattern))
        assert paths, pattern
        for path in paths:
            yield from cells(path)
    for split, rows in json.loads((root / "clinc150/data_full.json").read_text(encoding="utf-8")).items():
        if split not in ("train", "oos_train"):
            yield from (text for text, _ in rows)
    for path in sorted((root / "sib200").glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            yield from (row["text"] for row in csv.DictReader(file, delimiter="\t") if row["split"] != "train")
    for line in lines(root / "sgd_dialogues/dialogues.tsv")[1:]:
        split, _, _, turns = line.split("\t")
        if split != "train":
            yield from turns.split(" ||| ")
    for name in ("scitldr", "qmsum"):
        for qrels in (root / name / "qrels").glob("*.tsv"):
            if qrels.stem != "train":
                judged = {key for line in lines(qrels)[1:] for key in line.split("\t")[:2]}
                for kind in ("queries", "corpus"):
                    for line in lines(root / name / f"{kind}.jsonl"):
                        record = json.loads(line)
                        if record["_id"] in judged:
                            yield from (record[key] for key in ("text", "title", "answer") if record.get(key))


def plain(text: str) -> str:
    return " ".join(text.lower().split())


@pytest.mark.skipif("JV5KIT_TEST_DATA" not in os.environ, reason="JV5KIT_TEST_DATA names no folder with the sets")
def test_nothing_of_evaluation_is_in_the_rows_of_the_sets_themselves(tmp_path: Path) -> None:
    root = Path(os.environ["JV5KIT_TEST_DATA"])
    evaluated = set(map(plain, held_out_of(root))) - {""}
    assert len(evaluated) > 300_000
    excluded = set(map(int, (root / "multi30k/exclude_rows_sts_overlap.txt").read_text(encoding="utf-8").split()))
    for task in ("task1", "task2"):
        rows = lines(root / f"multi30k/{task}.train.tsv")[1:]
        evaluated |= {plain(cell) for number in excluded for cell in rows[number].split("\t")}
    prepare.main([str(root), str(tmp_path)])
    count = 0
    for path in sorted(tmp_path.glob("*.jsonl")):
        for line in lines(path):
            count += 1
            for name, value in json.loads(line).items():
                if isinstance(value, str) and name != "label":
                    assert plain(value) not in evaluated, (path.name, line)
                    assert all(plain(part) not in evaluated for part in value.split("\n", 1)), (path.name, line)
    assert count > 700_000
