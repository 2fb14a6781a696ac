"""LangChain's embeddings and vector store: what its own tests (test_langchain_suites.py) do not ask."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command import environment, random_rows
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.indexing import index as index_documents
from langchain_core.vectorstores.utils import maximal_marginal_relevance as theirs

from jv5kit import Encoder, Index, search, truncate_embeddings
from jv5kit.contents import embeddings as stored_embeddings
from jv5kit.errors import IndexExistsError, InputError, MissingExtraError
from jv5kit.integrations.diversity import maximal_marginal_relevance
from jv5kit.integrations.langchain import Jv5kitEmbeddings, Jv5kitVectorStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BIRDS = [
    Document("Emperor penguins huddle to stay warm.", id="emperor", metadata={"year": 2021, "tags": ["ice", "sea"]}),
    Document("Swifts sleep, eat and drink on the wing.", id="swift", metadata={"year": 2019, "tags": ["air"]}),
    Document("Arctic terns fly from pole to pole.", id="tern", metadata={"year": 2023}),
]


STORE: Any = Jv5kitVectorStore
"""Takes what no type checker would let pass."""


@pytest.fixture
def birds(tiny_model: Path, tmp_path: Path) -> Iterator[Jv5kitVectorStore]:
    store = Jv5kitVectorStore.from_documents(
        BIRDS, Jv5kitEmbeddings(tiny_model), path=tmp_path / "birds.jv5", precision="float32", lexical=True
    )
    yield store
    store.index.close()


def test_embeddings_are_those_of_the_encoder(tiny_model: Path) -> None:
    encoder = Encoder.from_pretrained(tiny_model)
    embeddings = Jv5kitEmbeddings(tiny_model, truncate_dim=32)
    texts = ["a penguin", "the sea"]
    np.testing.assert_array_equal(
        np.array(embeddings.embed_documents(texts), np.float32), encoder.encode_document(texts, truncate_dim=32)
    )
    # The model's prompts differ.
    query = np.array(embeddings.embed_query("a penguin"), np.float32)
    np.testing.assert_array_equal(query, encoder.encode_query("a penguin", truncate_dim=32))
    assert np.abs(query - np.array(embeddings.embed_documents(["a penguin"])[0])).max() > 1e-3
    assert embeddings.embed_documents([]) == []
    assert Jv5kitEmbeddings(encoder).encoder is encoder


def test_tasks_are_the_adapters() -> None:
    retrieval, clustering = (
        np.array(Jv5kitEmbeddings(task=task).embed_query("a penguin")) for task in ("retrieval", "clustering")
    )
    assert np.abs(retrieval - clustering).max() > 1e-3


def test_a_store_finds_what_the_index_finds(birds: Jv5kitVectorStore) -> None:
    found = birds.similarity_search_with_score("a bird in the ice", k=3)
    hits = birds.index.search("a bird in the ice", 3)
    assert [(one.id, one.page_content, one.metadata, score) for one, score in found] == [
        (hit.id, hit.text, hit.metadata, hit.score) for hit in hits
    ]
    assert birds.similarity_search("a bird in the ice", k=3) == [one for one, _ in found]
    vector = birds.embeddings.embed_query("a bird in the ice")
    assert birds.similarity_search_by_vector(vector, k=3) == [one for one, _ in found]
    assert len(birds.similarity_search("a bird")) == 3


def test_the_index_is_one_that_search_searches(birds: Jv5kitVectorStore) -> None:
    found = birds.similarity_search("a bird", k=1)
    assert [hit.id for hit in search("a bird", birds.index.path, top_k=1)] == [found[0].id]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"year": 2021}, {"emperor"}),
        ({"year": [2019, 2023]}, {"swift", "tern"}),
        ("year >= 2021", {"emperor", "tern"}),
        ({"tags": "air"}, {"swift"}),
        ("tags not exists", {"tern"}),
    ],
)
def test_filters(birds: Jv5kitVectorStore, filter: Any, expected: set[str]) -> None:
    vector = birds.embeddings.embed_query("a bird")
    for found in (
        birds.similarity_search("a bird", filter=filter),
        birds.similarity_search_by_vector(vector, filter=filter),
        birds.max_marginal_relevance_search("a bird", filter=filter),
        birds.max_marginal_relevance_search_by_vector(vector, filter=filter),
        birds.as_retriever(search_kwargs={"filter": filter}).invoke("a bird"),
    ):
        assert {one.id for one in found} == expected


def test_hybrid_search(birds: Jv5kitVectorStore, tmp_path: Path) -> None:
    assert birds.similarity_search("huddle", k=1, hybrid=True)[0].id == "emperor"
    given = Jv5kitVectorStore.from_documents(BIRDS, DeterministicFakeEmbedding(size=16), lexical=True)
    assert given.similarity_search("huddle", k=1, hybrid=True)[0].id == "emperor"
    plain = Jv5kitVectorStore.from_documents(BIRDS, DeterministicFakeEmbedding(size=16))
    with pytest.raises(InputError, match=r"no lexical index to search with; build it with .*lexical=True"):
        plain.similarity_search("huddle", hybrid=True)


def test_retrievers(birds: Jv5kitVectorStore) -> None:
    scored = birds.similarity_search_with_relevance_scores("a bird", k=3)
    assert [score for _, score in scored] == [hit.score for hit in birds.index.search("a bird", 3)]
    middle = scored[1][1]
    retriever = birds.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"k": 3, "score_threshold": middle}
    )
    assert [one.id for one in retriever.invoke("a bird")] == [one.id for one, _ in scored[:2]]
    retriever = birds.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 3})
    assert [one.id for one in asyncio.run(retriever.ainvoke("a bird"))] == [
        one.id for one in retriever.invoke("a bird")
    ]


def test_relevance_is_within_0_and_1(tmp_path: Path) -> None:
    """A cosine below 0 is as dissimilar as LangChain's scores can say."""
    store = Jv5kitVectorStore.from_texts(["the sea", "a bird"], DeterministicFakeEmbedding(size=2), precision="float32")
    scores = dict(store.similarity_search_with_score("any", k=2)[i][::-1] for i in range(2))
    assert len(scores) == 2
    relevance = [score for _, score in store.similarity_search_with_relevance_scores("any", k=2)]
    assert relevance == [max(0.0, score) for score in sorted(scores, reverse=True)]


@pytest.mark.parametrize("options", [{"precision": "float32"}, {"precision": "int8"}, {}, {"rescore": "codes"}])
@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 1.0])
def test_marginal_relevance_is_that_of_langchain(options: Any, lambda_mult: float, tmp_path: Path) -> None:
    rows = random_rows(40)
    index = Index.build(tmp_path / "x.jv5", embeddings=rows, **options)
    index.delete(["3", "4"])
    query = truncate_embeddings(random_rows(1, seed=1), 16)[0]
    hits = index.search(query, 20, oversample=100)
    kept = stored_embeddings(index, [hit.id for hit in hits])
    embeddings = np.array([kept[hit.id] for hit in hits])
    tolerance = {"float32": 1e-6, "int8": 0.01}.get(options.get("precision", ""), 0.01)
    if options != {"rescore": "codes"}:
        given = truncate_embeddings(rows, 16)[[int(hit.id) for hit in hits]]
        np.testing.assert_allclose(embeddings, given, atol=tolerance)
    scores = np.array([hit.score for hit in hits], np.float32)
    np.testing.assert_allclose(truncate_embeddings(embeddings, 16) @ query, scores, atol=tolerance)
    chosen = maximal_marginal_relevance(scores, embeddings, 8, lambda_mult)
    if options == {"precision": "float32"}:
        assert chosen == theirs(query, embeddings.tolist(), lambda_mult, 8)
    if lambda_mult == 1:
        assert chosen == list(range(8))
    elif options != {"rescore": "codes"}:
        assert chosen[0] == 0
        assert chosen != list(range(8))
    assert len(maximal_marginal_relevance(scores, embeddings, 99, lambda_mult)) == 20


def test_it_is_on_disk_and_opened_again(birds: Jv5kitVectorStore, tiny_model: Path) -> None:
    path = birds.index.path
    again = Jv5kitVectorStore(path=path)
    assert again.similarity_search("a bird", k=1) == birds.similarity_search("a bird", k=1)
    # Each sees what the other one writes.
    again.add_texts(["the ice"], [{"year": 2030}], ids=["new"])
    assert [one.id for one in birds.get_by_ids(["new"])] == ["new"]
    assert isinstance(again.embeddings, Jv5kitEmbeddings)
    assert again.embeddings.encoder.checkpoint.name == str(tiny_model)
    birds.delete(["new"])
    assert again.get_by_ids(["new", "swift"]) == [BIRDS[1]]


def test_an_index_of_jv5kit_is_opened(built: Path) -> None:
    """One that the command line built, with titles."""
    store = Jv5kitVectorStore(path=built / "docs.jv5")
    (found,) = store.get_by_ids(["d1"])
    assert found == Document("the bird 1\nof ice", id="d1", metadata={"title": "Warm", "year": 1})
    assert store.similarity_search("the bird", k=1, filter={"year": 1}) == [found]


def test_without_a_path_it_is_temporary() -> None:
    store = Jv5kitVectorStore.from_texts(["the sea"], DeterministicFakeEmbedding(size=16))
    path = store.index.path
    assert path.is_dir()
    store.index.close()
    del store
    assert not path.exists()


def test_a_model_is_loaded_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.from_pretrained(tiny_model)
    fingerprints = []
    checkpoint = type(encoder.checkpoint)
    take = checkpoint.fingerprint

    def counted(self: Any) -> str:
        fingerprints.append(self)
        return take(self)

    monkeypatch.setattr(checkpoint, "fingerprint", counted)
    store = Jv5kitVectorStore.from_texts(["the sea", "a bird"], Jv5kitEmbeddings(encoder))
    assert store.index.encoder is encoder
    before = len(fingerprints)
    for _ in range(3):
        assert len(store.similarity_search("the sea")) == 2
    assert len(fingerprints) == before, "files of the model are read for a query"


def test_langchain_keeps_a_store_in_step_with_its_documents(birds: Jv5kitVectorStore) -> None:
    """By its own indexing, which deletes what is no longer there."""
    records = InMemoryRecordManager("birds")
    records.create_schema()
    birds.delete()
    assert index_documents(BIRDS, records, birds, cleanup="full", key_encoder="sha256")["num_added"] == 3
    counts = index_documents(BIRDS[1:], records, birds, cleanup="full", key_encoder="sha256")
    assert (counts["num_added"], counts["num_skipped"], counts["num_deleted"]) == (0, 2, 1)
    assert len(birds.index) == 2


def test_batches_are_embedded_and_committed_one_after_another() -> None:
    sizes = []

    class Counting(DeterministicFakeEmbedding):  # type: ignore[misc]  # The base is Any to mypy.
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            sizes.append((len(texts), len(store.index) if store.get_by_ids(["0"]) else 0))
            return list(super().embed_documents(texts))

    store = Jv5kitVectorStore(Counting(size=16))
    store.add_texts([f"text {i}" for i in range(5)], ids=list("01234"), batch_size=2)
    assert sizes == [(2, 0), (2, 2), (1, 4)]
    # What cannot be stored is refused before anything is embedded.
    wrong: Any = [*"abc", 7]
    with pytest.raises(InputError, match="text 4: 'text' must be a string, but is 7"):
        store.add_texts(wrong, batch_size=2)
    assert len(sizes) == 3


def test_all_are_deleted(birds: Jv5kitVectorStore) -> None:
    assert birds.delete()
    assert birds.similarity_search("a bird") == []
    assert len(birds.index) == 0
    birds.add_documents(BIRDS[:1])
    assert [one.id for one in birds.similarity_search("a bird")] == ["emperor"]


def test_several_threads_add(tmp_path: Path) -> None:
    store = Jv5kitVectorStore(DeterministicFakeEmbedding(size=16), tmp_path / "store.jv5")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: store.add_texts([f"text {i}"], ids=[str(i)]), range(12)))
    assert len(store.index) == 12


def test_a_search_does_not_wait_for_what_is_added(birds: Jv5kitVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = Event(), Event()
    encode = Encoder.encode_document

    def slow(self: Encoder, *arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return encode(self, *arguments, **options)

    monkeypatch.setattr(Encoder, "encode_document", slow)
    with ThreadPoolExecutor(2) as pool:
        adding = pool.submit(birds.add_texts, ["the sea"], ids=["sea"])
        try:
            assert begun.wait(60)
            assert len(pool.submit(birds.similarity_search, "a bird", 9).result(60)) == 3
            assert not adding.done()
        finally:
            go_on.set()
        assert adding.result(60) == ["sea"]
    assert len(birds.similarity_search("a bird", 9)) == 4


def test_an_adapter_of_another_task_gives_embeddings() -> None:
    """An index has a model for retrieval; what another task embeds is kept as it is given."""
    embeddings = Jv5kitEmbeddings(task="clustering")
    store = Jv5kitVectorStore.from_texts(["the sea", "a bird"], embeddings, precision="float32")
    assert store.embeddings is embeddings
    assert store.index.settings.model is None
    (_, score), _ = store.similarity_search_with_score("a bird")
    assert score == pytest.approx(1, abs=1e-3)


def test_nothing_is_added() -> None:
    store = Jv5kitVectorStore(DeterministicFakeEmbedding(size=16))
    assert store.add_texts([]) == []
    assert store.delete(["x"])
    assert store.max_marginal_relevance_search("x") == store.similarity_search_by_vector([1.0] * 16) == []
    with pytest.raises(InputError, match=r"store\.jv5 is no index yet: the first documents that are added make it"):
        store.index  # noqa: B018 - a property that raises.


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda store: store.add_texts("text"), "texts is the string 'text'; give a list of texts"),
        (lambda store: store.add_texts(["a", "b"], [{}]), "there are 1 metadatas for 2 texts; give one for each"),
        (lambda store: store.add_texts(["a", "b"], ids=["1"]), "there are 1 ids for 2 texts; give one for each"),
        (lambda store: store.add_texts(["a"], batch_size=0), "batch_size=0; it must be at least 1"),
        (lambda store: store.add_texts(["a", " "]), "text 2: 'text' is empty"),
        (lambda store: store.add_texts(["a"], [{"x": float("nan")}]), "text 1: the metadata is not JSON"),
        (lambda store: store.add_texts(["a"], [{"x": object()}]), "text 1: the metadata is not JSON"),
        (lambda store: store.add_texts(["a"], ids=["\0"]), "text 1: 'id' has a NUL character"),
        (lambda store: store.similarity_search(7), "the query is int 7; it must be a string"),
        (lambda store: store.similarity_search("a", k=0), "top_k=0; it must be at least 1"),
        (lambda store: store.similarity_search("a", filter=lambda _: True), "the filter is function .* or a dict"),
        (lambda store: store.similarity_search("a", filter="year >"), "expected a number"),
        (lambda store: store.similarity_search("a", filter={"year": "x"}), "its values are numbers"),
        (lambda store: store.similarity_search_by_vector([1.0] * 7), "the queries have 7 dimensions"),
        (lambda store: store.max_marginal_relevance_search("a", k=0), "k=0; it must be at least 1"),
        (lambda store: store.max_marginal_relevance_search("a", lambda_mult=2), "lambda_mult=2; it must be from 0"),
        (lambda store: store.get_by_ids("swift"), "ids is the string 'swift'; give a list"),
        (lambda store: store.delete("swift"), "ids is the string 'swift'; give a list"),
        (lambda store: Jv5kitVectorStore(path=store.index.path, dim=8), "has dim=64, which dim=8 cannot change"),
        (lambda store: Jv5kitVectorStore(path=store.index.path, precision="int8"), "has precision='float32', which"),
        (
            lambda store: Jv5kitVectorStore(DeterministicFakeEmbedding(size=64), store.index.path),
            r"was built with the model '.*tiny', whose embeddings are not those of DeterministicFakeEmbedding: leave",
        ),
        (lambda store: Jv5kitVectorStore(Jv5kitEmbeddings(), store.index.path), "was built with another model"),
        (lambda store: Jv5kitVectorStore("pico"), "embedding is str 'pico'; it must be embeddings of LangChain"),
        (lambda store: STORE(precision="int4"), "precision='int4' is not known"),
        (
            lambda store: STORE(shards=4),
            "shards=4 is no option of a vector store; it has dim, precision,",
        ),
        (lambda store: Jv5kitEmbeddings("no such model"), "'no such model' is neither a folder nor a hub id"),
        (lambda store: Jv5kitEmbeddings(task="poem"), "task='poem' is no adapter of this model"),
        (lambda store: Jv5kitEmbeddings(truncate_dim=999), r"truncate_dim=999 is outside 1\.\.384"),
    ],
)
def test_what_is_wrong_is_said(birds: Jv5kitVectorStore, act: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        act(birds)
    assert len(birds.index) == 3


def test_given_embeddings_must_be_named_again(tmp_path: Path) -> None:
    Jv5kitVectorStore.from_texts(["the sea"], DeterministicFakeEmbedding(size=16), path=tmp_path / "x.jv5")
    with pytest.raises(InputError, match=r"x\.jv5 was built from given embeddings: say with embedding= what made them"):
        Jv5kitVectorStore(path=tmp_path / "x.jv5")
    with pytest.raises(InputError, match="the embeddings have 8 dimensions; those of this index had 16"):
        Jv5kitVectorStore(DeterministicFakeEmbedding(size=8), tmp_path / "x.jv5").add_texts(["the ice"])


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(IndexExistsError):
        Jv5kitVectorStore.from_texts(["the sea"], DeterministicFakeEmbedding(size=16), path=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_langchain() -> None:
    code = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "try: import jv5kit.integrations.langchain\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    ).stdout
    assert printed.startswith(f"{MissingExtraError.__name__} jv5kit.integrations.langchain needs langchain-core (")
    assert printed.endswith("is missing): pip install 'jv5kit[langchain]'\n")
