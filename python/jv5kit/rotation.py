"""Rotations: the same cosines in other coordinates, of which the first ones keep the most and bits tell the most.

A rotation is fitted on a sample of embeddings, in two steps (both keep lengths and angles, as no shift would):

- Principal components: the direction of the mean first, then the components of what is left, the largest first. Of all
  subspaces the first dimensions then keep the most of the sample, so that truncation loses little. With the mean in
  a dimension of its own, every other one has mean zero: its bit is 1 for about half of the documents.
- Inside each block of dimensions that are kept or dropped together, the rotation whose coordinates are nearest to their
  signs (ITQ: Gong and Lazebnik, Iterative quantization: a Procrustean approach to learning binary codes, 2011). It
  spreads the variance over the block: a bit counts the same, however little the dimension it stands for says.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jv5kit import _native
from jv5kit.embeddings import as_rows, check_rows, truncate_embeddings, whole_number
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

BLOCK_ROWS = 4096

ITERATIONS = 20
"""Of ITQ: five give most of the gain, fifty no more."""

SEED = 0


class Rotation:
    """An orthogonal matrix that embeddings are multiplied with; call it with embeddings.

    Args:
        matrix: ``(source dim, source dim)``, orthogonal: a column for each dimension of the result.

    Attributes:
        matrix: the same, float32.

    Raises:
        InputError: the matrix is not orthogonal to 1e-4.
    """

    def __init__(self, matrix: ArrayLike) -> None:
        self.matrix = as_rows(matrix, "matrix")
        rows, columns = self.matrix.shape
        if rows != columns or rows == 0:
            raise InputError(f"matrix has shape {self.matrix.shape}; it must be square")
        error = float(np.abs(self.matrix.T @ self.matrix - np.eye(rows, dtype=np.float32)).max())
        # A NaN is no less than anything.
        if not error < 1e-4:
            raise InputError(f"the matrix is not orthogonal: its columns' inner products are off by up to {error:.2g}")

    @classmethod
    def stored(cls, matrix: NDArray[np.float32]) -> Self:
        """The rotation that has this matrix: not checked again, which would take longer than reading it."""
        rotation = cls.__new__(cls)
        rotation.matrix = matrix
        return rotation

    @classmethod
    def fit(cls, sample: ArrayLike, dims: Sequence[int] = ()) -> Self:
        """Fit a rotation on a sample of the embeddings that it is for.

        Ten times as many rows as dimensions are enough. Fewer do: what the sample does not reach is completed. The same
        sample gives the same rotation.

        Args:
            sample: ``(n, source dim)``; its rows are taken at unit length.
            dims: dimensions that the embeddings will be truncated to, by default none but all. The first so many span
                what they would span alone, yet bits are best for a single one: with several, the bits of later blocks
                count as much as those of the first, though they say less.

        Raises:
            InputError: the sample has no row, or one without a direction; or a dimension is not in 1..source dim.
        """
        rows = as_rows(sample, "sample")
        if 0 in rows.shape:
            raise InputError(f"sample has shape {rows.shape}; a rotation needs a row to be fitted on")
        source_dim = rows.shape[1]
        check_rows(rows, source_dim, name="sample")
        ends = {whole_number("dims", dim) for dim in dims} or {source_dim}
        for dim in sorted(ends):
            if not 1 <= dim <= source_dim:
                raise InputError(f"dims has {dim}; the sample has dimensions 1 to {source_dim}")
        rows = truncate_embeddings(rows, source_dim)
        components = _components(rows)
        generator = np.random.default_rng(SEED)
        # The mean's dimension, the first, is a block of its own; what is behind the last block is always dropped.
        for start, stop in pairwise(sorted(ends | {1})):
            block = components[:, start:stop]
            block[:] = block @ _nearest_to_signs(rows @ block.astype(np.float32), generator)
        return cls(components)

    @cached_property
    def _packed(self) -> _native.PackedMatrix:
        return _native.PackedMatrix(np.ascontiguousarray(self.matrix.T))

    def __getstate__(self) -> dict[str, Any]:
        """The matrix alone: another processor may want it packed in another way."""
        return {"matrix": self.matrix}

    @property
    def source_dim(self) -> int:
        """Dimensions of the embeddings, before and after."""
        return len(self.matrix)

    def __call__(self, embeddings: ArrayLike) -> NDArray[np.float32]:
        """Rotate embeddings; lengths and inner products stay what they are, up to rounding.

        A row comes out the same whatever rows are beside it, which a product of NumPy's does not promise: an index made
        in parts is the index made at once, and a query alone finds what it finds among others.

        Args:
            embeddings: ``(n, source dim)``, real numbers.

        Returns:
            float32 ``(n, source dim)``. A row with a NaN or an infinity is NaN.

        Raises:
            InputError: the shape is wrong.
        """
        array = np.asarray(embeddings)
        if array.ndim != 2 or array.shape[1] != self.source_dim:
            raise InputError(f"embeddings has shape {array.shape}; it must be (n, {self.source_dim}) to be rotated")
        rotated = np.empty(array.shape, np.float32)
        # By blocks, so that no more than one is copied where they are not float32.
        for start in range(0, len(array), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            rotated[part] = self._packed.apply(as_rows(array[part]))
        return rotated


def _components(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """An orthonormal basis as columns: the direction of the mean, then the principal components of what is left."""
    dim = rows.shape[1]
    moments = np.zeros((dim, dim))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS].astype(np.float64)
        moments += block.T @ block
    moments /= len(rows)
    mean = rows.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    # Opposite rows have no mean; their largest component takes its place.
    first = mean / length if length > 1e-6 else np.linalg.eigh(moments)[1][:, -1]
    rest = np.eye(dim) - np.outer(first, first)
    # Rows of unit length have no component above 1: the mean's is the largest by far, and eigenvalues come ascending.
    return np.linalg.eigh(rest @ moments @ rest + 2 * np.outer(first, first))[1][:, ::-1]


def _nearest_to_signs(rows: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float64]:
    """The rotation of ``(n, dim)`` rows that brings them nearest to their own signs (ITQ), from a random one on."""
    dim = rows.shape[1]
    rotation = np.linalg.qr(generator.standard_normal((dim, dim)))[0]
    if not rows.any():
        return rotation
    for _ in range(ITERATIONS):
        signs = np.where(rows @ rotation.astype(np.float32) > 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd((rows.T @ signs).astype(np.float64))
        rotation = left @ right
    return rotation
