"""The forward pass in Rust: no torch, no padding, the same embedding of a text to the last bit in any batch."""

from __future__ import annotations

import json
import math
import threading
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit import _native
from jv5kit.errors import ModelNotFoundError
from jv5kit.pretrained import read_config
from jv5kit.weights import merge_adapter, read_adapter, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.backends import BackendName, DType, Output
    from jv5kit.pretrained import Checkpoint
    from jv5kit.weights import Tensor

BATCH_TOKENS = 16384
"""Tokens of a call: enough for every thread to be busy, little enough for progress to be seen."""

MERGED_VALUES = 16 << 20
"""Values of a model's layers up to which an adapter is added to its weights: 32 MB an adapter in bfloat16.

An adapter that stays apart takes no such memory, and up to a sixth more products where its rank is a twelfth of the
width.
"""


def why_not_native(checkpoint: Checkpoint) -> str | None:
    """Why a model cannot run natively, as the end of a sentence that begins with the model; None if it can."""
    return _native.why_not_native(_settings(checkpoint))


class NativeBackend:
    """A model in Rust, on the CPU.

    Raises:
        ModelNotFoundError: the weights lack a tensor, or have one too many, or one of another shape, or values that are
            no numbers.
    """

    name: BackendName = "native"
    batch_tokens = BATCH_TOKENS
    pads = False
    device = "cpu"

    def __init__(self, checkpoint: Checkpoint, dtype: DType | None = None) -> None:
        self._checkpoint = checkpoint
        self._tensors = read_weights(sorted(checkpoint.folder.glob("*.safetensors")))
        self._merges = bool(checkpoint.adapters) and _matrix_values(self._tensors) <= MERGED_VALUES
        self._models: dict[str | None, _native.Model] = {}
        self._lock = threading.Lock()
        # What the first call will ask for, most likely.
        first = "retrieval" if "retrieval" in checkpoint.adapters else next(iter(checkpoint.adapters), None)
        self.dtype: DType = self._model(first, dtype).dtype

    def embed(self, batch: Sequence[Sequence[int]], adapter: str | None, output: Output) -> NDArray[Any]:
        """Embed token sequences, none of them empty: ``(len(batch), dim)`` float32, or uint8 codes.

        Raises:
            ModelNotFoundError: a token is beyond the vocabulary, or the weights are no numbers; of an adapter that is
                asked for the first time, its files cannot be used.
        """
        starts = np.fromiter(accumulate(map(len, batch), initial=0), np.int64, len(batch) + 1)
        tokens = np.fromiter(chain.from_iterable(batch), np.uint32, int(starts[-1]))
        model = self._model(adapter, self.dtype)
        try:
            return model.embed(
                tokens,
                starts,
                pooling=self._checkpoint.pooling,
                adapter=None if self._merges else adapter,
                dim=output.dim,
                unit=output.unit,
                normalize=output.normalize,
                binary=output.binary,
                threads=None,
            )
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"model {self._checkpoint.name!r}: {error}") from None

    def _model(self, adapter: str | None, dtype: DType | None) -> _native.Model:
        """The model that has an adapter: of a small model one with it in the weights, made at its first use."""
        merged = adapter if self._merges else None
        with self._lock:
            if merged not in self._models:
                try:
                    self._models[merged] = self._load(merged, dtype)
                except ModelNotFoundError as error:
                    raise ModelNotFoundError(f"model {self._checkpoint.name!r} cannot be loaded: {error}") from None
            return self._models[merged]

    def _load(self, merged: str | None, dtype: DType | None) -> _native.Model:
        checkpoint, tensors = self._checkpoint, dict(self._tensors)
        if merged is not None:
            merge_adapter(tensors, checkpoint.adapters[merged])
        apart = {} if self._merges else checkpoint.adapters
        adapters = [(name, *read_adapter(folder)) for name, folder in apart.items()]
        return _native.Model(_settings(checkpoint), tensors, adapters, dtype)


def _matrix_values(tensors: dict[str, Tensor]) -> int:
    """Values of the matrices of all layers, which are those that have a number in their name."""
    return sum(
        math.prod(shape)
        for name, (_, shape, _) in tensors.items()
        if len(shape) == 2 and any(part.isdecimal() for part in name.split("."))
    )


def _settings(checkpoint: Checkpoint) -> dict[str, str]:
    """The settings of ``config.json``, those of an object in it by ``object.setting``; values as JSON has them."""

    def text(value: object) -> str:
        return json.dumps(value).strip('"')

    config = read_config(checkpoint)
    settings = [(name, value) for name, value in config.items() if not isinstance(value, dict)]
    for name, group in config.items():
        if isinstance(group, dict):
            settings += [(f"{name}.{key}", value) for key, value in group.items()]
    return {
        text(name): text(value) for name, value in settings if value is None or isinstance(value, str | int | float)
    }
