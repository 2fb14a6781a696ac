"""``jv5kit eval``, as a user runs it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Inside, run, write_jsonl
from mteb_tasks import retrieval

WORDS = ["penguin", "bird", "sea", "ice", "warm", "cold"]
TEXTS = [f"the {a} of {b}" for a in WORDS for b in WORDS]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a set of every kind but long documents, and what is none."""
    folder = tmp_path / "data"
    beir = folder / "birds"
    (beir / "qrels").mkdir(parents=True)
    write_jsonl(beir / "corpus.jsonl", [{"_id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)])
    write_jsonl(beir / "queries.jsonl", [{"_id": f"q{i}", "text": TEXTS[6 * i + i]} for i in range(6)])
    judged = "".join(f"q{i}\td{7 * i}\t1\nq{i}\td{6 * i + 5 - i}\t2\n" for i in range(6))
    (beir / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    labeled = [{"text": text, "label": i // 12} for i, text in enumerate(TEXTS)]
    pairs = [{"sentence1": a, "sentence2": b} for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]
    files: dict[str, list[Any]] = {
        "sts/en-test": [pair | {"score": len(set(pair["sentence1"]) & set(pair["sentence2"]))} for pair in pairs],
        "same/test": [pair | {"label": i % 2} for i, pair in enumerate(pairs)],
        "lines/test": pairs,
        "order/test": [{"query": "ice", "positive": TEXTS[18:20], "negative": TEXTS[:5]}],
        "sums/test": [{"text": TEXTS[0], "summaries": TEXTS[:3], "scores": [3, 1, 2]}],
        "topics/train": labeled,
        "topics/test": labeled[::5],
        "groups/clustering": labeled,
        "pairs-to-train/data": [{"anchor": "a", "positive": "b"}],
    }
    for name, rows in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_jsonl(folder / f"{name}.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    return folder


MEASURES = {
    "birds": ("retrieval", "nDCG@10"),
    "groups": ("clustering", "V-measure"),
    "lines": ("bitext", "accuracy"),
    "order": ("reranking", "MAP"),
    "same": ("pair-classification", "AP"),
    "sts/en": ("sts", "Spearman"),
    "sums": ("summarization", "Spearman"),
    "topics": ("classification", "accuracy"),
}


def test_every_kind_is_measured(data: Path, tiny_model: Path, inside: Inside) -> None:
    outcome = inside("eval", "--data", "data", "-m", tiny_model, "--json", "--dtype", "float32", "--plot", "plots")
    assert outcome.stdout.count("\n") == 1
    found = json.loads(outcome.stdout)
    assert {one["name"]: (one["kind"], one["metric"]) for one in found["sets"]} == MEASURES
    assert (found["model"], found["backend"], found["dtype"]) == (str(tiny_model), "native", "float32")
    assert found["dims"] == [64, 32]
    assert found["precisions"] == ["float32", "int8", "ubinary", "ubinary+codes", "ubinary+int8"]
    for one in found["sets"]:
        assert one["texts_per_second"] > 0
        assert all(-1 <= score[one["metric"]] <= 1 for score in one["scores"])
        searched = one["kind"] in ("retrieval", "bitext")
        queries = one["kind"] not in ("classification", "clustering")
        assert len(one["scores"]) == 2 * (3 + queries + searched)
    birds = found["sets"][0]
    assert (birds["texts"], birds["encoded"]) == ({"documents": 36, "queries": 6}, 42)
    lines = outcome.stderr.splitlines()
    assert "jv5kit: data: no evaluation set of the split test is in pairs-to-train" in lines
    assert "jv5kit: sts/en: sts, 36 left, 36 right" in lines
    kinds = [kind for kind, _ in MEASURES.values()]
    assert sorted(path.name for path in Path("plots").iterdir()) == sorted(
        f"{kind}-{what}.png" for kind in kinds for what in ("bytes", "dimensions")
    )
    assert lines[-1].startswith("plots/")


def test_the_table_of_what_is_asked_for(data: Path, tiny_model: Path, inside: Inside) -> None:
    arguments = ("--tasks", "b*,sts", "--dims", "64,40", "--precisions", "ubinary+int8,float32")
    outcome = inside("eval", "--data", "data", "-m", tiny_model, *arguments, "-q")
    assert outcome.stderr == ""
    lines = outcome.stdout.splitlines()
    assert lines[:5] == [
        "bytes a document",
        "  dim   float32  ubinary+int8",
        "   64       256            76",
        "   40       160            49",
        "",
    ]
    assert lines[5].startswith("birds: retrieval, nDCG@10 (36 documents, 6 queries; ")
    assert lines[6] == "  dim   float32  ubinary+int8"
    assert [len(line.split()) for line in lines[7:9]] == [3, 3]
    assert lines[9] == "recall@100"
    sts = next(number for number, line in enumerate(lines) if line.startswith("sts/en: sts, Spearman"))
    # There is nothing to rescore.
    assert [len(line.split()) for line in lines[sts + 2 : sts + 4]] == [2, 2]
    assert len(lines) == sts + 4


def test_shares_of_another_model_s_scores(data: Path, tiny_model: Path, inside: Inside) -> None:
    asked = ("eval", "-m", tiny_model, "--data", data, "--tasks", "birds,sts/en")
    scores = inside(*asked, "--dims", "64", "--precisions", "float32", "--json").stdout
    other = json.loads(scores)
    for one in other["sets"]:
        one["scores"][0][one["metric"]] /= 0.5
    Path("other.json").write_text(json.dumps(other | {"model": "large"}))
    small = (*asked, "--dims", "64,32", "--precisions", "float32", "--against", "other.json")
    against = json.loads(inside(*small, "--json").stdout)["against"]
    assert against["model"] == "large"
    assert [(one["name"], one["scores"][0]["share"]) for one in against["sets"]] == [("birds", 0.5), ("sts/en", 0.5)]
    lines = inside(*small).stdout.splitlines()
    table = lines[lines.index("share of large, float32") :]
    assert table[1].split() == ["there", "float32,", "64", "float32,", "32"]
    assert [line.split()[0] for line in table[2:]] == ["birds", "sts/en", "retrieval,", "sts,"]
    assert table[2].split()[2] == "50.0%"
    # What cannot be compared is said before anything is encoded, and before a model is loaded.
    message = inside(
        "eval", "-m", "nowhere", "--data", data, "--tasks", "same", "--against", "other.json", code=2
    ).stderr
    assert "nothing can be compared: the sets are same, and of large there are scores in float32 on birds" in message
    message = inside("eval", "--data", data, "--against", "missing.json", code=2).stderr
    assert "missing.json has no scores as 'jv5kit eval --json' prints them" in message


def test_a_folder_that_is_a_set_and_a_split(data: Path, tiny_model: Path, inside: Inside) -> None:
    write_jsonl(data / "sts" / "en-dev.jsonl", [{"sentence1": "a", "sentence2": "b", "score": i} for i in range(3)])
    outcome = inside("eval", "--data", data / "sts", "--split", "dev", "-m", tiny_model, "--json")
    (one,) = json.loads(outcome.stdout)["sets"]
    assert (one["name"], one["texts"]) == ("en", {"left": 3, "right": 3})


def test_long_documents_are_made_on_the_spot(tiny_model: Path, inside: Inside) -> None:
    outcome = inside(
        "eval", "--tasks", "long-documents", "--lengths", "96,512", "-m", tiny_model, "--json", "--dims", "64"
    )
    found = json.loads(outcome.stdout)
    assert [(one["name"], one["metric"]) for one in found["sets"]] == [
        ("passkey-96", "nDCG@1"),
        ("needle-96", "nDCG@1"),
    ]
    assert found["sets"][0]["texts"] == {"documents": 50, "queries": 50}
    assert found["skipped"] == ["passkey-512, needle-512: the model reads 96 tokens at most"]


def test_nothing_that_fits_is_an_error(tiny_model: Path, inside: Inside) -> None:
    outcome = inside("eval", "--tasks", "long-documents", "--lengths", "512", "-m", tiny_model, code=2)
    assert "passkey-512, needle-512: the model reads 96 tokens at most" in outcome.stderr


def test_mteb_runs_its_own_tasks(tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    birds = type(retrieval())
    monkeypatch.setitem(importlib.import_module("mteb.get_tasks")._TASKS_REGISTRY, "LocalBirds", birds)
    outcome = inside("eval", "--mteb", "LocalBirds", "-m", tiny_model, "--json", "--precisions", "float32,ubinary+int8")
    (one,) = json.loads(outcome.stdout)["sets"]
    assert (one["name"], one["kind"], one["metric"], one["encoded"]) == ("LocalBirds", "retrieval", "ndcg_at_10", 80)
    assert [(score["dim"], score["precision"]) for score in one["scores"]] == [
        (64, "float32"), (64, "ubinary+int8"), (32, "float32"), (32, "ubinary+int8")
    ]  # fmt: skip
    assert "jv5kit: LocalBirds: Retrieval of mteb" in outcome.stderr


def test_mteb_without_a_network(tiny_model: Path, inside: Inside) -> None:
    outcome = inside("eval", "--mteb", "NFCorpus", "-m", tiny_model, "--dims", "64", code=1)
    assert outcome.stderr.splitlines()[-1].startswith("jv5kit: mteb could not evaluate NFCorpus: ")
    assert inside("eval", "--mteb", "NoSuchTask", code=2).stderr.startswith("jv5kit: mteb has no task and no benchmark")


WRONG = [
    ((), "there is nothing to evaluate on: --data DIR names a folder of evaluation sets"),
    (("--tasks", "sts"), "there is nothing to evaluate on"),
    (("--data", "nowhere"), "there is no folder nowhere"),
    (("--data", "data", "--tasks", "sts,speed"), "--tasks speed is no kind of set (retrieval, "),
    (("--data", "data", "--tasks", "sts,,retrieval"), "--tasks 'sts,,retrieval' has nothing in front of a comma"),
    (("--data", "data", "--dims", "64,a"), "--dims a: it must be whole numbers from 1 on"),
    (("--data", "data", "--dims", "0"), "--dims 0: it must be whole numbers from 1 on"),
    (("--data", "data", "--dims", "65"), "dim 65 is outside 1..64, the model's dimensions"),
    (("--data", "data", "--dims", "20"), "dim 20 is not a multiple of 8, which ubinary needs"),
    (("--data", "data", "--precisions", "int4"), "--precisions int4 is not known; choose of float32, int8, ubinary, "),
    (("--data", "data", "--lengths", "512"), "--lengths is about the documents that --tasks long-documents makes"),
    (("--data", "data", "--split", "../x"), "--split '../x' is no name of a split"),
    (("--data", "data", "--split", "dev"), "data holds no evaluation set with a split 'dev'"),
    (("--data", "data", "--mteb", "NFCorpus"), "--mteb names tasks that have their own data and splits"),
    (("--mteb", "NFCorpus", "--split", "dev"), "--mteb names tasks that have their own data and splits"),
    (("--data", "data", "--plot", "data/birds/corpus.jsonl"), "--plot data/birds/corpus.jsonl cannot be made: "),
    (("--data", "data", "--backend", "fast"), "backend='fast' is not known"),
    (("--data", "data", "--dtype", "int4"), "dtype='int4' is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_arguments(
    data: Path, tiny_model: Path, inside: Inside, arguments: tuple[str, ...], message: str
) -> None:
    outcome = inside("eval", *arguments, "-m", tiny_model, code=2)
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines()[-1].startswith(f"jv5kit: {message}")


def test_a_bad_row_is_named_before_the_model_is_loaded(data: Path) -> None:
    with (data / "sts" / "en-test.jsonl").open("a") as file:
        file.write('{"sentence1": "a", "sentence2": "b"}\n')
    message = run("eval", "--data", "data", "-m", "no/model", code=2).stderr.splitlines()[-1]
    assert message == "jv5kit: sts/en: en-test.jsonl:37: 'score' is missing; the fields are 'sentence1', 'sentence2'"


def test_retrieval_and_sts_need_no_extra(
    data: Path, tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sklearn", "sklearn.cluster", "sklearn.exceptions", "sklearn.linear_model", "matplotlib", "mteb"):
        monkeypatch.setitem(sys.modules, name, None)
    kinds = "retrieval,sts,summarization,pair-classification,reranking,bitext"
    inside("eval", "--data", "data", "--tasks", kinds, "-m", tiny_model, "-q")
    for arguments, what in (
        (("--tasks", "classification"), "topics: classification needs scikit-learn"),
        (("--tasks", "clustering"), "groups: clustering needs scikit-learn"),
        (("--plot", "plots"), "--plot needs matplotlib"),
    ):
        outcome = inside("eval", "--data", "data", "-m", tiny_model, "-q", *arguments, code=1)
        assert outcome.stderr == f"jv5kit: {what}: pip install 'jv5kit[eval]'\n"
        assert outcome.stdout == ""
    assert "--mteb needs mteb" in inside("eval", "--mteb", "NFCorpus", "-m", tiny_model, code=1).stderr


def test_it_says_what_a_set_is() -> None:
    outcome = run("eval", "--help")
    for word in ("sentence1", "clustering.*", "qrels/test.tsv", "ubinary+codes", "long-documents"):
        assert word in outcome.stdout
