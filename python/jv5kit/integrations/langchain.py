"""LangChain: our models as its embeddings, and an index as its vector store.

Where a program has ``OpenAIEmbeddings()`` or ``HuggingFaceEmbeddings(…)`` it takes :class:`Jv5kitEmbeddings`, and where
it has ``InMemoryVectorStore(embeddings)`` or ``FAISS.from_documents(documents, embeddings)`` it takes
:class:`Jv5kitVectorStore`, whose documents are on disk.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np

from jv5kit.contents import embeddings as stored_embeddings
from jv5kit.documents import check_document
from jv5kit.embeddings import whole_number
from jv5kit.encoder import Encoder, shared_encoder
from jv5kit.errors import DocumentError, InputError, MissingExtraError
from jv5kit.integrations.diversity import maximal_marginal_relevance
from jv5kit.integrations.growing import GrowingIndex, StoreOptions
from jv5kit.types import Document

# mypy sees the library as Any, so that the types are the same whether it is installed or not: hence the ignored bases.
try:
    from langchain_core.documents import Document as LangChainDocument
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"jv5kit.integrations.langchain needs langchain-core ({error.name} is missing): pip install 'jv5kit[langchain]'"
    ) from None

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from jv5kit.index import Index
    from jv5kit.querying import Where
    from jv5kit.types import Hit


class Jv5kitEmbeddings(Embeddings):  # type: ignore[misc]  # The base is Any to mypy.
    """A model of ours as LangChain's embeddings: unit length, queries and documents with the model's prompts.

    Args:
        model: a folder, a hub id, an encoder, or None for the default model, which needs no network.
        task: the adapter to use, on a model that has some.
        truncate_dim: keep so many dimensions (Matryoshka); by default all.

    Raises:
        ModelNotFoundError: there is no such model.
        InputError: the model has no such adapter or not so many dimensions.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Encoder | None = None,
        *,
        task: str = "retrieval",
        truncate_dim: int | None = None,
    ) -> None:
        self.encoder = model if isinstance(model, Encoder) else shared_encoder(model)
        self.task = task
        self.truncate_dim = truncate_dim
        # What is wrong with an argument is said here, not by the first text.
        self.encoder.encode([], task=task, truncate_dim=truncate_dim)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """An embedding for each document."""
        embeddings = self.encoder.encode_document(texts, task=self.task, truncate_dim=self.truncate_dim)
        return [list(map(float, row)) for row in embeddings]

    def embed_query(self, text: str) -> list[float]:
        """The embedding of a query."""
        embedding = self.encoder.encode_query(text, task=self.task, truncate_dim=self.truncate_dim)
        return list(map(float, embedding))


class Jv5kitVectorStore(VectorStore):  # type: ignore[misc]  # The base is Any to mypy.
    """An index as LangChain's vector store.

    An index that is at the path is opened, whoever built it; else the first documents that are added make it. They are
    on disk when a method returns. An id that is there already gets the new document.

    With embeddings of ours, or none, the index knows its model, and is one that ``jv5kit search`` searches; with those
    of another library it keeps what they give.

    Args:
        embedding: makes the embeddings; by default the model of the index, or the default model.
        path: folder of the index, by convention ``NAME.jv5``; by default a temporary one, which goes with this object.
        **options: how an index that is made stores, as :meth:`jv5kit.Index.build` has it: ``dim``, ``precision``,
            ``rescore``, ``lexical`` (for ``hybrid=True``), ``hnsw``.

    Raises:
        InputError: the index that is there stores otherwise, or has another model.
        MissingExtraError: an option needs a library that is not installed.
    """

    def __init__(
        self,
        embedding: Embeddings | None = None,
        path: str | os.PathLike[str] | None = None,
        **options: Unpack[StoreOptions],
    ) -> None:
        if embedding is not None and not isinstance(embedding, Embeddings):
            raise InputError(
                f"embedding is {type(embedding).__name__} {embedding!r:.80}; it must be embeddings of LangChain, such "
                "as Jv5kitEmbeddings(), or left out"
            )
        # The encoder of an index embeds for retrieval.
        own = isinstance(embedding, Jv5kitEmbeddings) and embedding.task == "retrieval"
        if isinstance(embedding, Jv5kitEmbeddings) and own and embedding.truncate_dim is not None:
            options.setdefault("dim", embedding.truncate_dim)
        self._growing = GrowingIndex(path, options)
        self._given = None if own else embedding
        self._own = embedding if isinstance(embedding, Jv5kitEmbeddings) and own else None
        self._checked: Index | None = None
        self._open()

    @property
    def embeddings(self) -> Embeddings:
        """What makes the embeddings."""
        if self._given is not None:
            return self._given
        if self._own is None:
            index = self._open()
            self._own = Jv5kitEmbeddings(None if index is None else index.encoder)
        return self._own

    @property
    def index(self) -> Index:
        """The index.

        Raises:
            InputError: no document was added yet, and none was there.
        """
        index = self._open()
        if index is None:
            raise InputError(f"{self._growing.path} is no index yet: the first documents that are added make it")
        return index

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        path: str | os.PathLike[str] | None = None,
        **options: Unpack[StoreOptions],
    ) -> Self:
        """A store with some texts; the arguments are those of the constructor and of :meth:`add_texts`."""
        store = cls(embedding, path, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
    ) -> list[str]:
        """Add texts, and return their ids.

        Args:
            texts: none of them empty.
            metadatas: of each a JSON object.
            ids: of each, or None for one that is made up; a text takes the place of the one that has its id.
            batch_size: texts that are embedded and committed together; by default all.

        Raises:
            InputError: a text, its metadata or its id cannot be used, or there are not as many of each.
            IndexLockedError: another process is writing.
        """
        if isinstance(texts, str):
            raise InputError(f"texts is the string {texts!r:.80}; give a list of texts")
        listed = list(texts)
        for name, values in (("metadatas", metadatas), ("ids", ids)):
            if values is not None and len(values) != len(listed):
                raise InputError(f"there are {len(values)} {name} for {len(listed)} texts; give one for each")
        named = [identifier or str(uuid.uuid4()) for identifier in ids or [None] * len(listed)]
        metadata = metadatas or [{}] * len(listed)
        documents = [
            Document(identifier, text, None, of_text or {}, f"text {number}")
            for number, (identifier, text, of_text) in enumerate(zip(named, listed, metadata, strict=True), 1)
        ]
        # Before a model sees one: that may take long, or cost something.
        for document in documents:
            try:
                check_document(document)
            except ValueError as error:
                raise DocumentError(f"{document.origin}: {error}") from None
        size = len(documents) if batch_size is None else whole_number("batch_size", batch_size)
        if size < 1 and documents:
            raise InputError(f"batch_size={batch_size}; it must be at least 1")
        for start in range(0, len(documents), max(1, size)):
            self._upsert(documents[start : start + size])
        return named

    def _upsert(self, documents: list[Document]) -> None:
        if self._given is not None:
            rows = np.asarray(self._given.embed_documents([one.text for one in documents]), np.float32)
            self._growing.upsert(documents, embeddings=rows)
            return
        own = self.embeddings
        assert isinstance(own, Jv5kitEmbeddings)
        self._growing.upsert(documents, encoder=own.encoder)

    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """The documents of some ids, in their order; ids that are not there are left out."""
        index = self._open()
        found = [] if index is None else index.get(ids)
        return [_document(one) for one in found if one is not None]

    def delete(self, ids: list[str] | None = None) -> bool:
        """Delete documents by their ids, or all of them; ids that are not there are passed over. Returns True."""
        self._growing.delete(ids=ids)
        return True

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Where | None = None,
        hybrid: bool = False,
        oversample: int = 4,
    ) -> list[LangChainDocument]:
        """The ``k`` nearest documents, best first.

        Args:
            query: a text.
            k: documents wanted.
            filter: conditions on the metadata, as a dict or as a string (``'year >= 2020'``), see :mod:`jv5kit.where`.
            hybrid: fuse the ranking with that of the words, in an index that was made with ``lexical=True``.
            oversample: candidates for each document wanted, where they are rescored.

        Raises:
            InputError: an argument is wrong.
        """
        return [_document(hit) for hit in self._hits(query, k, filter, hybrid, oversample)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Where | None = None,
        hybrid: bool = False,
        oversample: int = 4,
    ) -> list[tuple[LangChainDocument, float]]:
        """As :meth:`similarity_search`, each with its score: an estimate of the cosine, so that more is nearer."""
        return [(_document(hit), hit.score) for hit in self._hits(query, k, filter, hybrid, oversample)]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Where | None = None, oversample: int = 4
    ) -> list[LangChainDocument]:
        """The documents nearest to an embedding, as :meth:`similarity_search`."""
        index = self._open()
        if index is None:
            return []
        hits = index.search(np.asarray(embedding, np.float32), k, filter=filter, oversample=oversample)
        return [_document(hit) for hit in hits]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Where | None = None
    ) -> list[LangChainDocument]:
        """Documents that are near to the query and not to one another.

        Args:
            query: a text.
            k: documents wanted.
            fetch_k: the nearest documents, of which they are chosen.
            lambda_mult: from 0, as different as can be, to 1, as near to the query as can be.
            filter: as for :meth:`similarity_search`.

        Raises:
            InputError: an argument is wrong, or the index has passages.
        """
        return self._different(self._hits(query, max(k, fetch_k), filter, False, 4), k, lambda_mult)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Where | None = None,
    ) -> list[LangChainDocument]:
        """As :meth:`max_marginal_relevance_search`, by an embedding."""
        index = self._open()
        hits = [] if index is None else index.search(np.asarray(embedding, np.float32), max(k, fetch_k), filter=filter)
        return self._different(hits, k, lambda_mult)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Scores in [0, 1], as LangChain wants them: the cosine, 0 where it is less."""
        return lambda score: min(1.0, max(0.0, score))

    def _hits(self, query: str, k: int, filter: Where | None, hybrid: bool, oversample: int) -> list[Hit]:
        if not isinstance(query, str):
            raise InputError(f"the query is {type(query).__name__} {query!r:.80}; it must be a string")
        index = self._open()
        if index is None:
            return []
        if self._given is None:
            return index.search(query, k, filter=filter, hybrid=hybrid, oversample=oversample)
        embedding = np.asarray(self._given.embed_query(query), np.float32)
        words = query if hybrid else None
        hits: list[Hit] = index.search(embedding, k, filter=filter, hybrid=hybrid, oversample=oversample, words=words)
        return hits

    def _different(self, hits: list[Hit], k: int, lambda_mult: float) -> list[LangChainDocument]:
        if not hits:
            return []
        kept = stored_embeddings(self.index, [hit.id for hit in hits])
        # One that was deleted since it was found has no embedding any more.
        hits = [hit for hit in hits if hit.id in kept]
        scores = np.array([hit.score for hit in hits], np.float32)
        rows = np.array([kept[hit.id] for hit in hits])
        return [_document(hits[i]) for i in maximal_marginal_relevance(scores, rows, k, lambda_mult)]

    def _open(self) -> Index | None:
        """The index, if there is one by now, in its newest state; its model is checked once."""
        index = self._growing.open()
        if index is not None and index is not self._checked:
            self._check_model(index)
            self._checked = index
        return index

    def _check_model(self, index: Index) -> None:
        """Refuse an index that was built with other embeddings than those that are given."""
        model = index.settings.model
        if self._given is not None and model is not None:
            raise InputError(
                f"{index.path} was built with the model {model!r}, whose embeddings are not those of "
                f"{type(self._given).__name__}: leave embedding out, or give Jv5kitEmbeddings({model!r})"
            )
        if self._given is None and model is None:
            raise InputError(
                f"{index.path} was built from given embeddings: say with embedding= what made them, to ask it by texts"
            )
        if self._own is not None:
            index.use_encoder(self._own.encoder)


def _document(found: Document | Hit) -> LangChainDocument:
    """A document as LangChain has it, with the title, if there is one, as a part of the metadata."""
    title = {"title": found.title} if found.title else {}
    return LangChainDocument(id=found.id, page_content=found.text, metadata=title | found.metadata)
