from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from command import write_jsonl

from jv5kit.errors import InputError
from jv5kit.evaluation.folders import choose, find_sets
from jv5kit.evaluation.tasks import Bitext, Classification, Clustering, Pairs, Reranking, Retrieval, Summaries

if TYPE_CHECKING:
    from pathlib import Path

PAIR = {"sentence1": "a", "sentence2": "b"}


def only(folder: Path, split: str = "test") -> Any:
    """The one set of a folder, read."""
    (found,), strange = find_sets(folder, split)
    assert not strange
    data = found.read()
    assert data.kind == found.kind
    return data


def labels(names: str) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": name} for i, name in enumerate(names)]


def test_pairs_with_scores_are_sts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [PAIR | {"score": 2}, PAIR | {"score": "3.5"}])
    assert only(tmp_path) == Pairs("sts", ("a", "a"), ("b", "b"), (2.0, 3.5))


def test_pairs_with_labels_are_classified(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text('sentence1\tsentence2\tlabel\n"a ""quoted"" one"\tb\t1\nc\td\t0\n')
    assert only(tmp_path) == Pairs("pair-classification", ('a "quoted" one', "c"), ("b", "d"), (1.0, 0.0))


def test_pairs_alone_are_translations(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text('\ufeffsentence1,sentence2\n"eins, zwei","one, two"\r\n\ndrei,three\n', "utf-8")
    assert only(tmp_path) == Bitext(("eins, zwei", "drei"), ("one, two", "three"))


def test_queries_with_candidates_are_reranked(tmp_path: Path) -> None:
    row = {"query": "q", "positive": "p", "negative": ["n", "m"]}
    with gzip.open(tmp_path / "test.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    assert only(tmp_path) == Reranking(["q"], [["p", "n", "m"]], [[True, False, False]])
    assert only(tmp_path).texts() == {"documents": ["p", "n", "m"], "queries": ["q"]}


def test_summaries(tmp_path: Path) -> None:
    rows = [
        {"text": "long", "summaries": ["s", "t"], "scores": [1, 2]},
        {"text": "alike", "summaries": ["s", "t"], "scores": [1, 1]},
        {"text": "long", "summaries": ["u", "v"], "scores": [2, 1], "references": ["r", "q"]},
    ]
    write_jsonl(tmp_path / "test.jsonl", rows)
    found = only(tmp_path)
    assert found == Summaries([["long"], ["r", "q"]], [["s", "t"], ["u", "v"]], [[1, 2], [2, 1]])
    assert found.texts() == {"references": ["long", "r", "q"], "summaries": ["s", "t", "u", "v"]}


def test_labels_with_a_train_file_are_predicted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", labels("ab" * 20))
    write_jsonl(tmp_path / "test.jsonl", labels("abba"))
    found: Classification = only(tmp_path)
    assert (found.test_labels, found.multilabel) == ([("a",), ("b",), ("b",), ("a",)], False)
    drawn = [[(found.train[row], found.train_labels[row]) for row in draw] for draw in found.draws]
    assert {row for draw in drawn for row in draw} == set(zip(found.train, found.train_labels, strict=True))
    assert all(
        label == (row["label"],)
        for draw in drawn
        for text, label in draw
        for row in labels("ab" * 20)
        if row["text"] == text
    )
    assert all(len(draw) == 16 for draw in drawn)


def test_lists_of_labels_are_multilabel(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "t", "labels": ["a", 2]},
        {"text": "u", "labels": []},
        {"text": "v", "labels": ["b"]},
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "test.jsonl", rows)
    found: Classification = only(tmp_path)
    assert (found.test_labels, found.multilabel) == ([("a", "2"), (), ("b",)], True)
    assert found.train == ["t", "v"]


@pytest.mark.parametrize("name", ["clustering.jsonl", "data.jsonl", "news-clustering.jsonl"])
def test_labels_in_a_file_that_says_so_are_clusters(tmp_path: Path, name: str) -> None:
    write_jsonl(tmp_path / name, labels("aab"))
    assert only(tmp_path) == Clustering(("text 0", "text 1", "text 2"), ("a", "a", "b"))


def test_a_file_alone_is_a_set(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "mine.jsonl", [PAIR | {"score": 1}, PAIR | {"score": 2}])
    (found,), _ = find_sets(tmp_path / "mine.jsonl")
    assert (found.name, found.kind) == ("mine", "sts")
    write_jsonl(tmp_path / "clustering.jsonl", labels("aab"))
    (found,), _ = find_sets(tmp_path / "clustering.jsonl")
    assert found.kind == "clustering"
    write_jsonl(tmp_path / "other.jsonl", [{"what": "is this"}])
    with pytest.raises(InputError, match=r"other\.jsonl is no evaluation set"):
        find_sets(tmp_path / "other.jsonl")


def test_folders_are_searched_and_files_have_words_before_their_split(tmp_path: Path) -> None:
    beir = tmp_path / "found" / "birds"
    (beir / "qrels").mkdir(parents=True)
    write_jsonl(beir / "corpus.jsonl", [{"_id": "d", "text": "a bird"}])
    write_jsonl(beir / "queries.jsonl", [{"_id": "q", "text": "bird"}])
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    (beir / "qrels" / "valid.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t2\n")
    sts = tmp_path / "sts"
    sts.mkdir()
    for name in ("en-test", "de_test", "en.dev"):
        write_jsonl(sts / f"{name}.jsonl", [PAIR | {"score": 1}, PAIR | {"score": 2}])
    (tmp_path / "train-only").mkdir()
    write_jsonl(tmp_path / "train-only" / "data.jsonl", [{"anchor": "a", "positive": "b"}])
    (tmp_path / ".hidden").mkdir()
    write_jsonl(tmp_path / ".hidden" / "test.jsonl", [PAIR])
    found, strange = find_sets(tmp_path)
    assert [(one.name, one.kind) for one in found] == [
        ("found/birds", "retrieval"),
        ("sts/de", "sts"),
        ("sts/en", "sts"),
    ]
    assert strange == ["train-only"]
    found, strange = find_sets(tmp_path, "dev")
    assert [one.name for one in found] == ["found/birds", "sts/en"]
    retrieval = found[0].read()
    assert isinstance(retrieval, Retrieval)
    assert retrieval.collection.qrels == {"q": {"d": 2}}
    assert [one.name for one in find_sets(beir)[0]] == ["birds"]
    assert [one.name for one in find_sets(sts)[0]] == ["de", "en"]


def test_sets_are_chosen_by_kind_and_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "test.jsonl", [PAIR | ({"score": 1} if name == "one" else {})])
    found, _ = find_sets(tmp_path)
    assert [one.name for one in choose(found, ["sts"])] == ["one"]
    assert [one.name for one in choose(found, ["t?o", "o*"])] == ["one", "two"]
    assert [one.name for one in choose(found, ["long-documents", "bitext"])] == ["two"]
    with pytest.raises(InputError, match="--tasks retrieval finds no set; --data has one, two"):
        choose(found, ["retrieval"])
    with pytest.raises(InputError, match=r"--tasks three is no kind of set \(retrieval, .*\), nor the name of one"):
        choose(found, ["sts", "three"])
    with pytest.raises(InputError, match="--tasks sts finds no set; there is no --data"):
        choose([], ["sts"])


AB = '"sentence1": "a", "sentence2": "b"'
SUMMARIES = '"text": "t", "summaries": ["a", "b"]'
BAD = [
    ("test.jsonl", f'{{{AB}, "score": 1}}\n{{"sentence1": "a", "score": 1}}\n',
     "test.jsonl:2: 'sentence2' is missing; the fields are 'sentence1', 'score'"),
    ("test.jsonl", f'{{{AB}, "score": 1}}\n{{"sentence1": " ", "sentence2": "b", "score": 1}}\n',
     "test.jsonl:2: 'sentence1' is ' '; it must be a text that is not empty"),
    ("test.jsonl", f'{{{AB}, "score": "high"}}', "'score' is 'high'; it must be a finite number"),
    ("test.jsonl", f'{{{AB}, "score": 1e999}}', "'score' is inf; it must be a finite number"),
    ("test.jsonl", f'{{{AB}, "score": true}}', "'score' is True; it must be a finite number"),
    ("test.jsonl", f'{{{AB}, "score": 1}}\n' * 2, "every score is 1.0: there is no order"),
    ("test.jsonl", f'{{{AB}, "label": 2}}', "'label' is '2'; it must be 1 for a pair"),
    ("test.jsonl", f'{{{AB}, "label": 1}}\n' * 2, "every label is 1; there must be pairs of both"),
    ("test.jsonl", '{"query": "q", "positive": [], "negative": "n"}', "'positive' is an empty list"),
    ("test.jsonl", '{"query": "q", "positive": [3], "negative": "n"}', "'positive' is 3; it must be a text"),
    ("test.jsonl", '{"text": "t", "summaries": ["a"], "scores": [1, 2]}', "there are 1 summaries and 2 scores"),
    ("test.jsonl", f'{{{SUMMARIES}, "scores": [1, null]}}', "'scores' is None"),
    ("test.jsonl", f'{{{SUMMARIES}, "scores": [1, 1]}}', "no row has summaries of different scores"),
    ("test.jsonl", f'{{{SUMMARIES}, "scores": 4}}', "'scores' is 4; it must be a list of numbers"),
    ("test.jsonl", '{"sentence1": "a\\u0000", "sentence2": "b"}', "'sentence1' has a NUL character"),
    ("test.jsonl", '{"sentence1": "a\\ud800", "sentence2": "b"}', "'sentence1' has half of a surrogate pair"),
    ("test.tsv", "sentence1\tsentence2\na\tb\nc\n", "test.tsv:3: 1 fields; there must be 2: sentence1, sentence2"),
    ("clustering.jsonl", '{"text": "t", "label": "a"}\n' * 3, "every label is 'a'; clusters need at least two"),
    ("clustering.jsonl", '{"text": "t", "label": 1.5}', "'label' is 1.5; it must be a label"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_rows_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text(content)
    (found,), _ = find_sets(tmp_path)
    with pytest.raises(InputError) as caught:
        found.read()
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine: ")


NOT_EVEN_FOUND = [
    ({}, "holds no evaluation set with a split 'test'"),
    ({"test.jsonl": "{}\n"}, "holds no evaluation set with a split 'test'"),
    ({"test.jsonl": ""}, "test.jsonl has no row"),
    ({"test.tsv": "sentence1\tsentence2\n"}, "test.tsv has no row"),
    ({"test.jsonl": '{"text"\n'}, "test.jsonl:1: not JSON"),
    ({"test.jsonl": '{"text": "t", "label": "a"}\n'}, "no train file beside it: .* name it clustering.jsonl"),
    ({"test.csv": b"a\xff,b\n"}, "test.csv: not UTF-8: invalid start byte at byte 2"),
    ({"test.tsv": 'sentence1\tsentence2\n"a" b\tc\n'}, "test.tsv:2: .* quoted as in CSV"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "message"), NOT_EVEN_FOUND)
def test_what_is_no_set_is_named(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        find_sets(tmp_path)


def test_labels_that_cannot_be_learned(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", labels("ab"))
    bad: list[tuple[list[dict[str, Any]], str]] = [
        (labels("aaa"), "the train rows have 1 label"),
        (labels("cd"), "no label of the test rows is in the train rows"),
        ([*labels("ab"), {"text": "t", "labels": ["a"]}], "train.jsonl:3: some rows have 'label' and some 'labels'"),
        ([{"text": "t", "labels": "a"}], "train.jsonl:1: 'labels' is 'a'; it must be a list of labels"),
    ]
    for train, message in bad:
        write_jsonl(tmp_path / "train.jsonl", train)
        with pytest.raises(InputError, match=message):
            only(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        find_sets(tmp_path / "nowhere")
