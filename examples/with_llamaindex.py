"""LlamaIndex with jv5kit: its embedding model, and a vector store on disk under a VectorStoreIndex.

    pip install 'jv5kit[llamaindex]'
    python examples/with_llamaindex.py

It prints::

    swift    0.41  Swifts sleep, eat and drink on the wing.
    since 2021: emperor, tern
    by words: adler
    opened again, 3 nodes
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from jv5kit.integrations.llamaindex import Jv5kitEmbedding, Jv5kitVectorStore

BIRDS = [
    Document(text="Emperor penguins huddle to stay warm in winter.", id_="emperor", metadata={"year": 2021}),
    Document(text="Swifts sleep, eat and drink on the wing.", id_="swift", metadata={"year": 2019}),
    Document(text="Arctic terns fly from pole to pole.", id_="tern", metadata={"year": 2023}),
    Document(text="Seeadler bauen Horste.", id_="adler", metadata={"year": 2020}),
]


def main(folder: Path) -> None:
    path = folder / "birds.jv5"
    # Was: embed_model = OpenAIEmbedding(), and SimpleVectorStore()
    embed_model = Jv5kitEmbedding()
    store = Jv5kitVectorStore(path, dim=256, lexical=True)
    storage = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(BIRDS, storage_context=storage, embed_model=embed_model)

    for found in index.as_retriever(similarity_top_k=1).retrieve("which bird sleeps while it flies"):
        print(f"{found.node.ref_doc_id:8} {found.score:.2f}  {found.node.get_content()}")

    since = MetadataFilters(filters=[MetadataFilter(key="year", value=2021, operator=FilterOperator.GTE)])
    recent = index.as_retriever(similarity_top_k=2, filters=since).retrieve("a bird")
    print("since 2021:", ", ".join(sorted(found.node.ref_doc_id or "" for found in recent)))
    by_words = index.as_retriever(similarity_top_k=1, vector_store_query_mode="hybrid").retrieve("Seeadler")
    print("by words:", by_words[0].node.ref_doc_id)

    index.delete_ref_doc("emperor")
    again = VectorStoreIndex.from_vector_store(Jv5kitVectorStore(path), embed_model=embed_model)
    print(f"opened again, {len(again.as_retriever(similarity_top_k=9).retrieve('a bird'))} nodes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
