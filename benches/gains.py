"""What each mode of search finds: `python benches/gains.py FOLDER...`, on test collections in the layout of BEIR.

Each collection is encoded once, and every mode is an index of its own over the same embeddings, as they are and with a
rotation that is fitted on them. The measure is nDCG@10.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import jv5kit
from jv5kit.evaluation.beir import Collection, read_beir
from jv5kit.evaluation.metrics import mean, ndcg
from jv5kit.storage.snapshot import Snapshot

TOP_K = 10

HEADER = """\
| collection | mode | nDCG@10 | of float32 | rotated | of float32 |
|---|---|--:|--:|--:|--:|"""

# What is kept, and how an index is built and searched for it; None for as many dimensions as the model has.
MODES: dict[str, tuple[int | None, dict[str, Any], dict[str, Any]]] = {
    "float32": (None, {"precision": "float32"}, {}),
    "float32, 256 dimensions": (256, {"precision": "float32"}, {}),
    "float32, 64 dimensions": (64, {"precision": "float32"}, {}),
    "256 bits, Hamming": (256, {"rescore": "none"}, {}),
    "256 bits, float query": (256, {"rescore": "codes"}, {"oversample": 1000}),
    "256 bits, int8 rows": (256, {}, {}),
    "float32 + words": (None, {"precision": "float32", "lexical": True}, {"hybrid": True}),
    "256 bits, int8 rows + words": (256, {"lexical": True}, {"hybrid": True}),
}


@dataclass(frozen=True)
class Encoded:
    """A collection and the embeddings of its queries and documents, in order."""

    name: str
    collection: Collection
    queries: NDArray[np.float32]
    documents: NDArray[np.float32]

    def ndcg(self, rankings: list[list[str]]) -> float:
        """nDCG@10 of the ids found for each query."""
        run = dict(zip(self.collection.queries, rankings, strict=True))
        return mean(ndcg(self.collection.qrels, run, TOP_K))

    def by(self, dim: int | None, build: dict[str, Any], search: dict[str, Any], *, rotate: bool) -> float:
        """nDCG@10 of an index built and searched in some way."""
        words = list(self.collection.queries.values()) if search.get("hybrid") else None
        with tempfile.TemporaryDirectory() as folder, self.index(folder, dim=dim, rotate=rotate, **build) as index:
            results = index.search(self.queries, TOP_K, words=words, **search)
        return self.ndcg([[hit.id for hit in hits] for hits in results])

    def by_words(self) -> float:
        """nDCG@10 of the words alone."""
        with tempfile.TemporaryDirectory() as folder, self.index(folder, lexical=True) as index:
            rows = [self._by_words(index._snapshot, text) for text in self.collection.queries.values()]
        return self.ndcg([[self.collection.documents[row].id for row in found] for found in rows])

    def _by_words(self, snapshot: Snapshot, query: str) -> list[int]:
        with snapshot.catalog.lexical_rows(query, snapshot.state) as rows:
            return list(islice(rows, TOP_K))

    def index(self, folder: str, **options: Any) -> jv5kit.Index:
        """An index of the collection."""
        documents = self.collection.documents
        return jv5kit.Index.build(
            Path(folder, "x.jv5"), documents, embeddings=self.documents, show_progress_bar=False, **options
        )


def encode_collection(folder: Path, split: str, encoder: jv5kit.Encoder) -> Encoded:
    """Read and encode a collection."""
    collection = read_beir(folder, split)
    return Encoded(
        folder.name,
        collection,
        encoder.encode_query(list(collection.queries.values())),
        encoder.encode_document([document.content for document in collection.documents]),
    )


def lines(encoded: Encoded) -> Iterator[str]:
    """A row of the table for each mode."""
    reference = encoded.by(*MODES["float32"], rotate=False)

    def line(mode: str, *scores: float) -> str:
        cells = [f"{score:.4f} | {score / reference:.1%}" for score in scores] + ["- | -"] * (2 - len(scores))
        return f"| {encoded.name} | {mode} | {' | '.join(cells)} |"

    for mode, (dim, build, search) in MODES.items():
        if dim is None or dim <= encoded.documents.shape[1]:
            yield line(mode, *(encoded.by(dim, build, search, rotate=rotate) for rotate in (False, True)))
    yield line("words (BM25)", encoded.by_words())


def main(
    folders: Annotated[list[Path], typer.Argument(help="Collections: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.")],
    split: Annotated[str, typer.Option(help="Which judgements.")] = "test",
    model: Annotated[str | None, typer.Option("-m", "--model", help="By default the default model.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the table here as well.")] = None,
) -> None:
    """Measure what truncation, bits, rescoring, rotation and words find, by nDCG@10."""
    try:
        encoder = jv5kit.Encoder.from_pretrained(model)
        table = [HEADER]
        for folder in folders:
            typer.echo(f"{folder} ...", err=True)
            table.extend(lines(encode_collection(folder, split, encoder)))
    except jv5kit.Jv5kitError as error:
        typer.echo(f"gains: {error}", err=True)
        raise typer.Exit(1) from None
    report = "\n".join(table)
    typer.echo(report)
    if output is not None:
        output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
