"""The scripts under train/data: what they make of each set, and that nothing of evaluation is in it."""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent.parent / "train/data"
sys.path.insert(0, str(SCRIPTS))
import data_sets  # noqa: E402 - the scripts are no package: their folder is named first.
import prepare  # noqa: E402 - as above.

EVALUATION = "evaluation"
"""A word of every text of the small sets that must not get out."""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def jsonl(path: Path, *records: dict[str, Any]) -> None:
    write(path, "".join(json.dumps(record) + "\n" for record in records))


def tabs(path: Path, *rows: str) -> None:
    write(path, "".join(row.replace("|", "\t") + "\n" for row in rows))


def beir(folder: Path, *splits: str) -> None:
    """Two queries a split, one of them with two documents, and one that is judged 0."""
    texts = {split: "of training" if split == "train" else f"of {EVALUATION}" for split in splits}
    jsonl(
        folder / "queries.jsonl",
        *(
            {"_id": f"{split}_s{i}", "text": f"query {i} {text}", "answer": f"answer {i} {text}"}
            for split, text in texts.items()
            for i in range(2)
        ),
        {"_id": "train_g0", "text": "what any document answers", "answer": "anything"},
    )
    jsonl(
        folder / "corpus.jsonl",
        *(
            {"_id": f"{split}_d{i}", "title": f"title {i} {text}", "text": f"document {i} {text}"}
            for split, text in texts.items()
            for i in range(3)
        ),
    )
    for split in splits:
        rows = [f"{split}_s0|{split}_d0|1", f"{split}_s0|{split}_d1|1", f"{split}_s1|{split}_d2|2"]
        general = ["train_g0|train_d0|1"] if split == "train" else []
        tabs(folder / f"qrels/{split}.tsv", "query-id|corpus-id|score", *rows, *general, f"{split}_s1|{split}_d0|0")


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Every set, small. Each has a row of training whose text is one of evaluation, in another case or other spaces."""
    root = tmp_path / "sets"
    other = f"  An OTHER text of {EVALUATION.upper()} "
    for lang in ("en", "de"):
        write(
            root / f"stsb_multi/stsb-{lang}-train.csv", f'"a plane, {lang}",an air plane {lang},5.0\n"{other}",x,1.5\n'
        )
        for split in ("dev", "test"):
            write(
                root / f"stsb_multi/stsb-{lang}-{split}.csv", f'"{split}, {EVALUATION} {lang}",{EVALUATION} too,2.0\n'
            )
    sick = "pair_ID|sentence_A|sentence_B|relatedness_score|entailment_judgment"
    tabs(root / "sick2014/SICK_train.txt", sick, "1|a dog runs|a cat runs|3.2|NEUTRAL", f"2|{other}|y|1|NEUTRAL")
    for name in ("SICK_trial.txt", "SICK_test_annotated.txt"):
        tabs(root / f"sick2014/{name}", sick, f"1|a dog of {EVALUATION}|{EVALUATION} again|4|NEUTRAL")
    tabs(root / "jsts/train.tsv", "score|s1|s2", "3.8|二人の男性|2人の男性", f"0.5|{other}|z")
    for split in ("valid", "test"):
        tabs(root / f"jsts/{split}.tsv", "score|s1|s2", f"1.0|{split} {EVALUATION}|評価 {EVALUATION}")
    for name in ("cranfield", "vaswani", "msmarco_dl_5k"):
        beir(root / name, "test")
    beir(root / "jsquad_retrieval", "valid", "test")
    for lang in ("en", "ar"):
        jsonl(root / f"xquad/queries.{lang}.jsonl", {"_id": "q", "text": f"a query, {EVALUATION} {lang}", "rel": "p0"})
        jsonl(root / f"xquad/corpus.{lang}.jsonl", {"_id": "p0", "text": f"An other text of {EVALUATION}"})
    beir(root / "scitldr", "train", "dev", "test")
    beir(root / "qmsum", "train", "val", "test")
    beir(root / "jaquad_train", "train")
    write(root / "banking77/train.csv", f'text,category\n"my card, lost",lost\n"a\nsecond line",lost\n"{other}",lost\n')
    write(root / "banking77/test.csv", f"text,category\na card of {EVALUATION},lost\n")
    splits = {name: [[f"{name} {EVALUATION}", "oos"]] for name in ("val", "test", "oos_val", "oos_test")}
    clinc = splits | {"train": [["what is this in french", "translate"], [other, "translate"]], "oos_train": []}
    write(root / "clinc150/data_full.json", json.dumps(clinc))
    for name in ("EN", "EN-ext", "DE", "JP"):
        for split in ("train", "valid", "test"):
            text = f'"""I """"wish"""" it, {name} {split}"""' if split == "train" else f"{split} {EVALUATION} {name}"
            rows = ["sentence|is_counterfactual", f"{text}|1", f"it is, {name} {text.strip(chr(34))}|0"]
            tabs(root / f"amazon_counterfactual/{name}_{split}.tsv", *rows[:2] if split == "train" else rows)
    sib = ["split|index_id|category|text", f"dev|2|travel|dev {EVALUATION}", f"test|3|travel|test {EVALUATION}"]
    for lang in ("eng_Latn", "deu_Latn"):
        tabs(root / f"sib200/{lang}.tsv", *sib, f'train|1|travel|"""A quote,"" {lang}."', f"train|4|travel|{other}")
    for name in ("clu_biomedical", "clu_searchsnippets", "clu_agnews8k"):
        tabs(root / f"{name}/data.tsv", "label|text", f"1|{name} {EVALUATION}")
    tabs(root / "tatoeba_v1/tatoeba_v1.tsv", "lang|text|eng", f'deu|"Ein {EVALUATION}|An other text, of {EVALUATION}!')
    one, five = "en|de|fr|cs", "|".join(f"{lang}{i}" for lang in ("en", "de") for i in range(1, 6))
    for task, names in (("task1", one), ("task2", five)):
        columns = names.split("|")
        train = ["|".join(f'" image {i} {name} {task}' for name in columns) for i in range(3)]
        train[1] = "|".join(f"{EVALUATION}, excluded, {name} {task}" for name in columns)
        tabs(root / f"multi30k/{task}.train.tsv", names, *train)
        for split in ("val", "test_2016_flickr"):
            tabs(root / f"multi30k/{task}.{split}.tsv", names, "|".join(f"{EVALUATION} {name}" for name in columns))
    write(root / "multi30k/exclude_rows_sts_overlap.txt", "1\n")
    tabs(root / "pydocs_en_es/en_es.tsv", "en|es", '"Cell" objects|Los objetos celda', f"{other}|Texto")
    wordnet = ["synset|members|definition|examples", "1-n|penguin|a bird of the cold|", f"2-n|{other}|some definition|"]
    write(
        root / "oewn_definitions/definitions.tsv",
        "\n".join(
            [row.replace("|", "\t") for row in wordnet] + ["3-a\table; fit\thaving skill\table to swim | fit to go"]
        ),
    )
    turns = [f"turn {i} of a long enough dialogue" for i in range(3)]
    said = {
        "train": [*turns, "yes", turns[0]],
        "dev": [f"a turn of {EVALUATION} dev"],
        "test": [f"said in {EVALUATION}"],
    }
    rows = [f"{split}\t1\tHotels_1\t{' ||| '.join(texts)}" for split, texts in said.items()]
    head = 'split\tdialogue\tservices\tturns (USER first, alternating, separated by " ||| ")'
    write(root / "sgd_dialogues/dialogues.tsv", "\n".join([head, *rows]) + "\n")
    jsonl(
        root / "medquad/medquad.jsonl",
        {"question": "what is flu", "answer": "an illness"},
        {"question": other, "answer": "x"},
    )
    for name in ("acl_abstracts", "openstax", "arxiv_abstracts", "tech_docs", "us_gov_texts"):
        pair = {"anchor": f"a title, {name}", "positive": f"a text, {name}", "kind": "section"}
        jsonl(
            root / name / "data.jsonl",
            pair,
            pair,
            {"anchor": other, "positive": "x"},
            {"anchor": "Same", "positive": "same."},
        )
    for name in ("cv_sentences", "wellformed_questions"):
        jsonl(root / name / "data.jsonl", {"text": f"a sentence, {name}", "wellformed": 1.0}, {"text": other})
    return root


def prepared(unpacked: Path, output: Path, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    """The rows that are written of each set."""
    prepare.main([str(unpacked), str(output), *arguments])
    files = sorted(output.glob("*.jsonl"))
    return {path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in files}


def test_nothing_of_evaluation_gets_out(unpacked: Path, tmp_path: Path) -> None:
    written = prepared(unpacked, tmp_path / "rows")
    assert set(written) == {one.name for one in data_sets.DATA_SETS if one.rows}
    for name, rows in written.items():
        assert rows, name
        assert not [row for row in rows if EVALUATION in json.dumps(row).casefold()], name


def test_the_small_sets_would_let_it_out(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the comparison, that is: those sets whose fixture has no such row are named here."""
    monkeypatch.setattr(prepare, "held_out_texts", lambda *_: set())
    written = prepared(unpacked, tmp_path / "rows")
    leaking = {name for name, rows in written.items() if EVALUATION in json.dumps(rows).casefold()}
    by_split = {"scitldr", "qmsum", "jaquad_train", "amazon_counterfactual", "multi30k", "sgd_dialogues"}
    assert leaking == set(written) - by_split


def test_a_paper_that_is_in_two_splits(unpacked: Path, tmp_path: Path) -> None:
    """Its summary is another one, and its abstract may be; the title before it is the same."""
    corpus = unpacked / "scitldr/corpus.jsonl"
    text = corpus.read_text(encoding="utf-8")
    assert len(prepared(unpacked, tmp_path / "before", "scitldr")["scitldr"]) == 6
    corpus.write_text(text.replace("title 1 of training", f"Title 1 of {EVALUATION}"), encoding="utf-8")
    assert len(prepared(unpacked, tmp_path / "after", "scitldr")["scitldr"]) == 4


EXPECTED: dict[str, list[dict[str, Any]]] = {
    "stsb_multi": [
        {"sentence1": f"a plane, {lang}", "sentence2": f"an air plane {lang}", "score": 5.0} for lang in ("de", "en")
    ],
    "sick2014": [{"sentence1": "a dog runs", "sentence2": "a cat runs", "score": 3.2}],
    "jsts": [{"sentence1": "二人の男性", "sentence2": "2人の男性", "score": 3.8}],
    "scitldr": [
        {"anchor": "query 0 of training", "positive": "title 0 of training\ndocument 0 of training"},
        {"anchor": "title 0 of training", "positive": "document 0 of training"},
        {"anchor": "query 0 of training", "positive": "title 1 of training\ndocument 1 of training"},
        {"anchor": "title 1 of training", "positive": "document 1 of training"},
        {"anchor": "query 1 of training", "positive": "title 2 of training\ndocument 2 of training"},
        {"anchor": "title 2 of training", "positive": "document 2 of training"},
    ],
    "qmsum": [
        {"anchor": f"{kind} {query} of training", "positive": f"title {i} of training\ndocument {i} of training"}
        for query, i in ((0, 0), (0, 1), (1, 2))
        for kind in ("query", "answer")
    ],
    "banking77": [{"text": "my card, lost", "label": "lost"}, {"text": "a\nsecond line", "label": "lost"}],
    "clinc150": [{"text": "what is this in french", "label": "translate"}],
    "amazon_counterfactual": [
        {"text": f'I "wish" it, {name} train', "label": "counterfactual"} for name in ("DE", "EN-ext", "EN", "JP")
    ],
    "sib200": [{"text": f'"A quote," {lang}.', "label": "travel"} for lang in ("deu_Latn", "eng_Latn")],
    "multi30k": [
        {"anchor": f'" image {i} {a} {task}', "positive": f'" image {i} {b} {task}'}
        for task, pairs in (
            ("task2", ["en1 en2", "en3 en4", "de1 de2", "de3 de4", "en5 de5"]),
            ("task1", ["en de", "en fr", "en cs"]),
        )
        for i in (0, 2)
        for a, b in map(str.split, pairs)
    ],
    "pydocs_en_es": [{"anchor": '"Cell" objects', "positive": "Los objetos celda"}],
    "oewn_definitions": [
        {"anchor": "penguin", "positive": "a bird of the cold"},
        {"anchor": "able, fit", "positive": "having skill"},
        {"anchor": "having skill", "positive": "able to swim"},
        {"anchor": "having skill", "positive": "fit to go"},
    ],
    "sgd_dialogues": [
        {"anchor": f"turn {i} of a long enough dialogue", "positive": f"turn {i + 1} of a long enough dialogue"}
        for i in range(2)
    ],
    "medquad": [{"anchor": "what is flu", "positive": "an illness"}],
    "openstax": [{"anchor": "a title, openstax", "positive": "a text, openstax"}],
    "cv_sentences": [{"text": "a sentence, cv_sentences"}],
}


def test_rows(unpacked: Path, tmp_path: Path) -> None:
    written = prepared(unpacked, tmp_path / "rows")
    assert {name: written[name] for name in EXPECTED} == EXPECTED


def test_rows_are_those_that_training_reads(
    unpacked: Path, tmp_path: Path, rows_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("datasets")
    from jv5kit.errors import InputError
    from jv5kit.training.rows import open_source

    prepared(unpacked, tmp_path / "rows")
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/rows/sources.toml\n"
    assert "openstax: 1 rows (pairs); dropped 1 that evaluation uses, 2 repeated\n" in err
    kinds = {one.name: one.kind for one in data_sets.DATA_SETS}
    sources = tomllib.loads((tmp_path / "rows/sources.toml").read_text(encoding="utf-8"))["data"]
    assert len(sources) == 22
    for source in sources:
        assert source.keys() == {"path", "name", "licence"}
        try:
            opened = open_source(source["path"], name=source["name"])
        except InputError as error:
            # Of so small a set all labels or scores may be one.
            assert "every row has the label" in str(error) or "every score is" in str(error)
        else:
            assert opened.kind == kinds[opened.name]


def test_only_what_may_be_shipped(unpacked: Path, tmp_path: Path) -> None:
    written = prepared(unpacked, tmp_path / "rows", "--class", "A")
    text = (tmp_path / "rows/sources.toml").read_text(encoding="utf-8")
    assert not {"stsb_multi", "sick2014", "amazon_counterfactual", "multi30k"} & set(written)
    assert len(written) == text.count("# class A, ") == text.count("[[data]]") == 18


def test_named_sets(unpacked: Path, tmp_path: Path) -> None:
    assert set(prepared(unpacked, tmp_path / "rows", "jsts", "medquad")) == {"jsts", "medquad"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jsts", "glue"], "prepare: there is no set glue; the sets are stsb_multi, sick2014,"),
        (["xquad"], "prepare: xquad is for evaluation alone: nothing of it may be trained on"),
        (["multi30k", "--class", "AB"], "prepare: multi30k is of class C, which --class leaves out"),
        (["--class", "D"], "prepare: --class D is none of A, B, C, or several of them, as AB"),
        (["--class", ""], "prepare: --class  is none of A, B, C"),
    ],
)
def test_wrong_names(arguments: list[str], message: str, unpacked: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=re.escape(message)):
        prepare.main([str(unpacked), str(tmp_path / "rows"), *arguments])
    assert not (tmp_path / "rows").exists()


def test_missing_folders(unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="has none of the sets stsb_multi, "):
        prepare.main([str(tmp_path), str(tmp_path / "rows")])
    (unpacked / "jsts").rename(tmp_path / "jsts")
    with pytest.raises(SystemExit, match="has no folder jsts"):
        prepare.main([str(unpacked), str(tmp_path / "rows"), "jsts"])
    assert "jsts" not in prepared(unpacked, tmp_path / "rows")
    assert f"prepare: jsts not in {unpacked}: rows are not compared with them\n" in capsys.readouterr().err
