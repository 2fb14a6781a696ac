"""What the stores beside the folder have in common: the model, and who may add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self, Unpack

from jv5kit.index_model import IndexModel

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from jv5kit.building import Added, AddOptions
    from jv5kit.encoder import Encoder
    from jv5kit.storage.state import Settings
    from jv5kit.types import Document


class EngineStore(ABC):
    """A store that is no folder of one index; see :class:`jv5kit.stores.Store`.

    Args:
        name: of the index, as messages have it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._model = IndexModel(name)

    @property
    def name(self) -> str:
        """The path or the URL, without a password, as messages have it."""
        return self._name

    @property
    @abstractmethod
    def settings(self) -> Settings:
        """What built the index."""

    @property
    def encoder(self) -> Encoder:
        """The model that built the index, loaded when it is first used.

        Raises:
            InputError: the index was built from given embeddings.
            ModelNotFoundError: the model is not to be had, or is another one than that of the index.
        """
        return self._model.encoder(self.settings)

    def use_encoder(self, model: Encoder | str | os.PathLike[str], /) -> None:
        """Say where the model of the index is now: an encoder, a folder or a hub id.

        Raises:
            ModelNotFoundError: the model is not to be had, or is another one than that of the index.
        """
        self._model.use(self.settings, model)

    def add(
        self, documents: Iterable[Document | Mapping[str, Any]] | None = None, /, **options: Unpack[AddOptions]
    ) -> Added:
        """Add documents, encoded as those that are there; those that are there already, identical, are passed over.

        Raises:
            DuplicateError: an id belongs to another document.
            InputError: a document or an embedding is wrong; what was committed before it stays.
            Jv5kitError: the index cannot be written.
        """
        return self._add(documents, options, upsert=False)

    def upsert(
        self, documents: Iterable[Document | Mapping[str, Any]] | None = None, /, **options: Unpack[AddOptions]
    ) -> Added:
        """Add documents, each in the place of the one that has its id, if there is one; otherwise as :meth:`add`."""
        return self._add(documents, options, upsert=True)

    @abstractmethod
    def _add(
        self, documents: Iterable[Document | Mapping[str, Any]] | None, options: AddOptions, *, upsert: bool
    ) -> Added:
        """Add documents."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    def __enter__(self) -> Self:
        """It is open from its making on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
