"""What each mode of search finds: `python benches/gains.py FOLDER...`, on test collections in the layout of BEIR.

Each collection is encoded once. A mode is measured on the embeddings as the model gives them, and rotated: by a
rotation fitted on a sample of the collection's own documents, for the dimensions that the mode keeps. The measure is
nDCG@10.
"""

import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

import jv5kit
from jv5kit.evaluation.beir import Collection, read_beir
from jv5kit.evaluation.metrics import mean, ndcg
from jv5kit.rotation import Rotation

TOP_K = 10
DEPTH = 100  # hits of each ranking that are fused
RANK_CONSTANT = 60  # of reciprocal rank fusion
SAMPLE = 10  # rows that a rotation is fitted on, for each dimension
BITS = 256

HEADER = """\
| collection | mode | nDCG@10 | of float32 | rotated | of float32 |
|---|---|--:|--:|--:|--:|"""

# Lucene's English ones: they are in nearly every document, so that they cost the most and tell nothing.
STOP_WORDS = frozenset(
    """
    a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to
    was will with
    """.split()  # noqa: SIM905
)

Embeddings = NDArray[np.float32]
Ranking = Sequence[Sequence[int]]  # rows of the documents found for each query, best first
Mode = Callable[[Embeddings, Embeddings, int], Ranking]  # of query embeddings, document embeddings and the hits wanted


@dataclass(frozen=True)
class Encoded:
    """A collection and the embeddings of its queries and documents, in order."""

    name: str
    collection: Collection
    queries: Embeddings
    documents: Embeddings

    def rotated(self, dim: int) -> tuple[Embeddings, Embeddings]:
        """The embeddings, rotated for ``dim`` dimensions."""
        count = min(len(self.documents), SAMPLE * self.documents.shape[1])
        sample = np.random.default_rng(0).choice(len(self.documents), count, replace=False)
        rotation = Rotation.fit(self.documents[sample], [dim])
        return rotation(self.queries), rotation(self.documents)

    def ndcg(self, ranking: Ranking) -> float:
        """nDCG@10 of rankings by row."""
        documents = self.collection.documents
        run = {
            query: [documents[row].id for row in rows[:TOP_K]]
            for query, rows in zip(self.collection.queries, ranking, strict=True)
        }
        return mean(ndcg(self.collection.qrels, run, TOP_K))


def encode_collection(folder: Path, split: str, encoder: jv5kit.Encoder) -> Encoded:
    """Read and encode a collection."""
    collection = read_beir(folder, split)
    return Encoded(
        folder.name,
        collection,
        encoder.encode_query(list(collection.queries.values())),
        encoder.encode_document([document.content for document in collection.documents]),
    )


def by_score(queries: Embeddings, documents: Embeddings, top_k: int) -> Ranking:
    """Rows by inner product; the earlier row first where they are equal."""
    ranking = []
    for start in range(0, len(queries), 256):
        scores = queries[start : start + 256] @ documents.T
        ranking.extend(np.argsort(-scores, axis=1, kind="stable")[:, :top_k].tolist())
    return ranking


def by_float32(dim: int) -> Mode:
    """Exact search of truncated float32."""

    def mode(queries: Embeddings, documents: Embeddings, top_k: int) -> Ranking:
        queries, documents = (jv5kit.truncate_embeddings(rows, dim) for rows in (queries, documents))
        return by_score(queries, documents, top_k)

    return mode


def by_hamming(queries: Embeddings, documents: Embeddings, top_k: int) -> Ranking:
    """Hamming distance alone."""
    codes = jv5kit.quantize_embeddings(documents[:, :BITS])
    rows: list[list[int]] = jv5kit.hamming_search(jv5kit.quantize_embeddings(queries[:, :BITS]), codes, top_k)[
        1
    ].tolist()
    return rows


def by_codes(queries: Embeddings, documents: Embeddings, top_k: int) -> Ranking:
    """The float query against every code, its bits as -1 and 1."""
    bits = np.unpackbits(jv5kit.quantize_embeddings(documents[:, :BITS]), axis=1)
    return by_score(queries[:, :BITS], bits.astype(np.float32) * 2 - 1, top_k)


def by_index(queries: Embeddings, documents: Embeddings, top_k: int) -> Ranking:
    """An index as `--binary --dim 256` builds it: codes first, then int8 rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gains.jv5"
        with jv5kit.Index.build(path, embeddings=documents, ids=range(len(documents)), dim=BITS) as index:
            return [[int(hit.id) for hit in hits] for hits in index.search(queries, top_k)]


def by_words(collection: Collection) -> Ranking:
    """BM25 over stemmed words, any of the query's, those of a title counting twice (SQLite's FTS5)."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE documents USING fts5(title, text, tokenize='porter unicode61')")
    database.executemany(
        "INSERT INTO documents(rowid, title, text) VALUES (?, ?, ?)",
        ((row, document.title, document.text) for row, document in enumerate(collection.documents)),
    )
    ranking = []
    for text in collection.queries.values():
        words = dict.fromkeys(re.findall(r"\w+", text.lower()))
        query = " OR ".join(f'"{word}"' for word in [word for word in words if word not in STOP_WORDS] or words or [""])
        found = database.execute(
            "SELECT rowid FROM documents WHERE documents MATCH ? ORDER BY bm25(documents, 2, 1), rowid LIMIT ?",
            (query, DEPTH),
        )
        ranking.append([row for (row,) in found])
    return ranking


def fused(*rankings: Ranking) -> Ranking:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): a document scores 1 / (60 + rank) in each."""
    fusion = []
    for lists in zip(*rankings, strict=True):
        scores: dict[int, float] = {}
        for rows in lists:
            for rank, row in enumerate(rows, start=1):
                scores[row] = scores.get(row, 0) + 1 / (RANK_CONSTANT + rank)
        fusion.append(sorted(scores, key=lambda row: (-scores[row], row)))
    return fusion


def lines(encoded: Encoded) -> Iterator[str]:
    """A row of the table for each mode."""
    source_dim = encoded.documents.shape[1]
    reference = encoded.ndcg(by_float32(source_dim)(encoded.queries, encoded.documents, TOP_K))
    words = by_words(encoded.collection)

    def line(mode: str, *rankings: Ranking) -> str:
        cells = [f"{score:.4f} | {score / reference:.1%}" for score in map(encoded.ndcg, rankings)]
        return f"| {encoded.name} | {mode} | {' | '.join(cells + ['- | -'] * (2 - len(cells)))} |"

    yield line("words (BM25)", words)
    modes: dict[str, tuple[int, Mode]] = {
        f"float32 {source_dim}": (source_dim, by_float32(source_dim)),
        "float32 256": (256, by_float32(256)),
        "float32 64": (64, by_float32(64)),
        f"{BITS} bits, Hamming": (BITS, by_hamming),
        f"{BITS} bits, float query": (BITS, by_codes),
        f"{BITS} bits, rescored by int8": (BITS, by_index),
    }
    for name, (dim, mode) in modes.items():
        if dim > source_dim:
            continue
        sides = ((encoded.queries, encoded.documents), encoded.rotated(dim))
        yield line(name, *(mode(*side, TOP_K) for side in sides))
        if mode is by_index or dim == source_dim:
            yield line(f"{name} + words", *(fused(mode(*side, DEPTH), words) for side in sides))


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
