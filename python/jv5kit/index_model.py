"""The model of an index: the one that built it, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jv5kit.encoder import Encoder, shared_encoder
from jv5kit.errors import InputError, ModelNotFoundError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from jv5kit.storage.state import Settings


class IndexModel:
    """The encoder of the index of a name, loaded when it is first used."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loaded: tuple[str, Encoder] | None = None

    def encoder(self, settings: Settings) -> Encoder:
        """The encoder of the index when it has these settings.

        Raises:
            InputError: the index was built from given embeddings.
            ModelNotFoundError: the model is not to be had, or is another one than that of the index.
        """
        loaded = self._loaded
        # The index may have been replaced by one of another model.
        if loaded is None or loaded[0] != settings.fingerprint:
            loaded = self._loaded = self._load(settings, settings.model)
        return loaded[1]

    def encode_queries(self, settings: Settings, texts: Sequence[str]) -> NDArray[np.float32]:
        """Queries as the model of the index has them, not yet at unit length."""
        return self.encoder(settings).encode(texts, prompt=settings.query_prompt, normalize_embeddings=False)

    def use(self, settings: Settings, model: Encoder | str | os.PathLike[str]) -> None:
        """Say where the model is now: an encoder, a folder or a hub id.

        Raises:
            ModelNotFoundError: it is not to be had, or is another one than that of the index.
        """
        self._loaded = self._load(settings, model)

    def _load(self, settings: Settings, model: Encoder | str | os.PathLike[str] | None) -> tuple[str, Encoder]:
        """The encoder of the index, and its fingerprint."""
        if settings.model is None:
            raise InputError(f"{self._name} was built from given embeddings, not texts: search it by embeddings")
        try:
            encoder = model if isinstance(model, Encoder) else shared_encoder(model)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(
                f"{self._name} was built with model {settings.model!r}: {error}. "
                "Say where it is: --model FOLDER, or Index.use_encoder(FOLDER)"
            ) from error
        fingerprint = encoder.checkpoint.fingerprint()
        if fingerprint != settings.fingerprint:
            raise ModelNotFoundError(
                f"{self._name} was built with another model ({settings.model!r}, fingerprint {settings.fingerprint}) "
                f"than {encoder.checkpoint.name!r} (fingerprint {fingerprint}); their embeddings do not compare"
            )
        return fingerprint, encoder
