"""Embeddings as arrays: their checks, and Matryoshka truncation."""

from __future__ import annotations

import operator
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from jv5kit import _native
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import ArrayLike, DTypeLike, NDArray


def whole_number(name: str, value: Any) -> int:
    """A whole number of any kind, NumPy's among them, as Python's own.

    Raises:
        InputError: it is something else.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} is {value!r}; it must be a whole number") from None


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Values of any kind as an array.

    Raises:
        InputError: they are rows of different lengths.
    """
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} cannot be made an array: {error}") from None


def as_rows(embeddings: ArrayLike, name: str = "embeddings") -> NDArray[np.float32]:
    """Embeddings as float32 rows ``(n, dim)``, C-contiguous; copied only where they are not that already.

    Raises:
        InputError: the array is not two-dimensional, or holds no real numbers.
    """
    array = as_array(embeddings, name)
    if array.ndim != 2:
        raise InputError(f"{name} has shape {array.shape}; it must have two dimensions, (n, dim)")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}; it must hold real numbers")
    # What is beyond float32 becomes an infinity, which is refused by name where it matters.
    with np.errstate(over="ignore"):
        return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])


def check_rows(embeddings: NDArray[np.float32], dim: int, first_row: int = 0, name: str = "embeddings") -> None:
    """Refuse rows that have no direction: a NaN, an infinity, or nothing but zeros in the first ``dim`` values.

    Args:
        embeddings: float32 ``(n, columns)``.
        dim: values that will be kept.
        first_row: number of the first row, for the message.
        name: what the rows are, for the message.

    Raises:
        InputError: names the first such row and what is wrong with it.
    """
    bad = ~np.isfinite(embeddings).all(axis=1) | ~embeddings[:, :dim].any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        values = embeddings[row]
        if np.isnan(values).any():
            problem = "a NaN"
        elif np.isinf(values).any():
            problem = "an infinity"
        else:
            problem = f"nothing but zeros in its first {dim} values"
        raise InputError(f"row {first_row + row} of the {name} holds {problem}; it has no direction to search by")


class EmbeddingsFile:
    """Embeddings in a ``.npy`` file, read slice by slice: memory does not grow with the file, as it does with a map.

    Raises:
        InputError: the file cannot be read, or is not a two-dimensional array of real numbers in C order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                version = npy.read_magic(file)
                read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                self.shape, fortran_order, self.dtype = read_header(file)
                self._offset = file.tell()
                size = path.stat().st_size
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"{path} is no .npy file: {error}") from None
        if len(self.shape) != 2 or min(self.shape) < 0 or self.dtype.kind not in "fiu" or fortran_order:
            order = "Fortran" if fortran_order else "C"
            raise InputError(
                f"{path} holds {self.dtype} of shape {self.shape} in {order} order; it must be real (n, dim) in C order"
            )
        self._row_bytes = self.shape[1] * self.dtype.itemsize
        if size < self._offset + len(self) * self._row_bytes:
            raise InputError(f"{path} is cut short: {size} bytes, but its header promises {self.shape}")

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """A slice of consecutive rows, read from the file."""
        start, stop, _ = rows.indices(len(self))
        with self._path.open("rb") as file:
            file.seek(self._offset + start * self._row_bytes)
            values = np.fromfile(file, self.dtype, max(0, stop - start) * self.shape[1])
        return values.reshape(-1, self.shape[1])


def write_npy(file: IO[bytes], batches: Iterable[NDArray[Any]], dtype: DTypeLike, columns: int) -> int:
    """Write batches of rows as one ``.npy`` array ``(n, columns)`` to a file that is empty; returns n."""
    header: dict[str, Any] = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    npy.write_array_header_1_0(file, header | {"shape": (0, columns)})
    count = 0
    for rows in batches:
        file.write(rows.data)
        count += len(rows)
    # The header has room for any number of rows, so that it can be written again in place.
    file.seek(0)
    npy.write_array_header_1_0(file, header | {"shape": (count, columns)})
    return count


def truncate_embeddings(embeddings: ArrayLike, dim: int) -> NDArray[np.float32]:
    """Keep the first ``dim`` values of each embedding, and bring it back to unit length (Matryoshka truncation).

    Args:
        embeddings: ``(n, columns)``, real numbers.
        dim: 1 to ``columns``.

    Returns:
        float32 ``(n, dim)``. A row whose first ``dim`` values are all zero stays zero; a NaN or an infinity makes it
        NaN.

    Raises:
        InputError: the shape is wrong, or ``dim`` is not in 1..columns.
    """
    rows, dim = as_rows(embeddings), whole_number("dim", dim)
    if not 1 <= dim <= rows.shape[1]:
        raise InputError(f"dim={dim} is outside 1..{rows.shape[1]}, the dimensions of the embeddings")
    return _native.truncate(rows, dim)
