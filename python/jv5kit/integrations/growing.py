"""The index behind a vector store: opened if it is there, made by the first documents that are added."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from jv5kit.contents import documents
from jv5kit.errors import IndexNotFoundError, InputError
from jv5kit.graph import check_graph
from jv5kit.index import Index
from jv5kit.index_settings import check_settings

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.encoder import Encoder
    from jv5kit.querying import Where
    from jv5kit.types import Document, Precision, Rescore


class StoreOptions(TypedDict, total=False):
    """How a vector store's index stores, as :meth:`jv5kit.Index.build` explains it; what is left out is its default."""

    dim: int | None
    precision: Precision | None
    rescore: Rescore | None
    lexical: bool | None
    hnsw: bool | None


class GrowingIndex:
    """An index at a path, which need not be there yet. It may be used from several threads.

    Args:
        path: its folder; None is a temporary one, which goes when this object does.
        options: how it is to store; an index that is there must store so already.

    Raises:
        InputError: an option is not known, or is not that of the index that is there.
        MissingExtraError: an option needs a library that is not installed.
    """

    def __init__(self, path: str | os.PathLike[str] | None, options: StoreOptions) -> None:
        self._options: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if unknown := sorted(self._options.keys() - StoreOptions.__annotations__.keys()):
            known = ", ".join(StoreOptions.__annotations__)
            raise InputError(
                f"{unknown[0]}={self._options[unknown[0]]!r} is no option of a vector store; it has {known}"
            )
        precision = self._options.get("precision", "ubinary")
        check_settings(precision, self._options.get("rescore"))
        if self._options.get("hnsw"):
            check_graph(precision)
        if path is None:
            path = Path(tempfile.mkdtemp(prefix="jv5kit-")) / "store.jv5"
            weakref.finalize(self, shutil.rmtree, path.parent, ignore_errors=True)
        self.path = Path(path)
        # Whoever searches does not wait for whoever adds, which may take long.
        self._opening, self._writing = threading.Lock(), threading.Lock()
        self._index: Index | None = None
        self.open()

    def open(self) -> Index | None:
        """The index in its newest state; None as long as there is none."""
        with self._opening:
            return self._opened()

    def upsert(
        self,
        documents: Sequence[Document],
        *,
        embeddings: NDArray[np.float32] | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """Add documents, each in the place of the one that has its id, with embeddings or with a model to make them.

        Raises:
            InputError: a document or an embedding cannot be used.
            IndexLockedError: another process is writing.
        """
        if not documents:
            return
        # One writer at a time: a second thread waits, where a second process would be refused.
        with self._writing:
            index = self.open()
            if index is None:
                # Made empty: what is refused of the first documents leaves an index that the next ones go into.
                empty = None if embeddings is None else np.empty((0, embeddings.shape[1]), np.float32)
                index = Index.build(
                    self.path, [] if empty is None else None, encoder, embeddings=empty, **self._options
                )
                if encoder is not None:
                    # It is loaded already, and need not be found by its name.
                    index.use_encoder(encoder)
                with self._opening:
                    self._index = index
            index.upsert(documents, embeddings=embeddings, show_progress_bar=False)

    def delete(self, *, ids: Sequence[str] | None = None, filter: Where | None = None) -> None:
        """Delete documents, by id, by a filter, or by both; all of them where neither is given."""
        with self._writing:
            index = self.open()
            if index is None:
                return
            if ids is None and filter is not None:
                index.delete(filter=filter)
                return
            if ids is None or filter is not None:
                matching = {document.id for document in documents(index, filter)}
                ids = sorted(matching if ids is None else matching & set(ids))
            index.delete(ids)

    def _opened(self) -> Index | None:
        if self._index is not None:
            self._index.refresh()
            return self._index
        try:
            index = Index.open(self.path)
        except IndexNotFoundError:
            return None
        for name, wanted in self._options.items():
            found = getattr(index.settings, name)
            if wanted != found:
                index.close()
                raise InputError(
                    f"{self.path} has {name}={found!r}, which {name}={wanted!r} cannot change: leave it out, or name "
                    "another folder"
                )
        self._index = index
        return index
