from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jv5kit
from jv5kit import _native

VECTORS = Path(__file__).parent / "vectors"


def rows(name: str, columns: list[str]) -> list[list[str]]:
    """The rows of a table below its header, which must be ``columns``; `tests/vectors.rs` reads the same tables."""
    header, *lines = (VECTORS / name).read_text(encoding="ascii").splitlines()
    assert header.split("\t") == columns
    return [line.split("\t") for line in lines]


@pytest.mark.parametrize(("values", "code"), rows("quantize.tsv", ["values", "code"]))
def test_sign_bits(values: str, code: str) -> None:
    row = np.array([values.split(" ")]).astype(np.float32)
    assert jv5kit.quantize_embeddings(row).tobytes().hex() == code
    assert np.packbits(row > 0, axis=-1).tobytes().hex() == code


@pytest.mark.parametrize(("a", "b", "distance"), rows("hamming.tsv", ["a", "b", "distance"]))
def test_distances(a: str, b: str, distance: str) -> None:
    query, code = (np.frombuffer(bytes.fromhex(digits), np.uint8)[None] for digits in (a, b))
    distances, numbers = jv5kit.hamming_search(query, code, 1)
    assert distances.tolist() == [[int(distance)]]
    assert numbers.tolist() == [[0]]


@pytest.mark.parametrize(
    ("data", "block_bytes", "checksums"), rows("checksum.tsv", ["bytes", "block_bytes", "checksums"])
)
def test_checksums(data: str, block_bytes: str, checksums: str) -> None:
    found = _native.block_checksums(np.frombuffer(bytes.fromhex(data), np.uint8), int(block_bytes))
    assert " ".join(f"{checksum:08X}" for checksum in found) == checksums
