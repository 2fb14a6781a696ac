"""The forward pass in Rust: no torch, no padding, the same embedding of a text to the last bit in any batch."""

from __future__ import annotations

import json
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit import _native
from jv5kit.errors import InputError, Jv5kitError, ModelNotFoundError
from jv5kit.pretrained import read_config
from jv5kit.weights import read_adapter, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.backends import BackendName, DType, Output
    from jv5kit.pretrained import Checkpoint

BATCH_TOKENS = 16384
"""Tokens of a call: enough for every thread to be busy, little enough for progress to be seen."""


def why_not_native(checkpoint: Checkpoint) -> str | None:
    """Why a model cannot run natively, as the end of a sentence that begins with the model; None if it can."""
    return _native.why_not_native(_settings(checkpoint))


class NativeBackend:
    """A model in Rust, on the CPU.

    Raises:
        ModelNotFoundError: the weights lack a tensor, have one too many, or one of another shape or with a value
            that is no number.
    """

    name: BackendName = "native"
    batch_tokens = BATCH_TOKENS
    pads = False
    device = "cpu"

    def __init__(self, checkpoint: Checkpoint, dtype: DType | None = None) -> None:
        self._checkpoint = checkpoint
        tensors = read_weights(sorted(checkpoint.folder.glob("*.safetensors")))
        adapters = [(name, *read_adapter(folder)) for name, folder in checkpoint.adapters.items()]
        try:
            self._model = _native.Model(_settings(checkpoint), tensors, adapters, dtype)
        except InputError as error:
            raise self._named(error, " cannot be loaded") from None
        self.dtype: DType = self._model.dtype

    def embed(self, batch: Sequence[Sequence[int]], adapter: str | None, output: Output) -> NDArray[Any]:
        """Embed token sequences, none of them empty: ``(len(batch), dim)`` float32, or uint8 codes.

        Raises:
            ModelNotFoundError: a token is beyond the vocabulary, or the weights are no numbers.
        """
        starts = np.fromiter(accumulate(map(len, batch), initial=0), np.int64, len(batch) + 1)
        tokens = np.fromiter(chain.from_iterable(batch), np.uint32, int(starts[-1]))
        try:
            return self._model.embed(
                tokens,
                starts,
                pooling=self._checkpoint.pooling,
                adapter=adapter,
                dim=output.dim,
                unit=output.unit,
                normalize=output.normalize,
                binary=output.binary,
                threads=None,
            )
        except InputError as error:
            raise self._named(error, "") from None

    def _named(self, error: InputError, problem: str) -> Jv5kitError:
        """The error with the model's name; but of a variable that makes no sense, which is no fault of the model."""
        if str(error).startswith("JV5KIT_"):
            return error
        return ModelNotFoundError(f"model {self._checkpoint.name!r}{problem}: {error}")


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
