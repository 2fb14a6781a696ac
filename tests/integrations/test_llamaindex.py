"""LlamaIndex: nodes go in and come back, through its own index and retrievers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command import environment, random_rows
from llama_index.core import Document as LlamaDocument
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import ImageNode, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from jv5kit import Encoder, truncate_embeddings
from jv5kit.errors import InputError, MissingExtraError
from jv5kit.integrations.llamaindex import Jv5kitEmbedding, Jv5kitVectorStore

if TYPE_CHECKING:
    from pathlib import Path

METADATA: list[dict[str, Any]] = [
    {"year": 2021, "lang": "en", "tags": ["ice", "sea"]},
    {"year": 2019, "lang": "de", "tags": ["air"]},
    {"year": 2023, "lang": "en", "weight": 0.1},
    {"lang": "fr", "tags": ["ice"]},
    {},
]


def nodes() -> list[Any]:
    rows = truncate_embeddings(random_rows(5), 16).tolist()
    found = []
    for i, (metadata, row) in enumerate(zip(METADATA, rows, strict=True)):
        node = TextNode(id_=f"n{i}", text=f"text {i}", metadata=metadata, embedding=row)
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc{i % 2}")
        found.append(node)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Jv5kitVectorStore:
    store = Jv5kitVectorStore(tmp_path / "nodes.jv5", precision="float32", lexical=True)
    assert store.add(nodes()) == ["n0", "n1", "n2", "n3", "n4"]
    return store


def ask(**options: Any) -> VectorStoreQuery:
    options = {"query_embedding": random_rows(1, seed=1)[0].tolist(), "similarity_top_k": 5} | options
    return VectorStoreQuery(**options)


def test_embeddings_are_those_of_the_encoder(tiny_model: Path) -> None:
    encoder = Encoder.from_pretrained(tiny_model)
    model = Jv5kitEmbedding(tiny_model, truncate_dim=32)
    texts = ["a penguin", "the sea"]
    documents = encoder.encode_document(texts, truncate_dim=32)
    query = encoder.encode_query("a penguin", truncate_dim=32)
    assert np.abs(query - documents[0]).max() > 1e-3, "the model's prompts differ"
    for found in (
        model.get_text_embedding_batch(texts),
        asyncio.run(model.aget_text_embedding_batch(texts)),
        [model.get_text_embedding(text) for text in texts],
        [asyncio.run(model.aget_text_embedding(text)) for text in texts],
    ):
        np.testing.assert_array_equal(np.array(found, np.float32), documents)
    for one in (model.get_query_embedding("a penguin"), asyncio.run(model.aget_query_embedding("a penguin"))):
        np.testing.assert_array_equal(np.array(one, np.float32), query)
    assert model.model_name == str(tiny_model)
    assert Jv5kitEmbedding(encoder, embed_batch_size=7).embed_batch_size == 7
    assert model.class_name() == "Jv5kitEmbedding"


def test_tasks_are_the_adapters() -> None:
    retrieval, clustering = (
        np.array(Jv5kitEmbedding(task=task).get_query_embedding("a penguin")) for task in ("retrieval", "clustering")
    )
    assert np.abs(retrieval - clustering).max() > 1e-3


def test_an_index_of_llamaindex_over_a_store(tmp_path: Path, tiny_model: Path) -> None:
    store = Jv5kitVectorStore(tmp_path / "birds.jv5", lexical=True)
    model = Jv5kitEmbedding(tiny_model)
    documents = [
        LlamaDocument(text="the penguin swims in the cold sea", id_="penguin", metadata={"year": 2021}),
        LlamaDocument(text="a warm bird flies", id_="bird", metadata={"year": 2019}),
        LlamaDocument(text="huddle on the ice", id_="ice"),
    ]
    index = VectorStoreIndex.from_documents(
        documents, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=model
    )
    for found in (
        index.as_retriever(similarity_top_k=2).retrieve("a bird flies"),
        asyncio.run(index.as_retriever(similarity_top_k=2).aretrieve("a bird flies")),
    ):
        assert len(found) == 2
        assert store.client is not None
        hits = store.client.search(np.array(model.get_query_embedding("a bird flies")), 2)
        assert [(one.node.node_id, one.score) for one in found] == [(hit.id, hit.score) for hit in hits]
    # The words decide where the model does not.
    hybrid = index.as_retriever(similarity_top_k=3, vector_store_query_mode="hybrid", hybrid_top_k=1)
    assert [one.node.ref_doc_id for one in hybrid.retrieve("huddle")] == ["ice"]
    filters = MetadataFilters(filters=[MetadataFilter(key="year", value=2020, operator=FilterOperator.GT)])
    assert [one.node.ref_doc_id for one in index.as_retriever(filters=filters).retrieve("bird")] == ["penguin"]
    # Opened again, by its folder alone.
    again = VectorStoreIndex.from_vector_store(Jv5kitVectorStore(tmp_path / "birds.jv5"), embed_model=model)
    again.delete_ref_doc("bird")
    again.insert(LlamaDocument(text="the ice", id_="new"))
    left = index.as_retriever(similarity_top_k=9).retrieve("bird")
    assert {one.node.ref_doc_id for one in left} == {"penguin", "ice", "new"}


def test_a_pipeline_fills_a_store(tiny_model: Path) -> None:
    store = Jv5kitVectorStore()
    IngestionPipeline(transformations=[Jv5kitEmbedding(tiny_model)], vector_store=store).run(
        documents=[LlamaDocument(text="the sea", id_="a")]
    )
    assert [node.get_content() for node in store.get_nodes()] == ["the sea"]


def test_nodes_come_back_as_they_were(store: Jv5kitVectorStore) -> None:
    given = nodes()
    given.append(IndexNode(id_="index", text="about it", index_id="other", embedding=[1.0] * 16))
    given.append(ImageNode(id_="image", text="a caption", image_path="x.png", embedding=[2.0] * 16))
    given.append(
        TextNode(
            id_="é", text="Ünïcode 漢字 🐧\n", metadata={"doc_id": "mine", "a": {"b": [1, None]}}, embedding=[1.0] * 16
        )
    )
    store.add(given)
    for node, found in zip(given, store.get_nodes([node.node_id for node in given]), strict=True):
        node.embedding = None
        assert type(found) is type(node)
        assert found.to_dict() == node.to_dict()
    result = store.query(ask(similarity_top_k=99))
    assert {node.node_id for node in result.nodes or ()} == {node.node_id for node in given}


def test_a_query_finds_what_the_index_finds(store: Jv5kitVectorStore) -> None:
    query = ask(similarity_top_k=3)
    result = store.query(query)
    rows = truncate_embeddings(random_rows(5), 16)
    cosines = rows @ truncate_embeddings(random_rows(1, seed=1), 16)[0]
    best = np.argsort(-cosines)[:3]
    assert result.ids == [f"n{i}" for i in best]
    np.testing.assert_allclose(result.similarities or (), cosines[best], atol=1e-6)
    assert [node.node_id for node in result.nodes or ()] == result.ids
    assert asyncio.run(store.aquery(query)).ids == result.ids


def test_a_node_takes_the_place_of_the_one_of_its_id(store: Jv5kitVectorStore) -> None:
    asyncio.run(store.async_add([TextNode(id_="n1", text="new", embedding=[1.0] * 16)]))
    assert [node.get_content() for node in store.get_nodes(["n1"])] == ["new"]
    assert len(store.get_nodes()) == 5


def test_restricted_to_nodes_or_documents(store: Jv5kitVectorStore) -> None:
    assert set(store.query(ask(node_ids=["n1", "n4", "no"])).ids or ()) == {"n1", "n4"}
    assert set(store.query(ask(doc_ids=["doc1"])).ids or ()) == {"n1", "n3"}
    assert store.query(ask(doc_ids=["doc1"], node_ids=["n4"])).ids == []


def test_different_ones(store: Jv5kitVectorStore) -> None:
    # A copy of the best node is no news.
    best: Any = store.query(ask(similarity_top_k=1)).ids
    row = random_rows(5)[int(best[0][1:])].tolist()
    store.add([TextNode(id_="copy", text="copy", embedding=row)])
    near = store.query(ask(similarity_top_k=2)).ids
    different = store.query(ask(similarity_top_k=2, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3)).ids
    assert set(near or ()) == {best[0], "copy"}
    assert different is not None
    assert len(set(different) & {best[0], "copy"}) == 1
    assert store.query(ask(similarity_top_k=2, mode=VectorStoreQueryMode.MMR), mmr_threshold=1.0).ids == near


def test_deleting(store: Jv5kitVectorStore) -> None:
    store.delete("doc1")
    assert [node.node_id for node in store.get_nodes()] == ["n0", "n2", "n4"]
    store.delete("no such document")
    english = MetadataFilters(filters=[MetadataFilter(key="lang", value="en")])
    store.delete_nodes(["n0", "n4"], english)
    assert [node.node_id for node in store.get_nodes()] == ["n2", "n4"]
    store.delete_nodes(["n4", "no"])
    store.delete_nodes(filters=english)
    assert store.get_nodes() == []
    store.add(nodes())
    store.clear()
    assert store.query(ask()).ids == []


def test_an_empty_store() -> None:
    store = Jv5kitVectorStore()
    assert store.client is None
    assert store.add([]) == store.get_nodes() == store.query(ask()).ids == []
    store.delete("x")
    store.clear()


def one(key: str, operator: str, value: Any) -> Any:
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


FILTERS = [
    one("year", "==", 2021),
    one("year", "!=", 2021),
    one("year", ">", 2019),
    one("year", ">=", 2019),
    one("year", "<", 2021),
    one("year", "<=", 2021),
    one("year", "in", [2019, 2021, 1999]),
    one("year", "nin", [2019]),
    one("lang", "==", "en"),
    one("lang", "!=", "en"),
    one("weight", "<", 0.2),
    one("tags", "contains", "ice"),
    one("tags", "any", ["air", "sea"]),
    one("tags", "all", ["ice", "sea"]),
    one("none has it", "==", 1),
    one("none has it", "!=", 1),
]


@pytest.mark.parametrize("condition", list(FilterCondition))
@pytest.mark.parametrize("first", range(len(FILTERS)))
def test_filters_match_what_llamaindex_matches(
    store: Jv5kitVectorStore, first: int, condition: FilterCondition
) -> None:
    matches = {f"n{i}": metadata for i, metadata in enumerate(METADATA)}
    for second in range(first, len(FILTERS)):
        filters = MetadataFilters(filters=[FILTERS[first], FILTERS[second]], condition=condition)
        keep = build_metadata_filter_fn(matches.__getitem__, filters)
        expected = [name for name in matches if keep(name)]
        assert [node.node_id for node in store.get_nodes(filters=filters)] == expected, filters
        assert sorted(store.query(ask(filters=filters)).ids or ()) == expected


def test_filters_within_filters(store: Jv5kitVectorStore) -> None:
    """LlamaIndex's own store has none; they mean what they say."""
    either = MetadataFilters(filters=[one("year", "<", 2020), one("lang", "==", "fr")], condition=FilterCondition.OR)
    both = MetadataFilters(filters=[either, one("tags", "contains", "ice")])
    assert [node.node_id for node in store.get_nodes(filters=both)] == ["n3"]
    neither = MetadataFilters(filters=[either], condition=FilterCondition.NOT)
    assert [node.node_id for node in store.get_nodes(filters=neither)] == ["n0", "n2", "n4"]
    again = MetadataFilters(filters=[neither], condition=FilterCondition.NOT)
    assert [node.node_id for node in store.get_nodes(filters=again)] == ["n1", "n3"]
    assert len(store.get_nodes(filters=MetadataFilters(filters=[MetadataFilters(filters=[])]))) == 5


def matching(*filters: Any) -> Any:
    return MetadataFilters(filters=list(filters))


def test_an_index_of_jv5kit_is_opened(built: Path, tiny_model: Path) -> None:
    """One that the command line built, whose documents never were nodes."""
    store = Jv5kitVectorStore(built / "docs.jv5")
    model = Jv5kitEmbedding(tiny_model)
    (found,) = (
        VectorStoreIndex.from_vector_store(store, embed_model=model)
        .as_retriever(similarity_top_k=1, filters=matching(one("year", "==", 1)))
        .retrieve("the bird")
    )
    assert (found.node.node_id, found.node.text, found.node.metadata) == (
        "d1",
        "the bird 1\nof ice",
        {"title": "Warm", "year": 1},
    )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda store: store.add([TextNode(id_="x", text="a")]), "node 'x' has no embedding; let a VectorStoreIndex"),
        (
            lambda store: store.add(
                [TextNode(text="a", embedding=[1.0] * 16), TextNode(text="a", embedding=[1.0] * 8)]
            ),
            "the nodes have embeddings of 8 and 16 dimensions",
        ),
        (
            lambda store: store.add([TextNode(text="a", embedding=[1.0] * 8)]),
            "the embeddings have 8 dimensions; those of this index had 16",
        ),
        (lambda store: store.add([TextNode(id_="x", text=" ", embedding=[1.0] * 16)]), "node 'x': 'text' is empty"),
        (lambda store: store.query(ask(mode=VectorStoreQueryMode.SPARSE)), "mode 'sparse' is not known here; it must"),
        (lambda store: store.query(ask(alpha=0.5)), "the query has alpha=0.5, for which an index has no use: leave it"),
        (lambda store: store.query(ask(query_embedding=None)), "the query has no embedding; give query_embedding"),
        (lambda store: store.query(ask(query_embedding=[1.0] * 3)), "the queries have 3 dimensions"),
        (lambda store: store.query(ask(similarity_top_k=0)), "top_k=0; it must be at least 1"),
        (lambda store: store.query(ask(mode=VectorStoreQueryMode.HYBRID)), "hybrid search needs the words"),
        (lambda store: store.query(ask(mode=VectorStoreQueryMode.MMR, mmr_threshold=3)), "mmr_threshold=3; it must be"),
        (lambda store: store.delete_nodes(), "say which nodes to delete: node_ids, filters or both; clear"),
        (
            lambda store: store.get_nodes(filters=matching(one("lang", "text_match", "e"))),
            "the filter on 'lang' has the operator 'text_match', which an index cannot answer; it knows == != <",
        ),
        (
            lambda store: store.get_nodes(filters=matching(one("lang", "is_empty", None))),
            "the filter on 'lang' has the operator 'is_empty', which",
        ),
        (
            lambda store: store.get_nodes(filters=matching(one("lang", "in", "en"))),
            "the filter on 'lang' has 'en' after 'in'; it must be a list of values",
        ),
        (lambda store: store.get_nodes(filters=matching(one("lang", "==", None))), "the filter on 'lang' has null"),
        (lambda store: store.get_nodes(filters=matching(one("lang", ">", 3))), "its values are strings"),
        (lambda store: Jv5kitVectorStore(store.client.path, dim=8), "has dim=16, which dim=8 cannot change"),
        (lambda store: Jv5kitEmbedding("no such model"), "'no such model' is neither a folder nor a hub id"),
        (lambda store: Jv5kitEmbedding(task="poem"), "task='poem' is no adapter of this model"),
        (lambda store: Jv5kitEmbedding(truncate_dim=999), r"truncate_dim=999 is outside 1\.\.384"),
    ],
)
def test_what_is_wrong_is_said(store: Jv5kitVectorStore, act: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        act(store)
    assert len(store.get_nodes()) == 5


def test_without_llamaindex() -> None:
    for module in ("llamaindex", "llamaindex_filters"):
        code = (
            "import sys; sys.modules['llama_index'] = None\n"
            f"try: import jv5kit.integrations.{module}\n"
            "except ImportError as error: print(type(error).__name__, error)"
        )
        printed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
        ).stdout
        assert printed.startswith(MissingExtraError.__name__)
        assert printed.endswith("is missing): pip install 'jv5kit[llamaindex]'\n")
