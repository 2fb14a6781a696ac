from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self, final, overload

import numpy as np
from numpy.typing import NDArray

__all__: Final = [
    "Model",
    "PackedMatrix",
    "block_checksums",
    "code_products",
    "crc32c",
    "damaged_block",
    "default_dtype",
    "dot_search",
    "hamming_search",
    "mixed_products",
    "quantize_binary",
    "quantize_ranges",
    "quantize_rows",
    "simd_tier",
    "truncate",
    "why_not_native",
]

@final
class Model:
    dtype: Literal["float32", "bfloat16"]
    def __new__(
        cls,
        settings: Mapping[str, str],
        tensors: Mapping[str, tuple[str, Sequence[int], NDArray[np.uint8]]],
        adapters: Sequence[tuple[str, Mapping[str, tuple[str, Sequence[int], NDArray[np.uint8]]], float]],
        dtype: str | None,
    ) -> Self: ...
    def embed(
        self,
        tokens: NDArray[np.uint32],
        starts: NDArray[np.int64],
        *,
        pooling: str,
        adapter: str | None,
        dim: int,
        unit: bool,
        normalize: bool,
        binary: bool,
        threads: int | None,
    ) -> NDArray[Any]: ...

@final
class PackedMatrix:
    def __new__(cls, weights: NDArray[np.float32]) -> Self: ...
    def apply(self, rows: NDArray[np.float32]) -> NDArray[np.float32]: ...

def block_checksums(data: NDArray[np.uint8], block_bytes: int) -> NDArray[np.uint32]: ...
def code_products(
    queries: NDArray[np.float32],
    codes: NDArray[np.uint8],
    query_numbers: NDArray[np.int64],
    row_numbers: NDArray[np.int64],
) -> NDArray[np.float32]: ...
def crc32c(data: bytes) -> int: ...
def damaged_block(
    data: NDArray[np.uint8],
    block_bytes: int,
    checksums: NDArray[np.uint32],
    blocks: NDArray[np.int64] | None,
) -> int | None: ...
def default_dtype() -> Literal["float32", "bfloat16"]: ...
def dot_search(
    query_values: NDArray[np.int8],
    parts: Sequence[tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.uint8] | None]],
    top_k: int,
    threads: int | None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
def hamming_search(
    query_codes: NDArray[np.uint8],
    parts: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]],
    top_k: int,
    threads: int | None,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
def mixed_products(
    queries: NDArray[np.float32],
    rows: NDArray[np.int8],
    query_numbers: NDArray[np.int64],
    row_numbers: NDArray[np.int64],
) -> NDArray[np.float32]: ...
def quantize_binary(embeddings: NDArray[np.float32]) -> NDArray[np.uint8]: ...
def quantize_ranges(
    embeddings: NDArray[np.float32], lows: NDArray[np.float32], steps: NDArray[np.float32]
) -> NDArray[np.int8]: ...
@overload
def quantize_rows(
    embeddings: NDArray[np.float32], binary: Literal[True]
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.uint8]]: ...
@overload
def quantize_rows(
    embeddings: NDArray[np.float32], binary: Literal[False]
) -> tuple[NDArray[np.int8], NDArray[np.float32], None]: ...
def simd_tier() -> tuple[str, bool, list[str]]: ...
def truncate(embeddings: NDArray[np.float32], dim: int) -> NDArray[np.float32]: ...
def why_not_native(settings: Mapping[str, str]) -> str | None: ...
