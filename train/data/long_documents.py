"""Long documents, made of short pairs: `python train/data/long_documents.py PAIRS.jsonl -o LONG.jsonl`.

Two kinds, by turns. *Dense*: a document of many pairs' positives, one after the other, and each of these pairs' anchors
asks for it. *Sparse*: a single pair's positive somewhere among paragraphs of others, whose anchors do not ask. Lengths
are drawn evenly on a logarithmic scale, so that every length is as frequent as its double.
"""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

TOKEN_CHARACTERS = 4
"""Characters of a token, about."""

DENSE_ANCHORS = 4
"""Rows that a dense document gives: anchors of pairs from all over it."""


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Anchors and positives of a file of rows."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pairs.append((str(row["anchor"]), str(row["positive"])))
        except (ValueError, KeyError, TypeError) as error:
            raise typer.BadParameter(f"{path}:{number}: no row with anchor and positive ({error})") from None
    if len(pairs) < 2:
        raise typer.BadParameter(f"{path} has {len(pairs)} pairs; a long document takes several")
    return pairs


def make(pairs: list[tuple[str, str]], count: int, least: int, most: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows with long positives.

    Args:
        pairs: anchors and positives.
        count: rows to make.
        least: tokens of the shortest document, about.
        most: of the longest.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    made = 0
    while made < count:
        length = math.exp(draw.uniform(math.log(least), math.log(most))) * TOKEN_CHARACTERS
        chosen: list[tuple[str, str]] = []
        while sum(len(positive) for _, positive in chosen) < length and len(chosen) < len(pairs):
            pair = draw.choice(pairs)
            # A text that is there twice would have two places.
            if pair not in chosen:
                chosen.append(pair)
        document = "\n\n".join(positive for _, positive in chosen)
        dense = made % (DENSE_ANCHORS + 1) == 0
        asked = draw.sample(chosen, min(DENSE_ANCHORS, len(chosen))) if dense else [draw.choice(chosen)]
        for anchor, _ in asked[: count - made]:
            yield {"anchor": anchor, "positive": document, "kind": "dense" if dense else "sparse"}
            made += 1


def main(
    pairs: Annotated[Path, typer.Argument(help="Rows with anchor and positive, as JSONL.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Rows with long positives, as JSONL.")],
    count: Annotated[int, typer.Option(min=1, help="Rows to make.")] = 10_000,
    least: Annotated[int, typer.Option(min=1, help="Tokens of the shortest document, about.")] = 1000,
    most: Annotated[int, typer.Option(min=1, help="Tokens of the longest.")] = 4096,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Make long documents of short pairs."""
    if most < least:
        raise typer.BadParameter(f"--most {most} is below --least {least}")
    with output.open("w", encoding="utf-8") as file:
        for row in make(read_pairs(pairs), count, least, most, seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
