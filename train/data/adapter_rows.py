"""Rows for the adapters: ``python train/data/adapter_rows.py ROWS OUTPUT``.

OUTPUT gets ``pairs.jsonl`` for retrieval, what somebody would ask and a paragraph that answers it; ``scored.jsonl`` for
text-matching, two sentences and how alike the teacher finds them; and ``labeled.jsonl`` for classification. No scores
of people's that may be shipped exist in English: a teacher's are the next best, and its ranking of sentences that
differ by a word is what is to be learned.
"""

import json
import random
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from captions import captions
from spans import PASSAGES, keywords, read_rows, sentences, windows

from jv5kit import Encoder
from jv5kit.errors import Jv5kitError

PASSAGE_WORDS = 64
SHORTEST_WORDS = 25
"""Words of a paragraph that answers anything."""

LABELED = ("banking77", "clinc150")


def pairs(draw: random.Random, rows: Path) -> Iterator[dict[str, Any]]:
    """A heading, a question, words, or a sentence that was taken out, and the paragraph that it is from."""
    for name in PASSAGES:
        for row in read_rows(rows / f"{name}.jsonl"):
            held = list(windows(row["positive"], PASSAGE_WORDS))
            # A heading tells the beginning, what is cut from a paragraph any part of it.
            way = draw.random()
            window = held[0] if way < 0.6 else draw.choice(held)
            own = sentences(window)
            if len(window.split()) < SHORTEST_WORDS or len(row["anchor"].split()) < 2:
                continue
            if way < 0.6:
                anchor, positive = row["anchor"], window
            elif way < 0.75 or len(own) < 3:
                anchor, positive = keywords(draw, window), window
            else:
                out = draw.randrange(len(own))
                anchor, positive = own[out], " ".join(own[:out] + own[out + 1 :])
            if anchor:
                yield {"anchor": anchor, "positive": positive}


def alike(draw: random.Random, rows: Path, count: int) -> Iterator[tuple[str, str]]:
    """Two sentences: of a picture and a variation, of a paragraph, or of two words' definitions."""
    families = list(captions(draw, count))
    yield from pairwise(families)
    yield from zip(families, draw.sample(families, len(families)), strict=True)
    for name in PASSAGES:
        every = [row for row in read_rows(rows / f"{name}.jsonl") if 2 < len(sentences(row["positive"])) < 40]
        for row in draw.sample(every, min(len(every), count // 8)):
            own = [one for one in sentences(row["positive"]) if 4 < len(one.split()) < 40]
            if len(own) > 1:
                first, second = draw.sample(own, 2)
                yield (first, second) if draw.random() < 0.7 else (row["anchor"], first)
    definitions = [row["positive"] for row in read_rows(rows / "oewn_definitions.jsonl")]
    place = draw.sample(range(len(definitions) - 3), count // 2)
    # Neighbors in the dictionary are often of one kind.
    yield from ((definitions[i], definitions[i + draw.randint(1, 3)]) for i in place)


def scored(encoder: Encoder, candidates: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Two sentences and the cosine of their embeddings."""
    every = [(first, second) for first, second in dict.fromkeys(candidates) if first != second]
    texts = list(dict.fromkeys(text for pair in every for text in pair))
    rows = encoder.encode(texts, show_progress_bar=False)
    place = {text: i for i, text in enumerate(texts)}
    first, second = (np.array([place[pair[side]] for pair in every]) for side in (0, 1))
    cosines = np.einsum("ij,ij->i", rows[first], rows[second])
    for (one, other), cosine in zip(every, cosines.tolist(), strict=True):
        yield {"sentence1": one, "sentence2": other, "score": round(cosine, 4)}


def labeled(rows: Path) -> Iterator[dict[str, Any]]:
    """Texts with their labels, each label named by its set as well."""
    for name in LABELED:
        for row in read_rows(rows / f"{name}.jsonl"):
            yield {"text": row["text"], "label": f"{name}: {row['label']}"}


def write(path: Path, rows: Iterable[dict[str, Any]], most: int) -> None:
    """Write rows in an order that is drawn, at most so many."""
    every = list(rows)
    random.Random(len(every)).shuffle(every)
    aside = path.with_suffix(".tmp")
    with aside.open("w", encoding="utf-8") as file:
        for row in every[:most]:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    aside.replace(path)
    typer.echo(f"{path}: {len(every[:most]):,} of {len(every):,} rows", err=True)


def main(
    rows: Annotated[Path, typer.Argument(help="folder that prepare.py wrote")],
    output: Annotated[Path, typer.Argument(help="folder for the rows")],
    teacher: Annotated[str, typer.Option(help="the model that scores sentences")] = "all-MiniLM-L6-v2",
    count: Annotated[int, typer.Option(min=8, help="rows of pairs.jsonl; more are scored")] = 16_000,
    seed: Annotated[int, typer.Option(help="of what is drawn")] = 0,
) -> None:
    """Cut rows for the adapters from rows of public sets."""
    wanted = [rows / f"{name}.jsonl" for name in (*PASSAGES, "oewn_definitions", *LABELED)]
    missing = [path.name for path in wanted if not path.exists()]
    if missing:
        raise typer.BadParameter(f"{rows} has no {', '.join(missing)}: write them with train/data/prepare.py first")
    try:
        encoder = Encoder.from_pretrained(teacher)
    except Jv5kitError as error:
        raise typer.BadParameter(str(error), param_hint="--teacher") from None
    output.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    write(output / "pairs.jsonl", pairs(draw, rows), count)
    write(output / "scored.jsonl", scored(encoder, alike(draw, rows, count // 2)), 2 * count)
    write(output / "labeled.jsonl", labeled(rows), 1 << 30)


if __name__ == "__main__":
    typer.run(main)
