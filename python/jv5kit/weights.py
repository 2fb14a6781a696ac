"""Weights files and adapters of a model: safetensors, mapped, so that a tensor is not read before it is needed."""

from __future__ import annotations

import json
import math
import mmap
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.errors import ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

Tensor = tuple[str, list[int], "NDArray[np.uint8]"]
"""The type's name in the file, the shape, the bytes."""

_MAX_HEADER_BYTES = 100 << 20
_NOT_PLAIN = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_pattern",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
)
"""Options of PEFT that make of an adapter more than two matrices a layer."""

_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def read_weights(files: Iterable[Path]) -> dict[str, Tensor]:
    """All tensors of some files, by name.

    Raises:
        ModelNotFoundError: a file is no safetensors file or is cut short; a name is there twice.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        for name, tensor in _read_file(path):
            if name in tensors:
                raise ModelNotFoundError(f"{path}: another file of the model has the tensor {name} as well")
            tensors[name] = tensor
    return tensors


def _read_file(path: Path) -> Iterable[tuple[str, Tensor]]:
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # An empty file cannot be mapped.
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if len(mapped) < 8:
        raise _damaged(path, f"it has {len(mapped)} bytes")
    (length,) = struct.unpack("<Q", mapped[:8])
    if length > min(len(mapped) - 8, _MAX_HEADER_BYTES):
        raise _damaged(path, f"its header claims {length} bytes in a file of {len(mapped)}")
    try:
        header = json.loads(mapped[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    data = np.frombuffer(mapped, np.uint8, offset=8 + length) if len(mapped) > 8 + length else np.zeros(0, np.uint8)
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, _tensor(path, name, entry, data)


def _tensor(path: Path, name: str, entry: Any, data: NDArray[np.uint8]) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        # Rust has no name for half of a surrogate pair.
        f"{name}{dtype}".encode()
        numbers = [*shape, begin, end]
        valid = isinstance(dtype, str) and all(type(number) is int and number >= 0 for number in numbers)
    except (TypeError, KeyError, ValueError):
        valid = False
    if not valid:
        raise _damaged(path, f"its header says of {name!r} what no tensor can be: {entry!r:.200}")
    if not begin <= end <= data.size:
        raise _damaged(path, f"{name!r} ends at {end}, past the {data.size} bytes that there are; it is cut short")
    if dtype in _BYTES and math.prod(shape) * _BYTES[dtype] != end - begin:
        raise _damaged(path, f"{name!r} has {end - begin} bytes, which {dtype} of shape {shape} has not")
    return dtype, shape, data[begin:end]


def float_matrix(tensor: Tensor, scales: Tensor | None = None) -> NDArray[np.float32]:
    """The values of a tensor of floats in float32, or of int8 rows with their scales.

    Raises:
        ModelNotFoundError: it is of a type that is not known.
    """
    dtype, shape, data = tensor
    match dtype:
        case "F64" | "F32" | "F16":
            values = data.view({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)
        case "BF16":
            # The upper half of a float32.
            values = (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        case "I8" if scales is not None:
            rows = data.view(np.int8).reshape(shape).astype(np.float32)
            values = rows * float_matrix(scales).reshape(-1, 1)
        case _:
            raise ModelNotFoundError(f"a tensor of type {dtype} has no values in float32")
    return values.reshape(shape)


def float_tensor(values: NDArray[np.float32]) -> Tensor:
    """A float32 array as a tensor to write."""
    return "F32", list(values.shape), np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, tensor by tensor.

    Raises:
        OSError: it cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + data.nbytes]}
        end += data.nbytes
    text = json.dumps(header).encode()
    # The tensors begin at a multiple of 8.
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data.data)


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], float]:
    """The tensors of an adapter in the layout of PEFT, named as the model's own, and its scale.

    Raises:
        ModelNotFoundError: it is none, or of a kind other than plain LoRA.
    """
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = config["r"], config["lora_alpha"]
        if not (
            config.get("peft_type") == "LORA" and type(rank) is int and rank > 0 and isinstance(alpha, int | float)
        ):
            found = {name: config.get(name) for name in ("peft_type", "r", "lora_alpha")}
            raise ValueError(f"it has no peft_type LORA with a rank r and a lora_alpha, but {found}")
        given = {name: config[name] for name in _NOT_PLAIN if config.get(name)}
        if config.get("bias", "none") != "none":
            given["bias"] = config["bias"]
        for name, value in given.items():
            raise ValueError(
                f"it has {name} {value!r}, which is not known; merge the adapter into the weights with peft's "
                "merge_and_unload(), and name the folder that this is saved to"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise _broken(path, reason) from None
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    tensors = read_weights([folder / "adapter_model.safetensors"])
    return {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}, scale


def merge_adapter(tensors: dict[str, Tensor], adapter: Path) -> None:
    """Add an adapter to the matrices that it is for, in float32 and in place: ``W + scale · B A``.

    Args:
        tensors: of the model, int8 rows with their scales among them.
        adapter: its folder.

    Raises:
        ModelNotFoundError: it is for a matrix that the model does not have, or of another shape.
    """
    own, scale = read_adapter(adapter)
    for name in sorted(own):
        layer, _, half = name.rpartition(".lora_")
        whole, partner = f"{layer}.weight", f"{layer}.lora_{'B' if half.startswith('A') else 'A'}.weight"
        if whole not in tensors or half not in ("A.weight", "B.weight") or partner not in own:
            raise ModelNotFoundError(f"{adapter}: {name} belongs to no layer of the model, or has no other half")
        if half == "A.weight":
            weights = float_matrix(tensors[whole], tensors.pop(f"{whole}_scale", None))
            down, up = float_matrix(own[name]), float_matrix(own[partner])
            if (up.shape[0], down.shape[1], up.shape[1]) != (*weights.shape, down.shape[0]):
                raise ModelNotFoundError(
                    f"{adapter}: lora_A and lora_B of {layer} have the shapes {list(down.shape)} and {list(up.shape)}, "
                    f"its weights {list(weights.shape)}"
                )
            for part, matrix in ((name, down), (partner, up)):
                wrong = np.argwhere(~np.isfinite(matrix))
                if len(wrong):
                    row, column = wrong[0].tolist()
                    value = str(matrix[row, column]).replace("nan", "NaN")
                    raise ModelNotFoundError(f"adapter {adapter.name}: {part} has the value {value} in row {row}")
            tensors[whole] = float_tensor(weights + scale * (up @ down))


def _damaged(path: Path, reason: str) -> ModelNotFoundError:
    return _broken(path, f"{reason}; copy or fetch the file again")


def _broken(path: Path, reason: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"{path} cannot be loaded: {reason}")
