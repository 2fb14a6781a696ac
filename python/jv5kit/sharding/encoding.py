"""Encoding in shards: each range of a file of documents becomes a file of embeddings, done when it is there.

A shard is the same bytes whatever process, engine or attempt makes it: its batches are its own, and all that decides an
embedding is said beforehand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from jv5kit import _native
from jv5kit.backends import choose_backend
from jv5kit.documents import read_range
from jv5kit.embeddings import write_npy
from jv5kit.encoder import Encoder
from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.pretrained import load_checkpoint
from jv5kit.storage.folder import disk_errors, new_file
from jv5kit.tasks import document_prompt, query_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.backends import BackendName, DType
    from jv5kit.encoder import EncodePrecision
    from jv5kit.errors import DocumentError
    from jv5kit.types import Document

ENCODED_TOGETHER = 4096
"""Documents that are encoded together: bounds the memory for a shard of any size."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """All that decides which embedding a text gets.

    Attributes:
        model: its name or folder.
        fingerprint: of its files.
        backend: the forward pass.
        dtype: what matrices are multiplied in.
        task: the adapter.
        prompt: put before each text.
        dim: dimensions kept.
        precision: float32, or one bit a dimension.
    """

    model: str
    fingerprint: str
    backend: BackendName
    dtype: DType
    task: str
    prompt: str
    dim: int
    precision: EncodePrecision

    @classmethod
    def of(
        cls,
        model: str | None = None,
        *,
        task: str = "retrieval",
        query: bool = False,
        dim: int | None = None,
        binary: bool = False,
    ) -> Self:
        """How documents, or queries, are encoded on this machine; the weights of the model are not loaded.

        Raises:
            ModelNotFoundError: there is no such model.
            MissingExtraError: only torch can run it, and torch is not installed.
            InputError: the model, or codes, cannot have these dimensions.
        """
        checkpoint = load_checkpoint(model)
        dim = checkpoint.dim if dim is None else dim
        if not 1 <= dim <= checkpoint.dim:
            raise InputError(f"--dim {dim} is outside 1..{checkpoint.dim}, the model's dimensions")
        if binary and dim % 8:
            raise InputError(f"--dim {dim} is not a multiple of 8, which one bit a dimension needs")
        backend, _ = choose_backend(checkpoint)
        prompts = checkpoint.prompts
        return cls(
            checkpoint.name,
            checkpoint.fingerprint(),
            backend,
            _native.default_dtype() if backend == "native" else "float32",
            task,
            query_prompt(prompts, task) if query else document_prompt(prompts),
            dim,
            "ubinary" if binary else "float32",
        )

    def load(self) -> Encoder:
        """The model.

        Raises:
            ModelNotFoundError: it is not to be had on this machine, or is another one.
        """
        encoder = Encoder.from_pretrained(self.model, backend=self.backend, dtype=self.dtype)
        if (found := encoder.checkpoint.fingerprint()) != self.fingerprint:
            raise ModelNotFoundError(
                f"model {self.model!r} has the fingerprint {found} on this machine, but {self.fingerprint} where the "
                "work was given out; put the same model on both"
            )
        return encoder

    def batches(
        self, encoder: Encoder, documents: Iterable[Document], on_batch: Callable[[list[Document]], object]
    ) -> Iterator[NDArray[Any]]:
        """The embeddings of documents batch by batch; ``on_batch`` is called with the documents of each."""
        stream = iter(documents)
        while batch := list(islice(stream, ENCODED_TOGETHER)):
            yield encoder.encode(
                [document.content for document in batch],
                task=self.task,
                prompt=self.prompt,
                truncate_dim=self.dim,
                precision=self.precision,
                show_progress_bar=False,
            )
            on_batch(batch)

    def write(
        self,
        encoder: Encoder,
        documents: Iterable[Document],
        file: IO[bytes],
        on_batch: Callable[[list[Document]], object],
    ) -> int:
        """Write the embeddings of documents as a ``.npy`` file; returns how many."""
        binary = self.precision == "ubinary"
        dtype, columns = (np.uint8, self.dim // 8) if binary else (np.float32, self.dim)
        return write_npy(file, self.batches(encoder, documents, on_batch), dtype, columns)


def encode_shard(
    path: Path,
    start: int,
    end: int,
    embeddings: Path,
    ids: Path,
    encoding: Encoding,
    encoder: Encoder | None = None,
    *,
    first_line: int | None = None,
    skip: Callable[[DocumentError], None] | None = None,
) -> int:
    """Encode the documents whose lines begin in a range of bytes, and write their embeddings and ids.

    It knows no engine: any process that reads the one path and writes the others may run it, and again.

    Args:
        path: a ``.jsonl`` file, as :func:`jv5kit.documents.read_range` takes it.
        start: the first byte of the range.
        end: the byte after the last one.
        embeddings: the ``.npy`` file to write; the shard is done when it is there.
        ids: the file to write with the id of each embedding, a JSON string a line.
        encoding: how to encode.
        encoder: the model, where it is loaded already.
        first_line: number of the first line of the range, counted where it is not given.
        skip: called with the error of each line that cannot be used, which is then passed over; None raises it.

    Returns:
        How many documents were encoded.

    Raises:
        DocumentError: the first line that cannot be used.
        Jv5kitError: the disk is full, or refuses.
    """
    documents = read_range(path, start, end, first_line=first_line, skip=skip)
    # Named in the order of their closing: the embeddings last.
    with disk_errors(embeddings.parent), new_file(embeddings) as rows, new_file(ids) as names:

        def write_ids(batch: list[Document]) -> None:
            names.write("".join(f"{json.dumps(one.id, ensure_ascii=False)}\n" for one in batch).encode())

        return encoding.write(encoder or encoding.load(), documents, rows, write_ids)
