"""LlamaIndex: our models as its embedding model, and an index as its vector store.

Where a program has ``OpenAIEmbedding()`` or ``HuggingFaceEmbedding(…)`` it takes :class:`Jv5kitEmbedding`, and where it
has ``SimpleVectorStore()`` or ``ChromaVectorStore(…)`` it takes :class:`Jv5kitVectorStore`, whose nodes are on disk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from jv5kit.contents import documents
from jv5kit.contents import embeddings as stored_embeddings
from jv5kit.encoder import Encoder, shared_encoder
from jv5kit.errors import InputError, MissingExtraError
from jv5kit.filters import Condition, Filter, Junction
from jv5kit.integrations.diversity import maximal_marginal_relevance
from jv5kit.integrations.growing import GrowingIndex, StoreOptions
from jv5kit.types import Document

# mypy sees the library as Any, so that the types are the same whether it is installed or not: hence the ignored bases.
try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode, TextNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

    from jv5kit.integrations.llamaindex_filters import filter_of
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"jv5kit.integrations.llamaindex needs llama-index-core ({error.name} is missing): "
        "pip install 'jv5kit[llamaindex]'"
    ) from None

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from jv5kit.index import Index
    from jv5kit.types import Hit

BATCH = 256
"""Texts that LlamaIndex gives to the model at a time, by default; ours makes its own batches of them."""

CANDIDATES = 4
"""For each node wanted so many of the nearest, of which those are chosen that differ."""

_NODE_ID = "_node_id"
"""The field by which a query is restricted to some nodes."""


class Jv5kitEmbedding(BaseEmbedding):  # type: ignore[misc]  # The base is Any to mypy.
    """A model of ours as LlamaIndex's: unit length, queries and texts with the model's prompts.

    Args:
        model_name: a folder, a hub id, an encoder, or None for the default model, which needs no network.
        task: the adapter to use, on a model that has some.
        truncate_dim: keep so many dimensions (Matryoshka); by default all.
        **options: those of LlamaIndex's ``BaseEmbedding``: ``embed_batch_size``, ``num_workers``, …

    Raises:
        ModelNotFoundError: there is no such model.
        InputError: the model has no such adapter or not so many dimensions.
    """

    task: str
    truncate_dim: int | None
    _encoder: Encoder = PrivateAttr()

    def __init__(
        self,
        model_name: str | os.PathLike[str] | Encoder | None = None,
        *,
        task: str = "retrieval",
        truncate_dim: int | None = None,
        **options: Any,
    ) -> None:
        encoder = model_name if isinstance(model_name, Encoder) else shared_encoder(model_name)
        # What is wrong with an argument is said here, not by the first text.
        encoder.encode([], task=task, truncate_dim=truncate_dim)
        options = {"embed_batch_size": BATCH, "model_name": encoder.checkpoint.name} | options
        super().__init__(task=task, truncate_dim=truncate_dim, **options)
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """Its name in what LlamaIndex writes."""
        return "Jv5kitEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        embedding = self._encoder.encode_query(query, task=self.task, truncate_dim=self.truncate_dim)
        return list(map(float, embedding))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        embeddings = self._encoder.encode_document(texts, task=self.task, truncate_dim=self.truncate_dim)
        return [list(map(float, row)) for row in embeddings]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class Jv5kitVectorStore(BasePydanticVectorStore):  # type: ignore[misc]  # The base is Any to mypy.
    """An index as LlamaIndex's vector store.

    An index that is at the path is opened, whoever built it; else the first nodes that are added make it. They are on
    disk when a method returns. A node whose id is there already takes its place.

    Args:
        path: folder of the index, by convention ``NAME.jv5``; by default a temporary one, which goes with this object.
        **options: how an index that is made stores, as :meth:`jv5kit.Index.build` has it: ``dim``, ``precision``,
            ``rescore``, ``lexical`` (for hybrid queries), ``hnsw``.

    Raises:
        InputError: the index that is there stores otherwise.
        MissingExtraError: an option needs a library that is not installed.
    """

    stores_text: bool = True
    _growing: GrowingIndex = PrivateAttr()

    def __init__(self, path: str | os.PathLike[str] | None = None, **options: Unpack[StoreOptions]) -> None:
        super().__init__()
        self._growing = GrowingIndex(path, options)

    @classmethod
    def class_name(cls) -> str:
        """Its name in what LlamaIndex writes."""
        return "Jv5kitVectorStore"

    @property
    def client(self) -> Index | None:
        """The index; None as long as no node was added and none was there."""
        return self._growing.open()

    def add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Add nodes with their embeddings, and return their ids.

        Raises:
            InputError: a node has no embedding or no text, or its metadata cannot be stored.
            IndexLockedError: another process is writing.
        """
        for node in nodes:
            if node.embedding is None:
                raise InputError(f"node {node.node_id!r} has no embedding; let a VectorStoreIndex add it, or embed it")
        if nodes:
            rows = [node.embedding for node in nodes]
            if len(lengths := {len(row) for row in rows}) > 1:
                raise InputError(f"the nodes have embeddings of {' and '.join(map(str, sorted(lengths)))} dimensions")
            self._growing.upsert([_document(node) for node in nodes], embeddings=np.array(rows, np.float32))
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """As :meth:`add`, in a thread."""
        return await asyncio.to_thread(self.add, nodes)

    def delete(self, ref_doc_id: str) -> None:
        """Delete the nodes of a document."""
        self._growing.delete(filter={"ref_doc_id": ref_doc_id})

    def delete_nodes(self, node_ids: list[str] | None = None, filters: Any = None) -> None:
        """Delete nodes that are named, or those of them that ``MetadataFilters`` match, or all that match.

        Raises:
            InputError: neither ids nor filters are given, or a filter cannot be answered.
        """
        condition = filter_of(filters)
        if node_ids is None and condition is None:
            raise InputError("say which nodes to delete: node_ids, filters or both; clear() deletes all of them")
        self._growing.delete(ids=node_ids, filter=condition)

    def clear(self) -> None:
        """Delete all nodes."""
        self._growing.delete()

    def get_nodes(self, node_ids: list[str] | None = None, filters: Any = None) -> list[BaseNode]:
        """The nodes that are named, those of them that ``MetadataFilters`` match, all that match, or all.

        Raises:
            InputError: a filter cannot be answered.
        """
        condition = filter_of(filters)
        index = self._growing.open()
        if index is None:
            return []
        if node_ids is None or condition is not None:
            found = documents(index, condition)
            if node_ids is not None:
                named = set(node_ids)
                found = [one for one in found if one.id in named]
        else:
            found = [one for one in index.get(node_ids) if one is not None]
        return [_node(one) for one in found]

    def query(self, query: VectorStoreQuery, *, mmr_threshold: float | None = None) -> VectorStoreQueryResult:
        """The nodes nearest to a query, each with an estimate of the cosine as its similarity.

        Args:
            query: LlamaIndex's. Its ``mode`` is ``default``, ``hybrid`` (fused with the ranking of the words, in an
                index that was made with ``lexical=True``) or ``mmr``.
            mmr_threshold: for ``mmr``, from 0, as different as can be, to 1, as near to the query as can be.

        Raises:
            InputError: it asks for what an index cannot answer.
        """
        mode = VectorStoreQueryMode(query.mode)
        hybrid, diverse = mode == VectorStoreQueryMode.HYBRID, mode == VectorStoreQueryMode.MMR
        if not (hybrid or diverse or mode == VectorStoreQueryMode.DEFAULT):
            raise InputError(f"the query's mode {mode.value!r} is not known here; it must be default, hybrid or mmr")
        for name in ("alpha", "sparse_top_k", "embedding_field", "output_fields"):
            if getattr(query, name) is not None:
                raise InputError(
                    f"the query has {name}={getattr(query, name)!r}, for which an index has no use: leave it out"
                )
        if query.query_embedding is None:
            raise InputError("the query has no embedding; give query_embedding, or ask through a retriever")
        top_k = query.similarity_top_k
        if hybrid and query.hybrid_top_k is not None:
            top_k = query.hybrid_top_k
        given = query.mmr_threshold if mmr_threshold is None else mmr_threshold
        threshold = 0.5 if given is None else given
        if not 0 <= threshold <= 1:
            raise InputError(f"mmr_threshold={threshold}; it must be from 0 (different) to 1 (near to the query)")
        condition = _restricted(query)
        index = self._growing.open()
        if index is None:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        hits: list[Hit] = index.search(
            np.array(query.query_embedding, np.float32),
            top_k * CANDIDATES if diverse else top_k,
            filter=condition,
            hybrid=hybrid,
            words=query.query_str if hybrid else None,
        )
        if diverse:
            hits = _different(index, hits, top_k, threshold)
        return VectorStoreQueryResult(
            nodes=[_node(hit) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """As :meth:`query`, in a thread."""
        return await asyncio.to_thread(self.query, query, **options)


def _restricted(query: Any) -> Filter | None:
    """The filter of a query: its own, and the documents and nodes that it is restricted to."""
    conditions = [filter_of(query.filters)]
    for field, names in (("ref_doc_id", query.doc_ids), (_NODE_ID, query.node_ids)):
        # A retriever of LlamaIndex gives an empty list where it restricts nothing.
        if names:
            conditions.append(Condition.of(field, "in", names))
    given = [one for one in conditions if one is not None]
    return Junction.of("and", given) if given else None


def _different(index: Index, hits: list[Hit], top_k: int, threshold: float) -> list[Hit]:
    kept = stored_embeddings(index, [hit.id for hit in hits])
    # One that was deleted since it was found has no embedding any more.
    hits = [hit for hit in hits if hit.id in kept]
    rows = np.array([kept[hit.id] for hit in hits]).reshape(len(hits), index.settings.dim)
    scores = np.array([hit.score for hit in hits], np.float32)
    return [hits[i] for i in maximal_marginal_relevance(scores, rows, top_k, threshold)]


def _document(node: Any) -> Document:
    """A node as a document: its text, and its metadata with what LlamaIndex makes of the rest of the node."""
    metadata = node_to_metadata_dict(node, remove_text=True) | {_NODE_ID: node.node_id}
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    return Document(node.node_id, text, None, metadata, f"node {node.node_id!r}")


def _node(found: Document | Hit) -> BaseNode:
    """The node that a document was, or a new one of a document that never was a node."""
    if "_node_content" in found.metadata:
        return metadata_dict_to_node(found.metadata, text=found.text)
    title = {"title": found.title} if found.title else {}
    return TextNode(id_=found.id, text=found.text, metadata=title | found.metadata)
