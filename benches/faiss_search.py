"""What `jv5kit search` does, by sentence-transformers and FAISS: the peer of the cold search of encode.py.

`python benches/faiss_search.py MODEL index.faiss docs.jsonl QUERY` prints the ten nearest documents.
"""

import json
import sys
from pathlib import Path

import faiss
import numpy as np
from sentence_transformers import SentenceTransformer


def main() -> None:
    model, index_file, documents_file, query = sys.argv[1:]
    index = faiss.read_index_binary(index_file)
    with Path(documents_file).open(encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    encoder = SentenceTransformer(model, device="cpu", truncate_dim=index.d)
    embedding = encoder.encode([query], show_progress_bar=False)
    distances, rows = index.search(np.packbits(embedding > 0, axis=-1), 10)
    for rank, (distance, row) in enumerate(zip(distances[0], rows[0], strict=True), 1):
        document = documents[row]
        print(
            f"{rank:2}  {1 - 2 * distance / index.d:.3f}  {document['id']}\n           {document['text'][:68]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
