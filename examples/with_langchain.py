"""LangChain with jv5kit: its embeddings, and a vector store on disk with filters, words and a retriever.

    pip install 'jv5kit[langchain]'
    python examples/with_langchain.py

It prints::

    swift    0.52  Swifts sleep, eat and drink on the wing.
    since 2021: emperor, tern
    by words: adler
    opened again, 3 documents: tern
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from langchain_core.documents import Document

from jv5kit.integrations.langchain import Jv5kitEmbeddings, Jv5kitVectorStore

BIRDS = [
    Document("Emperor penguins huddle to stay warm in winter.", id="emperor", metadata={"year": 2021}),
    Document("Swifts sleep, eat and drink on the wing.", id="swift", metadata={"year": 2019}),
    Document("Arctic terns fly from pole to pole.", id="tern", metadata={"year": 2023}),
    Document("Seeadler bauen Horste.", id="adler", metadata={"year": 2020}),
]


def main(folder: Path) -> None:
    path = folder / "birds.jv5"
    # Was: store = InMemoryVectorStore(OpenAIEmbeddings()); store.add_documents(BIRDS)
    store = Jv5kitVectorStore(Jv5kitEmbeddings(), path, dim=256, lexical=True)
    store.add_documents(BIRDS)

    for document, score in store.similarity_search_with_score("which bird sleeps while it flies", k=1):
        print(f"{document.id:8} {score:.2f}  {document.page_content}")

    retriever = store.as_retriever(search_kwargs={"k": 2, "filter": "year >= 2021"})
    print("since 2021:", ", ".join(sorted(document.id or "" for document in retriever.invoke("a bird"))))
    print("by words:", store.similarity_search("Seeadler", k=1, hybrid=True)[0].id)

    store.delete(["emperor"])
    again = Jv5kitVectorStore(path=path)
    best = again.max_marginal_relevance_search("migration from north to south", k=1)[0]
    print(f"opened again, {len(again.index)} documents: {best.id}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
