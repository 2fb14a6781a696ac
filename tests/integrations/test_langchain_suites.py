"""LangChain's own tests of embeddings and of vector stores, on ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, VectorStoreIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from jv5kit.integrations.langchain import Jv5kitEmbeddings, Jv5kitVectorStore

if TYPE_CHECKING:
    from pathlib import Path


# mypy sees the library as Any, see pyproject.toml: hence the ignored bases.
class TestEmbeddings(EmbeddingsIntegrationTests):  # type: ignore[misc]  # The base is Any to mypy.
    @property
    def embeddings_class(self) -> type[Jv5kitEmbeddings]:
        return Jv5kitEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "pico", "truncate_dim": 64}


class TestMadeEmbeddings(EmbeddingsUnitTests):  # type: ignore[misc]  # The base is Any to mypy.
    @property
    def embeddings_class(self) -> type[Jv5kitEmbeddings]:
        return Jv5kitEmbeddings


class TestStoreOfGivenEmbeddings(VectorStoreIntegrationTests):  # type: ignore[misc]  # The base is Any to mypy.
    @pytest.fixture(params=[{}, {"precision": "int8"}, {"precision": "float32", "hnsw": True}, {"rescore": "codes"}])
    def vectorstore(self, request: pytest.FixtureRequest, tmp_path: Path) -> Jv5kitVectorStore:
        return Jv5kitVectorStore(self.get_embeddings(), tmp_path / "store.jv5", dim=128, **request.param)

    @staticmethod
    def get_embeddings() -> Any:
        return DeterministicFakeEmbedding(size=130)


class TestStoreOfOurModel(VectorStoreIntegrationTests):  # type: ignore[misc]  # The base is Any to mypy.
    @pytest.fixture
    def vectorstore(self) -> Jv5kitVectorStore:
        return Jv5kitVectorStore()
