"""What a forward pass is, and which one a model gets: Rust on a CPU, torch on a GPU and for what Rust does not know."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from jv5kit.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.pretrained import Checkpoint

BackendName = Literal["native", "torch"]
DType = Literal["float32", "bfloat16"]

_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of GPUs make: a look at them costs nothing, to import torch and ask it takes seconds."""


@dataclass(frozen=True, slots=True)
class Output:
    """What becomes of pooled embeddings.

    Attributes:
        dim: dimensions to keep.
        unit: bring them to unit length before that.
        normalize: bring them to unit length after that.
        binary: keep their sign bits only.
    """

    dim: int
    unit: bool
    normalize: bool
    binary: bool


class Backend(Protocol):
    """A forward pass: token ids in, embeddings out.

    Attributes:
        batch_tokens: tokens of a batch; where it ``pads``, the padding counts.
        pads: whether the texts of a batch should be of like length.
        dtype: what the matrix products are computed in.
    """

    name: BackendName
    batch_tokens: int
    pads: bool
    dtype: DType

    @property
    def device(self) -> str:
        """Where it runs."""

    def embed(self, batch: Sequence[Sequence[int]], adapter: str | None, output: Output) -> NDArray[Any]:
        """Embed token sequences, none of them empty: ``(len(batch), dim)`` float32, or uint8 codes."""


def choose_backend(
    checkpoint: Checkpoint, backend: BackendName | None = None, device: str | None = None
) -> tuple[BackendName, str]:
    """The backend of a model, and why it is that.

    Args:
        checkpoint: the model.
        backend: the one that is asked for.
        device: the device that is asked for.

    Raises:
        InputError: the backend is not known, or cannot run this model or on this device.
        MissingExtraError: only torch can run this model, and it is not installed.
    """
    from jv5kit.native import why_not_native

    if backend not in (None, *get_args(BackendName)):
        raise InputError(f"backend={backend!r} is not known; choose one of {', '.join(get_args(BackendName))}")
    if backend == "torch":
        return "torch", "asked for"
    elsewhere = device is not None and device != "cpu"
    why_not = why_not_native(checkpoint)
    if backend == "native":
        if elsewhere:
            raise InputError(
                f"device={device!r} cannot be used: the native backend runs on the CPU; use backend='torch'"
            )
        if why_not is not None:
            raise InputError(f"model {checkpoint.name!r} {why_not}; use backend='torch'")
        return "native", "asked for"
    if elsewhere:
        return "torch", f"device {device} is asked for"
    if why_not is None:
        if device is None and _has_gpu() and importlib.util.find_spec("torch") is not None:
            return "torch", "there is a GPU"
        return "native", "the architecture is known and this is a CPU"
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise MissingExtraError(
            f"model {checkpoint.name!r} {why_not}, and torch, which might run it, is not installed: "
            "pip install 'jv5kit[torch]'"
        )
    return "torch", f"the model {why_not}"


def load_backend(
    checkpoint: Checkpoint,
    backend: BackendName | None = None,
    device: str | None = None,
    dtype: DType | None = None,
) -> Backend:
    """Load a model's weights into the backend that it gets.

    Raises:
        InputError, MissingExtraError: as :func:`choose_backend`; or the dtype is not known.
        ModelNotFoundError: the weights cannot be used.
    """
    if dtype not in (None, *get_args(DType)):
        raise InputError(f"dtype={dtype!r} is not known; choose one of {', '.join(get_args(DType))}")
    name, _ = choose_backend(checkpoint, backend, device)
    if name == "native":
        from jv5kit.native import NativeBackend

        return NativeBackend(checkpoint, dtype)
    from jv5kit.modeling import TorchBackend

    return TorchBackend(checkpoint, device, dtype)


def _has_gpu() -> bool:
    return any(Path(file).exists() for file in _GPU_FILES)
