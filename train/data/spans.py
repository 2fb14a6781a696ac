"""Texts for distillation, cut from rows: ``python train/data/spans.py ROWS OUTPUT``.

A teacher says something of any text, so a paragraph gives more than itself: its sentences, its heading, words that
somebody would search it by. Short texts cost few tokens, and each is a whole target. OUTPUT gets ``spans.jsonl`` (at
most about 120 tokens a text) and ``long.jsonl`` (the paragraphs that are longer, up to about 500).
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from captions import captions, words

SPAN_WORDS = 85
LONG_WORDS = 360

PASSAGES = ("acl_abstracts", "arxiv_abstracts", "tech_docs", "us_gov_texts", "openstax", "medquad", "scitldr")
"""Sets of pairs whose positives are paragraphs."""

SHORT = {
    "oewn_definitions": 40_000,
    "cv_sentences": 60_000,
    "wellformed_questions": 30_000,
    "banking77": 10_000,
    "clinc150": 15_000,
    "sgd_dialogues": 25_000,
    "pydocs_en_es": 12_000,
}
"""Sets of short texts, and how many of them are taken at most."""

CAPTIONS = 60_000

STOP_WORDS = frozenset(
    words(
        """a about above after again against all also am an and any are as at be because been before being below between
    both but by can could did do does doing down during each either few for from further had has have having he her here
    hers him his how however i if in into is it its itself just may me might more most must my no nor not now of off on
    once only or other our out over own per same shall she should so some such than that the their them then there
    therefore these they this those through thus to too under until up upon us use used using very via was we were what
    when where whether which while who whom whose why will with within without would you your"""
    )
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, about: at a full stop, a question or exclamation mark before a capital or a digit."""
    return [one.strip() for one in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9“\"(])", text) if one.strip()]


def windows(text: str, most: int) -> Iterator[str]:
    """Whole sentences, one after the other, up to ``most`` words at a time; a longer sentence is cut."""
    held: list[str] = []
    for sentence in sentences(text):
        words = sentence.split()
        if held and len(held) + len(words) > most:
            yield " ".join(held)
            held = []
        held += words[:most]
    if held:
        yield " ".join(held)


def keywords(draw: random.Random, text: str) -> str:
    """Two to seven words that tell something, in lower case: as they stand one after the other, or from all over."""
    telling = [word for word in re.findall(r"[a-z][a-z0-9-]+", text.lower()) if word not in STOP_WORDS]
    if len(telling) < 3:
        return ""
    count = min(len(telling), draw.randint(2, 7))
    if draw.random() < 0.5:
        start = draw.randint(0, len(telling) - count)
        return " ".join(telling[start : start + count])
    places = sorted(draw.sample(range(len(telling)), count))
    return " ".join(dict.fromkeys(telling[place] for place in places))


def terse(text: str) -> str:
    """A text as old collections have it: in lower case, without numbers and punctuation."""
    return " ".join(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower()))


def of_pair(draw: random.Random, anchor: str, positive: str) -> Iterator[tuple[str, str]]:
    """Texts cut from a heading and its paragraph, each with its kind."""
    yield "heading", anchor
    for window in windows(positive, SPAN_WORDS):
        own = sentences(window)
        if draw.random() < 0.55:
            yield "passage", window if draw.random() < 0.85 else terse(window)
        if len(own) > 2:
            start = draw.randint(0, len(own) - 2)
            yield "piece", " ".join(own[start : start + draw.randint(1, 3)])
        for sentence in draw.sample(own, min(len(own), 1)):
            yield "sentence", sentence if draw.random() < 0.85 else terse(sentence)
        yield "keywords", keywords(draw, window)


def texts_of(draw: random.Random, rows: Path) -> Iterator[tuple[str, str]]:
    """Texts of at most about 120 tokens, each with its kind."""
    for name in PASSAGES:
        for row in read_rows(rows / f"{name}.jsonl"):
            yield from of_pair(draw, row["anchor"], row["positive"])
    for row in read_rows(rows / "qmsum.jsonl"):
        held = list(windows(row["positive"], SPAN_WORDS))
        yield from (("meeting", window) for window in draw.sample(held, min(len(held), 4)))
        yield "heading", row["anchor"]
    for name, most in SHORT.items():
        short = []
        for row in read_rows(rows / f"{name}.jsonl"):
            match name:
                case "oewn_definitions":
                    short += [row["positive"], f"{row['anchor'].split(',')[0]}: {row['positive']}"]
                case "sgd_dialogues" | "pydocs_en_es":
                    short.append(row["anchor"])
                case _:
                    short.append(row["text"])
        short = [text for text in dict.fromkeys(short) if len(text.split()) > 2]
        yield from (
            ("short", " ".join(text.split()[:SPAN_WORDS])) for text in draw.sample(short, min(len(short), most))
        )
    yield from (("caption", text) for text in captions(draw, CAPTIONS))


def long_texts(draw: random.Random, rows: Path) -> Iterator[tuple[str, str]]:
    """Texts of about 120 to 500 tokens."""
    for name in (*PASSAGES, "qmsum"):
        for row in read_rows(rows / f"{name}.jsonl"):
            most = draw.randint(SPAN_WORDS, LONG_WORDS)
            for window in list(windows(row["positive"], most))[:2]:
                if len(window.split()) > SPAN_WORDS:
                    yield name, window


def write(path: Path, texts: Iterator[tuple[str, str]], most: int = 0) -> None:
    """Write texts, each once, and say how many there are of each kind, and of how many words.

    Args:
        path: of the file.
        texts: each with its kind.
        most: how many to draw from them; 0 for all.
    """
    kinds = {text: kind for kind, text in texts if len(text) > 2}
    kept = list(kinds)
    if 0 < most < len(kept):
        kept = random.Random(most).sample(kept, most)
    counts = Counter(kinds[text] for text in kept)
    lengths: Counter[str] = Counter()
    aside = path.with_suffix(".tmp")
    with aside.open("w", encoding="utf-8") as file:
        for text in kept:
            lengths[kinds[text]] += len(text.split())
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    aside.replace(path)
    told = ", ".join(f"{count:,} {kind} ({lengths[kind] / count:.0f} words)" for kind, count in counts.items())
    typer.echo(f"{path}: {len(kept):,} texts, {lengths.total():,} words: {told}", err=True)


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a file that prepare.py wrote."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main(
    rows: Annotated[Path, typer.Argument(help="folder that prepare.py wrote")],
    output: Annotated[Path, typer.Argument(help="folder for the texts")],
    texts: Annotated[int, typer.Option(min=0, help="texts of spans.jsonl, drawn from all; 0 keeps them all")] = 0,
    seed: Annotated[int, typer.Option(help="of what is drawn")] = 0,
) -> None:
    """Cut texts for distillation from rows."""
    wanted = [rows / f"{name}.jsonl" for name in (*PASSAGES, "qmsum", *SHORT)]
    missing = [path.name for path in wanted if not path.exists()]
    if missing:
        raise typer.BadParameter(f"{rows} has no {', '.join(missing)}: write them with train/data/prepare.py first")
    output.mkdir(parents=True, exist_ok=True)
    write(output / "spans.jsonl", texts_of(random.Random(seed), rows), texts)
    write(output / "long.jsonl", long_texts(random.Random(seed + 1), rows))


if __name__ == "__main__":
    typer.run(main)
