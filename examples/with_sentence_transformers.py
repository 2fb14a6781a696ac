"""sentence-transformers with jv5kit: a model goes there and comes back, and codes are searched by either library.

    pip install 'jv5kit[train,faiss]' sentence-transformers
    python examples/with_sentence_transformers.py

The model is written as on the command line by ``jv5kit export pico --merge retrieval -o DIR``. It prints::

    the same embeddings there: True
    and back again: True
    semantic_search_faiss: 1 3
    rescored_search:       1 3, cosines about 0.32 0.21
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import semantic_search_faiss

from jv5kit import Encoder, quantize_embeddings, rescored_search
from jv5kit.training.export import export_model

TEXTS = [
    "Emperor penguins huddle to stay warm in winter.",
    "Swifts sleep, eat and drink on the wing.",
    "A zip archive is opened for reading.",
    "Arctic terns fly from pole to pole.",
    "Shuffle a list in place.",
]
QUERY = "which bird sleeps while it flies"


def main(folder: Path) -> None:
    # Ours there: a plain folder of theirs, with the adapter of one task in the weights.
    export_model(Path("pico"), folder / "pico-retrieval", merge="retrieval")
    model = SentenceTransformer(str(folder / "pico-retrieval"), device="cpu")
    # Was: encoder = SentenceTransformer("all-MiniLM-L6-v2")
    encoder = Encoder.from_pretrained(dtype="float32")
    embeddings = encoder.encode(TEXTS)
    print("the same embeddings there:", np.allclose(model.encode(TEXTS), embeddings, atol=1e-5))

    # Theirs here.
    model.save(str(folder / "saved"))
    back = Encoder.from_pretrained(folder / "saved", dtype="float32")
    print("and back again:", np.allclose(back.encode(TEXTS), embeddings, atol=1e-5))

    # One bit a dimension: found by Hamming distance, ordered by the float query.
    codes, queries = quantize_embeddings(embeddings), encoder.encode_query([QUERY])
    hits = semantic_search_faiss(queries, corpus_embeddings=codes, corpus_precision="ubinary", top_k=2)[0][0]
    print("semantic_search_faiss:", *(hit["corpus_id"] for hit in hits))
    scores, rows = rescored_search(queries, codes, top_k=2, oversample=2)
    print("rescored_search:      ", *rows[0], end=", cosines about ")
    print(*(f"{score:.2f}" for score in scores[0]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
