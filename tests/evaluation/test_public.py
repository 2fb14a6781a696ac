"""The layouts of public sources, each in a few rows of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from command import write_jsonl

from jv5kit.errors import InputError
from jv5kit.evaluation.folders import find_sets
from jv5kit.evaluation.tasks import Bitext, Pairs, Retrieval

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    return folder


def sets(folder: Path, split: str = "test") -> dict[str, Any]:
    found, _ = find_sets(folder, split)
    return {one.name: one.read() for one in found}


def test_sts_benchmark_has_no_header(tmp_path: Path) -> None:
    files = {
        "stsb-en-test.csv": 'a,"b, c",1.5\r\nd,e,2\r\n',
        "stsb-de-test.csv": "f,g,0\nh,i,1\n",
        "stsb-en-dev.csv": "j,k,1\nl,m,2\n",
    }
    folder = write(tmp_path / "stsb", files)
    assert sets(folder) == {
        "de": Pairs("sts", ("f", "h"), ("g", "i"), (0, 1)),
        "en": Pairs("sts", ("a", "d"), ("b, c", "e"), (1.5, 2)),
    }
    assert sets(folder, "dev") == {"en": Pairs("sts", ("j", "l"), ("k", "m"), (1, 2))}


def test_sick_is_relatedness_and_entailment(tmp_path: Path) -> None:
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    content = header + "1\ta\tb\t4.5\tENTAILMENT\n2\tc\td\t1\tNEUTRAL\n"
    folder = write(tmp_path / "sick", {"SICK_test_annotated.txt": content})
    assert sets(folder) == {
        "relatedness": Pairs("sts", ("a", "c"), ("b", "d"), (4.5, 1)),
        "entailment": Pairs("pair-classification", ("a", "c"), ("b", "d"), (1, 0)),
    }


def test_jsts_and_amazon_have_other_names_of_fields(tmp_path: Path) -> None:
    write(tmp_path / "jsts", {"test.tsv": "score\ts1\ts2\n4\ta\tb\n1\tc\td\n"})
    rows = "sentence\tis_counterfactual\n" + "a\t0\nb\t1\n" * 3
    write(tmp_path / "amazon", {"EN-ext_test.tsv": rows, "EN-ext_train.tsv": rows, "EN_valid.tsv": rows})
    write(tmp_path / "banking", {"test.csv": "text,category\na,x\nb,y\n", "train.csv": "text,category\na,x\nb,y\n"})
    found = sets(tmp_path)
    assert list(found) == ["amazon/EN-ext", "banking", "jsts"]
    assert found["jsts"] == Pairs("sts", ("a", "c"), ("b", "d"), (4, 1))
    assert found["amazon/EN-ext"].test_labels == [("0",), ("1",)] * 3
    assert found["banking"].test_labels == [("x",), ("y",)]


def test_clinc_is_one_json_file(tmp_path: Path) -> None:
    data = {"train": [["a", "x"], ["b", "y"]], "val": [["c", "x"]], "test": [["d", "y"]], "oos_test": [["e", "oos"]]}
    folder = write(tmp_path / "clinc", {"data_full.json": json.dumps(data)})
    found = sets(folder)["clinc"]
    assert (found.test, found.test_labels) == (["d"], [("y",)])
    assert sets(folder, "dev")["clinc"].test == ["c"]
    (folder / "data_full.json").write_text(json.dumps(data | {"test": [["d"]]}))
    with pytest.raises(InputError, match=r"clinc: data_full.json, test 1: 'label' is missing"):
        sets(folder)
    (folder / "data_full.json").write_text("{}")
    with pytest.raises(InputError, match="must be an object with the lists 'train' and 'test'"):
        sets(folder)
    (folder / "data_full.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        sets(folder)


def test_sib_is_three_kinds_of_sets(tmp_path: Path) -> None:
    header = "split\tindex_id\tcategory\ttext\n"
    english = header + "train\t1\tsport\tone\ntrain\t2\ttravel\ttwo\ntest\t3\tsport\tthree\ndev\t4\tsport\tfour\n"
    german = header + "test\t3\tsport\tdrei\ntrain\t1\tsport\teins\ndev\t4\tsport\tvier\ntrain\t2\ttravel\tzwei\n"
    folder = write(tmp_path / "sib", {"eng_Latn.tsv": english, "deu_Latn.tsv": german})
    found = sets(folder)
    assert list(found) == [
        "deu_Latn/classification", "deu_Latn/clustering", "deu_Latn/bitext",
        "eng_Latn/classification", "eng_Latn/clustering",
    ]  # fmt: skip
    assert found["deu_Latn/bitext"] == Bitext(["drei", "eins", "vier", "zwei"], ["three", "one", "four", "two"])
    assert (found["deu_Latn/classification"].train, found["deu_Latn/classification"].test) == (
        ["eins", "zwei"],
        ["drei"],
    )
    assert len(found["eng_Latn/clustering"].sentences) == 4
    assert list(sets(folder, "dev")) == ["deu_Latn/classification", "eng_Latn/classification"]
    write(folder, {"deu_Latn.tsv": german + "test\t9\tsport\tneun\n"})
    with pytest.raises(InputError, match=r"deu_Latn/bitext: deu_Latn.tsv:6: eng_Latn.tsv has no index_id 9"):
        sets(folder)


def test_tatoeba_keeps_its_quotation_marks(tmp_path: Path) -> None:
    content = 'lang\ttext\teng\nafr\t"Kan ek?" "Nee."\t"Can I?" "No."\ndeu\tJa.\tYes.\nafr\tGoed.\tGood.\n'
    folder = write(tmp_path / "tatoeba", {"tatoeba_v1.tsv": content})
    assert sets(folder) == {
        "afr": Bitext(('"Kan ek?" "Nee."', "Goed."), ('"Can I?" "No."', "Good.")),
        "deu": Bitext(("Ja.",), ("Yes.",)),
    }


def test_xquad_is_searched_in_its_language_and_in_english(tmp_path: Path) -> None:
    folder = tmp_path / "xquad"
    folder.mkdir()
    for language in ("en", "de"):
        write_jsonl(
            folder / f"corpus.{language}.jsonl", [{"_id": f"p{i}", "text": f"{language} {i}"} for i in range(2)]
        )
        write_jsonl(folder / f"queries.{language}.jsonl", [{"_id": "q", "text": f"{language}?", "rel": "p1"}])
    found = sets(folder)
    assert list(found) == ["de", "en", "de-en"]
    crossing = found["de-en"]
    assert isinstance(crossing, Retrieval)
    assert crossing.texts() == {"documents": ["en 0", "en 1"], "queries": ["de?"]}
    assert crossing.collection.qrels == {"q": {"p1": 1}}
    write_jsonl(folder / "queries.de.jsonl", [{"_id": "q", "text": "?", "rel": "p7"}])
    with pytest.raises(InputError, match=r"queries.de.jsonl:1: corpus.de.jsonl has no document 'p7'"):
        sets(folder)


def test_qmsum_is_asked_what_is_specific(tmp_path: Path) -> None:
    folder = tmp_path / "qmsum"
    (folder / "qrels").mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", [{"_id": "m", "text": "a meeting"}])
    queries = [{"_id": f"m_{kind}", "text": kind, "answer": "a", "kind": kind} for kind in "gs"]
    write_jsonl(folder / "queries.jsonl", queries)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nm_g\tm\t1\nm_s\tm\t1\n")
    found = sets(folder)["qmsum"]
    assert (found.kind, found.depth, found.collection.queries) == ("long-documents", 10, {"m_s": "s"})
    write_jsonl(folder / "queries.jsonl", [query | {"kind": "g"} for query in queries])
    with pytest.raises(InputError, match="has no query that is not general"):
        sets(folder)
