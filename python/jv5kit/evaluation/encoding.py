"""Embeddings of the texts of evaluation sets: each text is encoded once, whatever is compared."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.encoder import one_warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.encoder import Encoder
    from jv5kit.tasks import Task


class TextEncoder:
    """Encodes texts in float32 with all dimensions, and keeps the embeddings until :meth:`forget`.

    Args:
        encoder: the model.
        show_progress_bar: None shows it on a terminal.

    Attributes:
        texts: how many were encoded; those that were known are not counted.
        seconds: that it took.
    """

    def __init__(self, encoder: Encoder, *, show_progress_bar: bool | None = None) -> None:
        self.encoder = encoder
        self.texts = 0
        self.seconds = 0.0
        self._show = show_progress_bar
        self._known: dict[tuple[str | None, str], _Known] = {}

    def __call__(self, texts: Sequence[str], task: Task, *, queries: bool = False) -> NDArray[np.float32]:
        """The embeddings of texts: float32 ``(n, dim)``, of unit length.

        Args:
            texts: in any number; one that is there several times is encoded once.
            task: of the adapter.
            queries: whether they get the prompt of queries.
        """
        prompt = self.encoder.query_prompt(task) if queries else self.encoder.document_prompt()
        # On a model without adapters tasks that have the same prompt share their embeddings.
        adapter = task if self.encoder.checkpoint.adapters else None
        known = self._known.setdefault((adapter, prompt), _Known(self.encoder.dim))
        new = [text for text in dict.fromkeys(texts) if text not in known.rows]
        if new:
            began = perf_counter()
            with one_warning():
                embeddings = self.encoder.encode(new, task=task, prompt=prompt, show_progress_bar=self._show)
            self.seconds += perf_counter() - began
            self.texts += len(new)
            known.add(new, embeddings)
        return known.of(texts)

    def forget(self) -> None:
        """Give the memory back."""
        self._known.clear()


class _Known:
    """The embeddings of one adapter and prompt."""

    def __init__(self, dim: int) -> None:
        self.rows: dict[str, int] = {}
        self._embeddings = np.empty((0, dim), np.float32)

    def add(self, texts: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        self.rows.update(zip(texts, range(len(self.rows), len(self.rows) + len(texts)), strict=True))
        self._embeddings = np.concatenate([self._embeddings, embeddings]) if len(self._embeddings) else embeddings

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.fromiter((self.rows[text] for text in texts), np.int64, len(texts))
        # A corpus that is all there is is not copied.
        whole = len(rows) == len(self._embeddings) and bool((rows == np.arange(len(rows))).all())
        return self._embeddings if whole else self._embeddings[rows]
