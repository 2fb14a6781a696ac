"""Evaluation sets in the layouts of their public sources, where those differ from ours.

A layout is known by the names of its files and the fields of their rows, not by the name of its folder.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from jv5kit.documents import document_from_record, read_records
from jv5kit.errors import InputError
from jv5kit.evaluation.beir import Collection, read_beir
from jv5kit.evaluation.layouts import SPLITS, Found, classification_of, clustering_of, scored_pairs
from jv5kit.evaluation.rows import Row, first_row, read_rows
from jv5kit.evaluation.tasks import Bitext, Pairs, Retrieval

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jv5kit.evaluation.tasks import Classification, EvaluationSet


def sts_benchmark(folder: Path, split: str) -> list[Found]:
    """The STS benchmark in several languages (stsb_multi_mt): ``stsb-LANGUAGE-SPLIT.csv`` without a header."""
    columns = ("sentence1", "sentence2", "score")

    def read(path: Path) -> Pairs:
        return scored_pairs(path, read_rows(path, columns=columns))

    paths = sorted(folder.glob(f"stsb-*-{split}.csv"))
    return [Found(path.name.split("-")[1], "sts", partial(read, path)) for path in paths]


def sick(folder: Path, split: str) -> list[Found]:
    """SICK 2014: relatedness as STS, and whether a sentence entails the other as pair classification."""
    name = {"train": "SICK_train.txt", "dev": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}.get(split)
    if name is None or not (folder / name).is_file():
        return []
    path = folder / name

    def entailment() -> Pairs:
        items = [
            (row.text("sentence1"), row.text("sentence2"), float(row.label("entailment_judgment") == "ENTAILMENT"))
            for row in read_rows(path)
        ]
        left, right, labels = zip(*items, strict=True)
        return Pairs("pair-classification", left, right, labels)

    return [
        Found("relatedness", "sts", partial(scored_pairs, path)),
        Found("entailment", "pair-classification", entailment),
    ]


def clinc(folder: Path, split: str) -> list[Found]:
    """CLINC150: ``data_full.json``, lists of a text and its intent by split; those out of scope are left out."""
    path = folder / "data_full.json"
    key = {"dev": "val"}.get(split, split)
    if not path.is_file() or key == "train":
        return []

    def rows(data: dict[str, Any], key: str) -> Iterator[Row]:
        for number, item in enumerate(data.get(key) or (), start=1):
            yield Row(dict(zip(("text", "label"), item, strict=False)), f"{path.name}, {key} {number}")

    def read() -> Classification:
        try:
            data = json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}") from None
        if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in ("train", key)):
            raise InputError(f"{path} must be an object with the lists 'train' and {key!r}")
        return classification_of(rows(data, "train"), rows(data, key))

    return [Found("", "classification", read)]


def sib(folder: Path, split: str) -> list[Found]:
    """SIB-200: ``LANGUAGE_Script.tsv`` with the fields split, index_id, category, text.

    A language is a set for classification and one for clustering (of all its splits), and, since the sentences of an
    index are translations, a bitext with English.
    """
    paths = sorted(path for path in folder.glob("*.tsv") if re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", path.stem))
    if not paths or not {"split", "index_id", "category", "text"} <= first_row(paths[0]).fields.keys():
        return []

    def of_splits(path: Path, words: tuple[str, ...]) -> Iterator[Row]:
        return (row for row in read_rows(path) if row.fields["split"] in words)

    def classification(path: Path) -> EvaluationSet:
        return classification_of(of_splits(path, ("train",)), of_splits(path, SPLITS.get(split, (split,))))

    def bitext(path: Path) -> EvaluationSet:
        english = {row.fields["index_id"]: row.text("text") for row in read_rows(folder / "eng_Latn.tsv")}
        pairs = [(row.text("text"), english.get(row.fields["index_id"]), row) for row in read_rows(path)]
        missing = next((row for _, translation, row in pairs if translation is None), None)
        if missing is not None:
            raise missing.error(f"eng_Latn.tsv has no index_id {missing.fields['index_id']}")
        return Bitext([text for text, _, _ in pairs], [str(translation) for _, translation, _ in pairs])

    found = []
    for path in paths:
        found.append(Found(f"{path.stem}/classification", "classification", partial(classification, path)))
        if split == "test":
            found.append(
                Found(f"{path.stem}/clustering", "clustering", partial(lambda one: clustering_of(read_rows(one)), path))
            )
            if path.stem != "eng_Latn" and (folder / "eng_Latn.tsv").is_file():
                found.append(Found(f"{path.stem}/bitext", "bitext", partial(bitext, path)))
    return found


def tatoeba(folder: Path, split: str) -> list[Found]:
    """Tatoeba as LASER has it, in one table: language, sentence, its English translation."""
    path = folder / "tatoeba_v1.tsv"
    if split != "test" or not path.is_file():
        return []
    pairs: dict[str, list[tuple[str, str]]] = {}
    # Quotation marks are those of the sentences.
    for row in read_rows(path, quoted=False):
        pairs.setdefault(row.label("lang"), []).append((row.text("text"), row.text("eng")))

    def read(language: str) -> Bitext:
        left, right = zip(*pairs[language], strict=True)
        return Bitext(left, right)

    return [Found(language, "bitext", partial(read, language)) for language in pairs]


def xquad(folder: Path, split: str) -> list[Found]:
    """XQuAD: ``corpus.LANGUAGE.jsonl`` and ``queries.LANGUAGE.jsonl``, whose ``rel`` is the relevant paragraph.

    A language is searched with its own questions (``de``); the English paragraphs with those of each (``de-en``).
    """
    languages = sorted(
        path.name.split(".")[1]
        for path in folder.glob("queries.*.jsonl")
        if (folder / path.name.replace("queries", "corpus")).is_file()
    )
    if split != "test" or not languages:
        return []

    def read(of_queries: str, of_documents: str) -> Retrieval:
        corpus = folder / f"corpus.{of_documents}.jsonl"
        documents = list(
            read_records(corpus, lambda record, number, origin: document_from_record(record, str(number), origin))
        )
        known = {document.id for document in documents}
        queries, qrels = {}, {}
        for row in read_rows(folder / f"queries.{of_queries}.jsonl"):
            identifier, relevant = row.text("_id"), row.text("rel")
            if relevant not in known:
                raise row.error(f"{corpus.name} has no document {relevant!r}")
            queries[identifier], qrels[identifier] = row.text("text"), {relevant: 1}
        return Retrieval(Collection(documents, queries, qrels))

    pairs = [(language, language) for language in languages]
    pairs += [(language, "en") for language in languages if language != "en" and "en" in languages]
    return [
        Found(query if query == document else f"{query}-{document}", "retrieval", partial(read, query, document))
        for query, document in pairs
    ]


def qmsum(folder: Path, split: str) -> list[Found]:
    """QMSum: whole meetings in the layout of BEIR, whose queries have a ``kind`` and an ``answer``.

    The general queries ("summarize the meeting") fit every meeting and are left out.
    """
    path = folder / "queries.jsonl"
    words = [word for word in SPLITS.get(split, (split,)) if (folder / "qrels" / f"{word}.tsv").is_file()]
    if not words or not path.is_file() or not {"kind", "answer"} <= first_row(path).fields.keys():
        return []

    def read() -> Retrieval:
        specific = {row.label("_id") for row in read_rows(path) if row.fields.get("kind") != "g"}
        whole = read_beir(folder, words[0])
        queries = {query: text for query, text in whole.queries.items() if query in specific}
        if not queries:
            raise InputError(f"{path} has no query that is not general (kind 'g') in the split {words[0]}")
        qrels = {query: whole.qrels[query] for query in queries}
        return Retrieval(Collection(whole.documents, queries, qrels), "long-documents")

    return [Found("", "long-documents", read)]


LAYOUTS = (sts_benchmark, sick, clinc, sib, tatoeba, xquad, qmsum)
"""What a folder may be, asked in this order before our own layouts."""
