"""The sets: licence, kind, the rows to train on, and the texts that no training row may have.

Class A may be shipped: a clear open licence, redistributable with attribution. B is public and academic, without a
licence or with a mixed one; C is not for commercial use, or for research only. B and C serve experiments.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from set_layouts import Beir, content, json_lines, table, unquoted_twice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Class = Literal["A", "B", "C"]
Kind = Literal["pairs", "scored", "labeled", "texts"]

STSB = ["sentence1", "sentence2", "score"]

SHORTEST_TURN = 20
"""Characters of a turn of a dialogue that says something of its own."""


@dataclass(frozen=True)
class DataSet:
    """A set.

    Attributes:
        name: of its folder.
        licence: as the card of a model names it.
        letter: its class.
        kind: of its rows; None for a set that is for evaluation alone.
        rows: of its training split.
        held_out: texts of its other splits.
    """

    name: str
    licence: str
    letter: Class
    kind: Kind | None = None
    rows: Callable[[Path], Iterator[dict[str, Any]]] | None = None
    held_out: Callable[[Path], Iterator[str]] | None = None


def stsb_train(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("stsb-*-train.csv")):
        for row in table(path, quoted=True, names=STSB):
            yield row | {"score": float(row["score"])}


def stsb_held_out(folder: Path) -> Iterator[str]:
    for split in ("dev", "test"):
        for path in sorted(folder.glob(f"stsb-*-{split}.csv")):
            for row in table(path, quoted=True, names=STSB):
                yield from (row["sentence1"], row["sentence2"])


def sick_train(folder: Path) -> Iterator[dict[str, Any]]:
    for row in table(folder / "SICK_train.txt", quoted=False):
        score = float(row["relatedness_score"])
        yield {"sentence1": row["sentence_A"], "sentence2": row["sentence_B"], "score": score}


def sick_held_out(folder: Path) -> Iterator[str]:
    for name in ("SICK_trial.txt", "SICK_test_annotated.txt"):
        for row in table(folder / name, quoted=False):
            yield from (row["sentence_A"], row["sentence_B"])


def jsts_train(folder: Path) -> Iterator[dict[str, Any]]:
    for row in table(folder / "train.tsv", quoted=False):
        yield {"sentence1": row["s1"], "sentence2": row["s2"], "score": float(row["score"])}


def jsts_held_out(folder: Path) -> Iterator[str]:
    for split in ("valid", "test"):
        for row in table(folder / f"{split}.tsv", quoted=False):
            yield from (row["s1"], row["s2"])


def collection(folder: Path) -> Iterator[str]:
    """Every text of a retrieval set that is for evaluation alone; in several languages, of each."""
    for path in (*folder.glob("queries*.jsonl"), *folder.glob("corpus*.jsonl")):
        for record in json_lines(path):
            yield from _texts_of(record)


def judged_train(folder: Path) -> Iterator[dict[str, Any]]:
    for query, document in Beir(folder).judged("train"):
        yield {"anchor": query["text"], "positive": content(document)}


def judged_held_out(folder: Path) -> Iterator[str]:
    """The queries of the other splits, and the documents that answer them; the rest of the corpus is for both."""
    beir = Beir(folder)
    for split in beir.splits():
        if split != "train":
            for query, document in beir.judged(split):
                yield from _texts_of(query)
                yield from _texts_of(document)


def scitldr_train(folder: Path) -> Iterator[dict[str, Any]]:
    """Summary and paper; title and abstract."""
    for query, document in Beir(folder).judged("train"):
        yield {"anchor": query["text"], "positive": content(document)}
        yield {"anchor": document["title"], "positive": document["text"]}


def qmsum_train(folder: Path) -> Iterator[dict[str, Any]]:
    """A question, and its answer, each with the whole meeting; but for those that any meeting answers (kind g)."""
    for query, document in Beir(folder).judged("train"):
        if "_s" in query["_id"]:
            yield {"anchor": query["text"], "positive": content(document)}
            yield {"anchor": query["answer"], "positive": content(document)}


def banking_train(folder: Path) -> Iterator[dict[str, Any]]:
    for row in table(folder / "train.csv", quoted=True):
        yield {"text": row["text"], "label": row["category"]}


def banking_held_out(folder: Path) -> Iterator[str]:
    for row in table(folder / "test.csv", quoted=True):
        yield row["text"]


def clinc_train(folder: Path) -> Iterator[dict[str, Any]]:
    """The known intents; what is out of scope has nothing in common but that."""
    for text, label in json.loads((folder / "data_full.json").read_text(encoding="utf-8"))["train"]:
        yield {"text": text, "label": label}


def clinc_held_out(folder: Path) -> Iterator[str]:
    splits = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    for split in ("val", "test", "oos_val", "oos_test"):
        for text, _ in splits[split]:
            yield text


def counterfactual_train(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*_train.tsv")):
        for row in table(path, quoted=True):
            label = "counterfactual" if row["is_counterfactual"] == "1" else "factual"
            yield {"text": unquoted_twice(row["sentence"]), "label": label}


def counterfactual_held_out(folder: Path) -> Iterator[str]:
    for split in ("valid", "test"):
        for path in sorted(folder.glob(f"*_{split}.tsv")):
            for row in table(path, quoted=True):
                yield unquoted_twice(row["sentence"])


def sib_train(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.tsv")):
        for row in table(path, quoted=True):
            if row["split"] == "train":
                yield {"text": row["text"], "label": row["category"]}


def sib_held_out(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.tsv")):
        for row in table(path, quoted=True):
            if row["split"] != "train":
                yield row["text"]


def labeled_texts(folder: Path) -> Iterator[str]:
    for row in table(folder / "data.tsv", quoted=False):
        yield row["text"]


def tatoeba(folder: Path) -> Iterator[str]:
    for row in table(folder / "tatoeba_v1.tsv", quoted=False):
        yield from (row["text"], row["eng"])


def multi30k_train(folder: Path) -> Iterator[dict[str, Any]]:
    """Captions of one image, in one language and over two; without the images whose captions are in STS sets."""
    excluded = {int(line) for line in (folder / "exclude_rows_sts_overlap.txt").read_text(encoding="utf-8").split()}
    for name, pairs in (
        ("task2", ("en1 en2", "en3 en4", "de1 de2", "de3 de4", "en5 de5")),
        ("task1", ("en de", "en fr", "en cs")),
    ):
        for number, row in enumerate(table(folder / f"{name}.train.tsv", quoted=False)):
            if number not in excluded:
                for anchor, positive in map(str.split, pairs):
                    yield {"anchor": row[anchor], "positive": row[positive]}


def multi30k_held_out(folder: Path) -> Iterator[str]:
    excluded = {int(line) for line in (folder / "exclude_rows_sts_overlap.txt").read_text(encoding="utf-8").split()}
    for path in sorted(folder.glob("task*.tsv")):
        train = path.name.endswith(".train.tsv")
        for number, row in enumerate(table(path, quoted=False)):
            if not train or number in excluded:
                yield from row.values()


def wordnet(folder: Path) -> Iterator[dict[str, Any]]:
    """Words and their definition; a definition and each of its examples."""
    for row in table(folder / "definitions.tsv", quoted=False):
        yield {"anchor": row["members"].replace("; ", ", "), "positive": row["definition"]}
        for example in filter(None, row["examples"].split(" | ")):
            yield {"anchor": row["definition"], "positive": example}


def dialogue_train(folder: Path) -> Iterator[dict[str, Any]]:
    """A turn and the answer to it."""
    for row in table(folder / "dialogues.tsv", quoted=False):
        if row["split"] == "train":
            turns = _turns(row)
            for turn, answer in pairwise(turns):
                if min(len(turn), len(answer)) >= SHORTEST_TURN:
                    yield {"anchor": turn, "positive": answer}


def dialogue_held_out(folder: Path) -> Iterator[str]:
    for row in table(folder / "dialogues.tsv", quoted=False):
        if row["split"] != "train":
            yield from _turns(row)


def questions(folder: Path) -> Iterator[dict[str, Any]]:
    for record in json_lines(folder / "medquad.jsonl"):
        yield {"anchor": record["question"], "positive": record["answer"]}


def translations(folder: Path) -> Iterator[dict[str, Any]]:
    for row in table(folder / "en_es.tsv", quoted=False):
        yield {"anchor": row["en"], "positive": row["es"]}


def data_pairs(folder: Path) -> Iterator[dict[str, Any]]:
    for record in json_lines(folder / "data.jsonl"):
        yield {"anchor": record["anchor"], "positive": record["positive"]}


def data_texts(folder: Path) -> Iterator[dict[str, Any]]:
    for record in json_lines(folder / "data.jsonl"):
        yield {"text": record["text"]}


def _turns(row: dict[str, str]) -> list[str]:
    (turns,) = (value for name, value in row.items() if name.startswith("turns"))
    return turns.split(" ||| ")


def _texts_of(record: dict[str, Any]) -> Iterator[str]:
    """Whatever of a query or a document could be a text of a row."""
    yield content(record)
    yield from (record[name] for name in ("text", "title", "answer") if record.get(name))


DATA_SETS = [
    # Semantic similarity.
    DataSet("stsb_multi", "scores CC BY-SA 4.0, texts mixed", "B", "scored", stsb_train, stsb_held_out),
    DataSet("sick2014", "CC BY-NC-SA 3.0", "C", "scored", sick_train, sick_held_out),
    DataSet("jsts", "CC BY-SA 4.0", "A", "scored", jsts_train, jsts_held_out),
    # Retrieval.
    DataSet("cranfield", "none", "B", held_out=collection),
    DataSet("vaswani", "none", "B", held_out=collection),
    DataSet("msmarco_dl_5k", "MS MARCO, non-commercial", "C", held_out=collection),
    DataSet("xquad", "CC BY-SA 4.0", "A", held_out=collection),
    DataSet("jsquad_retrieval", "CC BY-SA 4.0", "A", held_out=collection),
    DataSet("scitldr", "Apache-2.0", "A", "pairs", scitldr_train, judged_held_out),
    DataSet("qmsum", "MIT", "A", "pairs", qmsum_train, judged_held_out),
    DataSet("jaquad_train", "CC BY-SA 3.0", "A", "pairs", judged_train),
    # Classification and clustering.
    DataSet("banking77", "CC BY 4.0", "A", "labeled", banking_train, banking_held_out),
    DataSet("clinc150", "CC BY 3.0", "A", "labeled", clinc_train, clinc_held_out),
    DataSet("amazon_counterfactual", "CC BY-NC 4.0", "C", "labeled", counterfactual_train, counterfactual_held_out),
    DataSet("sib200", "Apache-2.0, FLORES texts CC BY-SA 4.0", "A", "labeled", sib_train, sib_held_out),
    DataSet("clu_biomedical", "none", "B", held_out=labeled_texts),
    DataSet("clu_searchsnippets", "none", "B", held_out=labeled_texts),
    DataSet("clu_agnews8k", "none", "B", held_out=labeled_texts),
    # Texts that say the same, in one language or two.
    DataSet("tatoeba_v1", "CC BY 2.0 FR", "A", held_out=tatoeba),
    DataSet("multi30k", "Flickr30k captions, research use", "C", "pairs", multi30k_train, multi30k_held_out),
    DataSet("pydocs_en_es", "PSF-2.0", "A", "pairs", translations),
    # Everything else to train on.
    DataSet("oewn_definitions", "CC BY 4.0 and WordNet", "A", "pairs", wordnet),
    DataSet("sgd_dialogues", "CC BY-SA 4.0", "A", "pairs", dialogue_train, dialogue_held_out),
    DataSet("medquad", "CC BY 4.0", "A", "pairs", questions),
    DataSet("acl_abstracts", "CC BY 4.0", "A", "pairs", data_pairs),
    DataSet("openstax", "CC BY 4.0", "A", "pairs", data_pairs),
    DataSet("arxiv_abstracts", "CC0 1.0", "A", "pairs", data_pairs),
    DataSet("tech_docs", "CC BY-SA 4.0 and CC BY 4.0", "A", "pairs", data_pairs),
    DataSet("us_gov_texts", "public domain and CC0 1.0", "A", "pairs", data_pairs),
    DataSet("cv_sentences", "CC0 1.0", "A", "texts", data_texts),
    DataSet("wellformed_questions", "CC BY-SA 4.0", "A", "texts", data_texts),
]
