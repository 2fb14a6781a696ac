"""Make the rows of this folder: ``python tests/training/data/make.py UNPACKED``.

UNPACKED holds the folders ``openstax``, ``oewn_definitions`` and ``clinc150`` of the data shelf (train/data says how
they are read). The same input gives the same files, byte for byte: what is taken is decided by hashes of the texts.

What grades the pairs of sentences is not a person but two independent dictionaries. A glossary of OpenStax and another
source (WordNet, or the glossary of another book) each define a term in words of their own: equal meaning, other words.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent

GRADED, SCORED = 110, 100
"""Pairs of each of the four scores: held out, and to train on."""

QUERIES = 60
"""Queries of each of the two kinds, definitions and headings."""

FILLERS = 140
"""Documents of each kind that answer no query."""

LONGEST = 320
"""Characters of a text, cut at the end of a sentence."""

INTENTS, PER_INTENT = 25, 20

FIELDS = {
    "nature": ["college-physics-bundle", "university-physics-bundle", "physics", "astronomy", "chemistry-bundle"],
    "life": ["anatomy-physiology", "microbiology"],
    "money": ["principles-economics-bundle", "principles-marketing", "introduction-business", "principles-finance"],
    "society": ["us-history", "world-history", "american-government", "introduction-anthropology", "psychology"],
}
FIELD = {book: field for field, books in FIELDS.items() for book in books}


@dataclass(frozen=True)
class Term:
    """A term of one book's glossary, and how another source defines the same: None if none does."""

    name: str
    book: str
    definition: str
    other: str | None

    @property
    def head(self) -> str:
        """Its last word, which names the kind of thing: the "cell" of a "red blood cell"."""
        return self.name.split()[-1]


def order(items: Iterable[Any], key: str) -> list[Any]:
    """The items in an order that is as good as random and the same everywhere."""
    return sorted(items, key=lambda item: hashlib.blake2b(f"{key} {item!r}".encode()).digest())


def normal(text: str) -> str:
    """A text without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def texts_of(term: Term) -> set[str]:
    """What a term is defined by."""
    return {normal(text) for text in (term.definition, term.other) if text}


def overlap(left: str, right: str) -> float:
    """Words that two texts share, of all their words (Jaccard)."""
    a, b = set(normal(left).split()), set(normal(right).split())
    return len(a & b) / len(a | b)


def cut(text: str) -> str | None:
    """The first sentences of a text, None if the first is too long."""
    if len(text) <= LONGEST:
        return text
    ends = [match.end() for match in re.finditer(r"[.!?](?= )", text[:LONGEST])]
    return text[: ends[-1]] if ends else None


def usable(text: str) -> bool:
    """Whether a text is a sentence or two, and no formula."""
    return 30 <= len(text) <= LONGEST and len(re.findall(r"[^\w\s.,;:()'\u2019“”?!-]|\d", text)) <= 4


def read_terms(openstax: list[dict[str, str]], synsets: list[list[str]]) -> list[Term]:
    """One term a name, with the definition of the first book that has it in a field."""
    senses: dict[str, list[str]] = defaultdict(list)
    for _, members, definition, _ in synsets:
        for member in members.split("; "):
            senses[member.lower()].append(re.sub(r"^\([^)]*\) ", "", definition))
    glossary: dict[str, dict[str, str]] = defaultdict(dict)
    for row in openstax:
        if row["kind"] == "definition" and row["book"] in FIELD:
            glossary[row["anchor"].lower().strip()].setdefault(row["book"], row["positive"])
    terms = []
    for name, by_book in sorted(glossary.items()):
        book, definition = min(by_book.items())
        # Of one sense only: else the other source may define something else.
        others = senses[name] if len(senses[name]) == 1 else []
        others += [text for other, text in sorted(by_book.items()) if other != book and FIELD[other] == FIELD[book]]
        chosen = next((text for text in others if usable(text) and overlap(definition, text) < 0.25), None)
        if usable(definition):
            terms.append(Term(name, book, definition, chosen))
    return terms


def graded(terms: list[Term], per_score: int) -> Iterator[tuple[int, Term, Term]]:
    """Pairs of terms by how near they are, each term in one pair at most.

    3: the same term; 2: terms of one book and one kind of thing ("dominant allele", "recessive allele"); 1: of one
    book; 0: of two fields of knowledge.
    """
    used: set[str] = set()
    two = [term for term in terms if term.other]
    shuffled = order(terms, "first")

    def near(score: int, first: Term, second: Term) -> bool:
        same_head = first.head == second.head
        if score == 2:
            return (
                first.book == second.book and same_head and min(map(len, (first.name.split(), second.name.split()))) > 1
            )
        if score == 1:
            return first.book == second.book and not set(first.name.split()) & set(second.name.split())
        return FIELD[first.book] != FIELD[second.book]

    # The rarest relation first, while there are terms enough.
    for score in (2, 3, 1, 0):
        count = 0
        for second in order(two, f"second {score}"):
            if second.name in used or count == per_score:
                continue
            free = (term for term in shuffled if term.name not in used and term != second and near(score, term, second))
            first = second if score == 3 else next(free, None)
            if first:
                used |= {first.name, second.name}
                count += 1
                yield score, first, second


def write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write one object a line."""
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_graded(name: str, terms: list[Term], per_score: int) -> list[tuple[int, Term, Term]]:
    """Write graded pairs, and return them."""
    pairs = order(graded(terms, per_score), name)
    write(
        name,
        ({"sentence1": a.definition, "sentence2": b.other, "score": score} for score, a, b in pairs),
    )
    return pairs


def main(unpacked: Path) -> None:
    """Write every file of the folder."""
    lines = (unpacked / "openstax/data.jsonl").read_text(encoding="utf-8").strip().split("\n")
    openstax: list[dict[str, str]] = [json.loads(line) for line in lines]
    table = (unpacked / "oewn_definitions/definitions.tsv").read_text(encoding="utf-8").strip("\n").split("\n")[1:]
    terms = read_terms(openstax, [line.split("\t") for line in table])
    headings = [
        (row["anchor"], text)
        for row in {row["anchor"]: row for row in openstax if row["kind"] == "summary"}.values()
        if (text := cut(row["positive"])) and usable(text)
    ]
    pairs = write_graded("graded.jsonl", terms, GRADED)
    taken = {term.name for _, first, second in pairs for term in (first, second)}
    # Retrieval: a definition finds the definition of another dictionary, a heading what stands under it.
    free = [term for term in order(terms, "retrieval") if term.name not in taken]
    asked = [term for term in free if term.other][:QUERIES]
    fillers = [term for term in free if term not in asked][:FILLERS]
    titles = order(headings, "retrieval")[: QUERIES + FILLERS]
    texts = [(term.other, term.definition) for term in asked] + titles[:QUERIES]
    texts += [(None, term.definition) for term in fillers] + [(None, text) for _, text in titles[QUERIES:]]
    write("retrieval/corpus.jsonl", ({"_id": f"d{i}", "text": text} for i, (_, text) in enumerate(texts)))
    queries = [(i, query) for i, (query, _) in enumerate(texts) if query]
    write("retrieval/queries.jsonl", ({"_id": f"q{i}", "text": query} for i, query in queries))
    (HERE / "retrieval/qrels").mkdir(exist_ok=True)
    judgements = "".join(f"q{i}\td{i}\t1\n" for i, _ in queries)
    (HERE / "retrieval/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgements, encoding="utf-8")
    # Training rows: of other terms and other headings, and no text of the above.
    taken |= {term.name for term in asked + fillers}
    terms = [term for term in terms if term.name not in taken]
    out = {normal(text) for pair in texts for text in pair if text}
    out |= {text for term in asked + fillers for text in texts_of(term)}
    out |= {text for _, first, second in pairs for term in (first, second) for text in texts_of(term)}
    out |= {normal(heading) for heading, _ in titles}
    write_graded("scored.jsonl", [term for term in terms if not texts_of(term) & out], SCORED)
    questions = [(row["anchor"], cut(row["positive"])) for row in openstax if row["kind"] == "question"]
    kinds: list[tuple[list[Any], int]] = [
        ([(term.definition, term.other) for term in terms if term.other], 1200),
        ([(term.name, term.definition) for term in terms if not term.other], 1500),
        (headings, 700),
        (questions, 600),
    ]
    rows: list[tuple[str, str]] = []
    for candidates, count in kinds:
        good = [
            (anchor, positive)
            for anchor, positive in order(candidates, "train")
            if positive and usable(positive) and len(anchor) <= LONGEST and not {normal(anchor), normal(positive)} & out
        ]
        rows += good[:count]
    write("pairs.jsonl", ({"anchor": anchor, "positive": positive} for anchor, positive in order(rows, "pairs")))
    train: list[list[str]] = json.loads((unpacked / "clinc150/data_full.json").read_text(encoding="utf-8"))["train"]
    by_intent: dict[str, list[str]] = defaultdict(list)
    for text, label in train:
        by_intent[label].append(text)
    labeled = [
        (t, label) for label in order(by_intent, "intent")[:INTENTS] for t in order(by_intent[label], "")[:PER_INTENT]
    ]
    write("labeled.jsonl", ({"text": text, "label": label} for text, label in order(labeled, "labeled")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
