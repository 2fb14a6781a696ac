"""Weights files: the types of their tensors, several of them, and what is wrong with one."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
from models import TEXTS, Array, tensors_of, write_tensors

from jv5kit import Encoder
from jv5kit.backends import BackendName
from jv5kit.errors import ModelNotFoundError
from jv5kit.weights import read_weights


def encode(folder: Path, backend: BackendName = "native") -> Array:
    return Encoder.from_pretrained(folder, backend=backend, dtype="float32").encode(TEXTS)


# Types. What is stored is read as it is, to the last bit.


def float16(tensor: Array) -> tuple[dict[str, Array], Array]:
    half = tensor.astype(np.float16)
    return {"": half}, half.astype(np.float32)


def bfloat16(tensor: Array) -> tuple[dict[str, Array], Array]:
    bits = tensor.view(np.uint32) >> 16
    return {"": bits.astype(np.uint16)}, (bits << 16).astype(np.uint32).view(np.float32)


def int8(tensor: Array) -> tuple[dict[str, Array], Array]:
    """Matrices alone: rows with a scale each."""
    if tensor.ndim != 2:
        return {"": tensor}, tensor
    # The row of the padding token is all zeros.
    scales = (np.maximum(np.abs(tensor).max(axis=1), 1e-9) / 127).astype(np.float32)
    rows = np.rint(tensor / scales[:, None]).astype(np.int8)
    return {"": rows, "_scale": scales}, rows.astype(np.float32) * scales[:, None]


@pytest.mark.parametrize("stored", [float16, bfloat16, int8])
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_smaller_types_are_read_as_they_are(
    tmp_path: Path, stored: Callable[[Array], tuple[dict[str, Array], Array]], kind: str
) -> None:
    folder = models.bert(tmp_path) if kind == "bert" else models.qwen3(tmp_path)
    whole = encode(folder)
    small: dict[str, Array] = {}
    same: dict[str, Array] = {}
    for name, tensor in tensors_of(folder).items():
        parts, same[name] = stored(tensor)
        small |= {name + ending: part for ending, part in parts.items()}
    write_tensors(folder / "model.safetensors", small)
    found, by_torch = encode(folder), encode(folder, "torch")
    write_tensors(folder / "model.safetensors", same)
    np.testing.assert_array_equal(found, encode(folder))
    np.testing.assert_allclose(by_torch, found, atol=1e-5)
    assert not np.array_equal(found, whole)
    assert (found * whole).sum(axis=1).min() > 0.99


def test_every_value_of_float16_is_read(model_copy: Path) -> None:
    """Subnormal ones and both zeros as well."""
    finite = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = finite[np.isfinite(finite)]
    tensors = tensors_of(model_copy)
    name = "encoder.layer.0.intermediate.dense.weight"
    shape = tensors[name].shape
    for start in range(0, finite.size, tensors[name].size):
        part = np.resize(finite[start:], shape)
        write_tensors(model_copy / "model.safetensors", tensors | {name: part})
        half = encode(model_copy)
        write_tensors(model_copy / "model.safetensors", tensors | {name: part.astype(np.float32)})
        np.testing.assert_array_equal(half, encode(model_copy))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "encoder.layer.0.output.dense.weight",
            lambda t: t.astype(np.float64),
            "is of type F64; the native backend reads",
        ),
        ("encoder.layer.0.output.dense.bias", lambda t: t.astype(np.int8), "is int8; only matrices may be"),
        (
            "embeddings.word_embeddings.weight",
            lambda t: t.astype(np.int8),
            "lack embeddings.word_embeddings.weight_scale",
        ),
    ],
)
def test_a_type_that_is_not_read_is_named(
    model_copy: Path, name: str, change: Callable[[Array], Array], message: str
) -> None:
    tensors = tensors_of(model_copy)
    write_tensors(model_copy / "model.safetensors", tensors | {name: change(tensors[name])})
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        encode(model_copy)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (np.ones(3, np.float32), r"_scale has the shape \[3\], where config.json asks for \[128\]"),
        (np.ones((128, 1), np.float32), r"_scale has the shape \[128, 1\]"),
        (np.full(128, np.inf, np.float32), "_scale has the value inf"),
    ],
)
def test_scales_that_do_not_fit_are_named(model_copy: Path, scales: Array, message: str) -> None:
    tensors = tensors_of(model_copy)
    name = "encoder.layer.1.intermediate.dense.weight"
    tensors |= {name: tensors[name].astype(np.int8), f"{name}_scale": scales}
    write_tensors(model_copy / "model.safetensors", tensors)
    with pytest.raises(ModelNotFoundError, match=name + message):
        encode(model_copy)


# Files


def test_tensors_may_be_in_several_files(model_copy: Path) -> None:
    whole = encode(model_copy)
    tensors = list(tensors_of(model_copy).items())
    (model_copy / "model.safetensors").unlink()
    for number in range(3):
        write_tensors(model_copy / f"model-{number + 1}-of-3.safetensors", dict(tensors[number::3]))
    np.testing.assert_array_equal(encode(model_copy), whole)
    (model_copy / "model-2-of-3.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="its weights lack "):
        encode(model_copy)


def test_a_tensor_that_is_there_twice_is_an_error(model_copy: Path) -> None:
    name = "encoder.layer.0.output.dense.bias"
    write_tensors(model_copy / "other.safetensors", {name: tensors_of(model_copy)[name]})
    with pytest.raises(ModelNotFoundError, match=f"other.safetensors: another file .* has the tensor {name} as well"):
        encode(model_copy)


def test_an_empty_file_of_tensors_has_none(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert read_weights([tmp_path / "model.safetensors"]) == {}


def entry(dtype: object = "F32", shape: object = (2, 3), data_offsets: object = (0, 24)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}


def file_of(header: object, data: bytes = bytes(24)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot mmap an empty file"),
        (b"\x02\0\0", "it has 3 bytes"),
        (struct.pack("<Q", 1 << 60) + b"{}", "its header claims 1152921504606846976 bytes in a file of 10"),
        (struct.pack("<Q", 3) + b"{}", "its header claims 3 bytes in a file of 10"),
        (b"version https://git-lfs.github.com/spec/v1\n", "its header claims"),
        (file_of(b"{"), "its header is no JSON"),
        (file_of(b"\xff\xfe{}"), "its header is no JSON"),
        (file_of(b"[" * 100_000), "its header is no JSON"),
        (file_of([]), "its header is no JSON object"),
        (file_of({"a": 7}), "its header says of 'a' what no tensor can be: 7"),
        (file_of({"a": []}), "its header says of 'a'"),
        (file_of({"a": {"dtype": "F32"}}), "its header says of 'a'"),
        (file_of({"a": entry(dtype=32)}), "its header says of 'a'"),
        (file_of({"a": entry(shape=6)}), "its header says of 'a'"),
        (file_of({"a": entry(shape=[2.0, 3])}), "its header says of 'a'"),
        (file_of({"a": entry(shape=[-2, -3])}), "its header says of 'a'"),
        (file_of({"a": entry(shape=[True, 6])}), "its header says of 'a'"),
        (file_of({"a": entry(data_offsets=[0])}), "its header says of 'a'"),
        (file_of({"a": entry(data_offsets=[0, 8, 24])}), "its header says of 'a'"),
        (file_of({"a": entry(data_offsets=[-24, 0])}), "its header says of 'a'"),
        (file_of({"a": entry(data_offsets=["0", "24"])}), "its header says of 'a'"),
        (file_of({"a": entry()}, bytes(23)), "'a' ends at 24, past the 23 bytes that there are; it is cut short"),
        (file_of({"a": entry()}, b""), "'a' ends at 24, past the 0 bytes"),
        (file_of({"a": entry(data_offsets=[24, 0])}), "'a' ends at 0"),
        (file_of({"a": entry(shape=[2, 4])}), r"'a' has 24 bytes, which F32 of shape \[2, 4\] has not"),
        (file_of({"a": entry(shape=[1 << 40, 1 << 40])}), "'a' has 24 bytes, which F32"),
        (file_of({"a": entry(dtype="BF16")}), "'a' has 24 bytes, which BF16"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        read_weights([path])
    assert str(caught.value).startswith(f"{path} cannot be loaded: ")


@pytest.mark.parametrize("name", ["half \ud83d", "embeddings.word_embeddings.weight\0"])
def test_a_name_that_no_tensor_has_is_named(model_copy: Path, name: str) -> None:
    write_tensors(model_copy / "model.safetensors", tensors_of(model_copy) | {name: np.zeros(1, np.float32)})
    with pytest.raises(ModelNotFoundError):
        encode(model_copy)
