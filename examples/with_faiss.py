"""FAISS with jv5kit: the codes of an index as an IndexBinaryFlat, and an IndexBinaryFlat as an index with documents.

    pip install 'jv5kit[faiss]'
    python examples/with_faiss.py

It prints::

    FAISS:  swift at distance 91
    jv5kit: swift, 1 - 2 * 91 / 256 = 0.29
    of an IndexBinaryFlat, since 2021: tern
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import faiss

from jv5kit import Encoder, Index, quantize_embeddings
from jv5kit.integrations.faiss import from_faiss, to_faiss

BIRDS = [
    {"id": "emperor", "text": "Emperor penguins huddle to stay warm in winter.", "year": 2021},
    {"id": "swift", "text": "Swifts sleep, eat and drink on the wing.", "year": 2019},
    {"id": "tern", "text": "Arctic terns fly from pole to pole.", "year": 2023},
]


def main(folder: Path) -> None:
    encoder = Encoder.from_pretrained(dtype="float32")
    query = quantize_embeddings(encoder.encode_query(["which bird sleeps while it flies"], truncate_dim=256))

    with Index.build(folder / "birds.jv5", BIRDS, encoder, dim=256, rescore="none") as index:
        binary, ids = to_faiss(index)
        distances, rows = binary.search(query, 1)
        print(f"FAISS:  {ids[rows[0, 0]]} at distance {distances[0, 0]}")
        (hit,) = index.search(query[0], 1)
        print(f"jv5kit: {hit.id}, 1 - 2 * {distances[0, 0]} / 256 = {hit.score:.2f}")

    # The other way: codes that were searched by FAISS so far, now with their texts and with filters.
    binary = faiss.IndexBinaryFlat(256)
    binary.add(quantize_embeddings(encoder.encode([str(bird["text"]) for bird in BIRDS], truncate_dim=256)))
    with from_faiss(binary, folder / "codes.jv5", BIRDS, rescore="codes") as index:
        embedding = encoder.encode_query("which bird sleeps while it flies", truncate_dim=256)
        print("of an IndexBinaryFlat, since 2021:", index.search(embedding, 1, filter="year >= 2021")[0].id)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
