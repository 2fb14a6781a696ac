"""Texts to embeddings: prompts, tokens, batches, and the order restored; the forward pass is a backend's."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np

from jv5kit.backends import Output, load_backend
from jv5kit.embeddings import as_rows, truncate_embeddings
from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.logs import logger
from jv5kit.prefetch import ahead
from jv5kit.pretrained import Checkpoint, load_checkpoint
from jv5kit.progress import ProgressBar
from jv5kit.tasks import document_prompt, named_prompt, query_prompt

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray
    from tokenizers import Tokenizer

    from jv5kit.backends import Backend, BackendName, DType

EncodePrecision = Literal["float32", "ubinary"]

WINDOW = 4096
"""Texts that are tokenized together, and sorted by length where batches are padded: bounds the memory for tokens."""

FIRST_WINDOW = 256
"""Texts whose tokens are waited for; those of the others are made while embeddings are."""

TEXTS_WORTH_A_BAR = 256


class Encoder:
    """An embedding model, ready to encode. Make one with :meth:`from_pretrained`.

    Attributes:
        checkpoint: the model's files and what they say.
        backend: the forward pass in use.
    """

    def __init__(self, checkpoint: Checkpoint, backend: Backend) -> None:
        self.checkpoint = checkpoint
        self.backend = backend
        self._tokenizer = load_tokenizer(checkpoint)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        backend: BackendName | None = None,
        dtype: DType | None = None,
    ) -> Self:
        """Load a model.

        Args:
            model: a folder (sentence-transformers or transformers), a hub id, or None for ``JV5KIT_MODEL``, else the
                default model, which needs no network.
            device: ``"cpu"``, or where torch runs it, such as ``"cuda:1"``; by default a GPU if there is one and torch
                is installed, else the CPU.
            backend: ``"native"`` (Rust, on the CPU) or ``"torch"``; by default native on a CPU if it knows the
                architecture.
            dtype: ``"float32"`` or ``"bfloat16"``, what matrices are multiplied in; by default the fastest that keeps
                each embedding within a cosine of 0.999 of float32: bfloat16 natively with AVX2 or better.

        Raises:
            ModelNotFoundError: there is no such model, or its layout or weights cannot be read.
            MissingExtraError: only torch can run it, and torch is not installed.
            InputError: the device, the backend or the dtype is not known, or they do not go together.
        """
        checkpoint = load_checkpoint(model)
        return cls(checkpoint, load_backend(checkpoint, backend, device, dtype))

    @property
    def dim(self) -> int:
        """Values of an embedding that is not truncated."""
        return self.checkpoint.dim

    @overload
    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        task: str = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int | None = ...,
        precision: Literal["float32"] = ...,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
        show_progress_bar: bool | None = ...,
    ) -> NDArray[np.float32]: ...

    @overload
    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        task: str = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int | None = ...,
        precision: EncodePrecision,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
        show_progress_bar: bool | None = ...,
    ) -> NDArray[Any]: ...

    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        task: str = "retrieval",
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        precision: EncodePrecision = "float32",
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> NDArray[Any]:
        """Encode texts. Truncate, then normalize, then quantize.

        A text longer than the model's context is cut; one warning counts such texts.

        Args:
            inputs: a text, or a sequence of texts.
            task: the adapter to use; without effect on a model that has none.
            prompt_name: one of the model's prompts, to put before each text; by default the model's own default.
            prompt: the prompt itself; beats ``prompt_name``.
            batch_size: texts a batch; by default as many as fit a budget of tokens.
            precision: ``"float32"``, or ``"ubinary"`` for one bit a dimension.
            normalize_embeddings: scale to unit length.
            truncate_dim: keep so many dimensions (Matryoshka).
            show_progress_bar: None shows it on a terminal, from a few hundred texts on.

        Returns:
            ``(n, dim)`` for a sequence, ``(dim,)`` for a text; float32, or uint8 with dim / 8 for ``"ubinary"``.

        Raises:
            InputError: an argument is wrong.
        """
        dim = self._check(batch_size, precision, truncate_dim)
        adapter = self.adapter(task)
        if prompt is None:
            prompts = self.checkpoint.prompts
            prompt = named_prompt(prompts, prompt_name, self.checkpoint.default_prompt_name)
        _check_text("prompt", prompt)
        texts = _texts(inputs)
        if show_progress_bar is None and len(texts) < TEXTS_WORTH_A_BAR:
            show_progress_bar = False
        binary = precision == "ubinary"
        output = Output(
            dim, unit=self.checkpoint.normalize, normalize=normalize_embeddings and not binary, binary=binary
        )
        shape = (len(texts), -(-dim // 8) if binary else dim)
        embeddings: NDArray[Any] = np.empty(shape, np.uint8 if binary else np.float32)
        cut = 0
        with ProgressBar("Encoding", lambda: len(texts), "texts", show=show_progress_bar) as progress:
            windows = self._windows(len(texts))
            tokenized = ahead(lambda window: self.tokenize(texts[slice(*window)], prompt), windows)
            for (start, _), (tokens, cut_here) in zip(windows, tokenized, strict=True):
                cut += len(cut_here)
                for batch in self._batches(tokens, batch_size):
                    rows: Any = [start + i for i in batch]
                    if not self.backend.pads:
                        rows = slice(rows[0], rows[-1] + 1)
                    embeddings[rows] = self.backend.embed([tokens[i] for i in batch], adapter, output)
                    progress(len(batch))
        _count_cut(CutTexts(cut, len(texts), self.checkpoint.max_tokens))
        return embeddings[0] if isinstance(inputs, str) else embeddings

    def encode_query(self, inputs: str | Sequence[str], *, task: str = "retrieval", **options: Any) -> NDArray[Any]:
        """Encode queries: as :meth:`encode`, with the model's query prompt (its document prompt but for retrieval)."""
        return self._encode_with(self.query_prompt(task), inputs, task, options)

    def encode_document(self, inputs: str | Sequence[str], *, task: str = "retrieval", **options: Any) -> NDArray[Any]:
        """Encode documents: as :meth:`encode`, with the model's document prompt."""
        return self._encode_with(self.document_prompt(), inputs, task, options)

    def query_prompt(self, task: str = "retrieval") -> str:
        """What :meth:`encode_query` puts before each query."""
        return query_prompt(self.checkpoint.prompts, task)

    def document_prompt(self) -> str:
        """What :meth:`encode_document` puts before each document."""
        return document_prompt(self.checkpoint.prompts)

    def similarity(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
        """Cosine of each embedding of ``a`` with each of ``b``: float32 ``(len(a), len(b))``.

        A single embedding ``(dim,)`` is a row.

        Raises:
            InputError: the embeddings have different dimensions.
        """
        left, right = (as_rows(np.atleast_2d(np.asarray(side)), name) for side, name in ((a, "a"), (b, "b")))
        if left.shape[1] != right.shape[1]:
            raise InputError(f"a has {left.shape[1]} dimensions and b has {right.shape[1]}; they must be the same")
        dim = left.shape[1]
        cosines: NDArray[np.float32] = truncate_embeddings(left, dim) @ truncate_embeddings(right, dim).T
        return cosines

    def _encode_with(
        self, prompt: str, inputs: str | Sequence[str], task: str, options: dict[str, Any]
    ) -> NDArray[Any]:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt"] = prompt
        return self.encode(inputs, task=task, **options)

    def _check(self, batch_size: int | None, precision: str, truncate_dim: int | None) -> int:
        """The dimension of the result, after the arguments were found right."""
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size={batch_size}; it must be at least 1")
        if precision not in ("float32", "ubinary"):
            raise InputError(f"precision={precision!r} is not known; choose 'float32' or 'ubinary'")
        dim = self.dim if truncate_dim is None else truncate_dim
        if not 1 <= dim <= self.dim:
            raise InputError(f"truncate_dim={dim} is outside 1..{self.dim}, the model's dimensions")
        return dim

    def adapter(self, task: str) -> str | None:
        """The adapter of a task, None on a model without adapters.

        Raises:
            InputError: the model has adapters, but none for this task.
        """
        adapters = self.checkpoint.adapters
        if adapters and task not in adapters:
            raise InputError(f"task={task!r} is no adapter of this model; it has {', '.join(map(repr, adapters))}")
        return task if adapters else None

    def _windows(self, count: int) -> list[tuple[int, int]]:
        """First and last text, exclusive, of what is tokenized together; the first window is waited for."""
        first = count if self.backend.pads else FIRST_WINDOW
        ends = [*range(min(first, WINDOW, count), count, WINDOW), count]
        return list(zip([0, *ends], ends, strict=False))

    def tokenize(self, texts: Sequence[str], prompt: str) -> tuple[list[list[int]], list[int]]:
        """Token ids of each text, and which texts were cut to the context."""
        if prompt:
            texts = [prompt + text for text in texts]
        encodings = self._tokenizer.encode_batch_fast(texts)
        # A tokenizer without special tokens makes nothing of an empty text; a model needs one token at least.
        tokens = [encoding.ids or [self.checkpoint.pad_token_id] for encoding in encodings]
        return tokens, [i for i, encoding in enumerate(encodings) if encoding.overflowing]

    def _batches(self, tokens: list[list[int]], batch_size: int | None) -> Iterator[list[int]]:
        """Positions of texts that go through the model together.

        Where a batch is padded its texts are of like length, the longest first; else they keep their order.
        """
        order = list(range(len(tokens)))
        if not self.backend.pads:
            batch, total = 0, 0
            for i in order:
                total += len(tokens[i])
                if i > batch and (total > self.backend.batch_tokens if batch_size is None else i - batch == batch_size):
                    yield order[batch:i]
                    batch, total = i, len(tokens[i])
            if order:
                yield order[batch:]
            return
        order.sort(key=lambda i: -len(tokens[i]))
        start = 0
        while start < len(order):
            longest = len(tokens[order[start]])
            size = batch_size or max(1, self.backend.batch_tokens // longest)
            yield order[start : start + size]
            start += size


def _texts(inputs: object) -> list[str]:
    """The inputs as a list, each found to be a text."""
    if isinstance(inputs, str):
        _check_text("inputs", inputs)
        return [inputs]
    if isinstance(inputs, bytes | bytearray) or not isinstance(inputs, Iterable):
        raise InputError(f"inputs is {type(inputs).__name__}; it must be a string or a sequence of strings")
    texts = list(inputs)
    for i, text in enumerate(texts):
        _check_text(f"inputs[{i}]", text)
    return texts


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"{name} is {type(text).__name__}; it must be a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} has half of a surrogate pair, which is no character") from None


@dataclass(slots=True)
class CutTexts:
    """Texts that were longer than a model's context."""

    cut: int = 0
    total: int = 0
    max_tokens: int = 0

    def add(self, more: CutTexts) -> None:
        """Count those of other calls, or of another process, as well."""
        self.cut += more.cut
        self.total += more.total
        self.max_tokens = max(self.max_tokens, more.max_tokens)

    def warn(self) -> None:
        """Warn of them, if there are any."""
        if self.cut:
            counts = self.cut, self.total, self.max_tokens
            logger.warning("%d of %d texts are longer than the model's %d tokens and were cut", *counts)


_counting: ContextVar[CutTexts | None] = ContextVar("counting", default=None)


@contextmanager
def cut_texts() -> Iterator[CutTexts]:
    """Count the texts that the calls inside cut, instead of a warning by each."""
    counter = CutTexts()
    token = _counting.set(counter)
    try:
        yield counter
    finally:
        _counting.reset(token)


@contextmanager
def one_warning() -> Iterator[None]:
    """Warn of the texts that the calls inside cut once, at the end."""
    with cut_texts() as counter:
        try:
            yield
        finally:
            counter.warn()


def _count_cut(more: CutTexts) -> None:
    counter = _counting.get()
    if counter is None:
        more.warn()
    else:
        counter.add(more)


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer of a model, without padding, cutting texts to its context."""
    from tokenizers import Tokenizer, normalizers

    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    # The library raises a bare Exception for whatever is wrong with the file.
    except Exception as error:
        raise ModelNotFoundError(
            f"model {checkpoint.name!r}: {checkpoint.tokenizer_file} cannot be read: {error}"
        ) from None
    if checkpoint.lower_case:
        # Before the tokenizer's own, and after special tokens were found: "[SEP]" in a text stays one.
        own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    tokenizer.no_padding()
    tokenizer.enable_truncation(checkpoint.max_tokens)
    return tokenizer


_shared: dict[str, tuple[str, Encoder]] = {}
_shared_lock = threading.Lock()


def shared_encoder(model: str | os.PathLike[str] | None) -> Encoder:
    """The encoder of a model, loaded once in the process and kept: what indexes and :func:`jv5kit.search` use.

    Raises:
        ModelNotFoundError, MissingExtraError: as :meth:`Encoder.from_pretrained`.
    """
    checkpoint = load_checkpoint(model)
    fingerprint = checkpoint.fingerprint()
    with _shared_lock:
        loaded, encoder = _shared.get(checkpoint.name, (None, None))
        if encoder is None or loaded != fingerprint:
            # A folder may hold another model by now.
            encoder = Encoder.from_pretrained(checkpoint.name)
            _shared[checkpoint.name] = fingerprint, encoder
        return encoder
