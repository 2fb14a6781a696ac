"""What the server does for a request, whatever carries it: embeddings, searches, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.backends import Output
from jv5kit.errors import InputError
from jv5kit.index import Index
from jv5kit.search_modes import in_mode
from jv5kit.server.batching import Batcher, Work
from jv5kit.server.corpus_map import CorpusMap
from jv5kit.server.errors import ApiError, bad_request, shown
from jv5kit.server.limits import Admission, Limits
from jv5kit.server.metrics import Metrics
from jv5kit.server.packing import pack
from jv5kit.server.requests import EmbeddingRequest, SearchRequest
from jv5kit.where import parse_filter

if TYPE_CHECKING:
    from jv5kit.encoder import Encoder
    from jv5kit.filters import Filter
    from jv5kit.stores import Store
    from jv5kit.types import SearchMode

THREADS = 4
"""Requests that are parsed and tokenized, and searches that are made, at a time."""

SMALL_BODY = 4096
"""Bytes of a request that is parsed and tokenized in less time than it takes to wake a thread for it."""

SMALL_ANSWER = 4096
"""Values of an answer of which the same holds."""

SAMPLE = 50
"""Documents whose metadata are looked at for examples."""

EXAMPLES = 5
"""Example values of a field, at most so many of a type."""


class Service:
    """A model that encodes, and an index that is searched with it, if there is one.

    Args:
        encoder: of the embeddings.
        index: to search; its model is the encoder.
        limits: what is taken on.

    Attributes:
        model: the name of the model, as clients have to give it.
        admission: of requests.
        draining: whether the server is about to end: it is not ready for more.
        metrics: of all of it.
    """

    def __init__(self, encoder: Encoder, index: Store | None = None, limits: Limits | None = None) -> None:
        self.encoder = encoder
        self.index = index
        self.limits = limits or Limits()
        name = encoder.checkpoint.name
        # Where the folder is, is nobody's business.
        self.model = Path(name).name if Path(name).is_absolute() else name
        self.admission = Admission(self.limits)
        self.draining = False
        self.metrics = Metrics()
        self._fingerprint = encoder.checkpoint.fingerprint()
        self._batcher = Batcher(encoder.backend, self.limits, self.metrics.batch)
        self._preparing = ThreadPoolExecutor(THREADS, "jv5kit-preparing")
        self._searching = ThreadPoolExecutor(THREADS, "jv5kit-searching")
        # What engines keep is not read as a whole.
        self._map = CorpusMap(index) if isinstance(index, Index) else None
        watch = self.metrics.watch
        watch("jv5kit_queue_tokens", "Tokens that wait to be encoded.", lambda: self._batcher.waiting_tokens)
        watch("jv5kit_queue_requests", "Requests that wait to be encoded.", lambda: self._batcher.waiting_requests)
        watch("jv5kit_requests_in_flight", "Requests being answered.", lambda: self.admission.requests)

    def close(self) -> None:
        """Finish what was taken on, and end the threads."""
        self._batcher.close()
        self._preparing.shutdown()
        self._searching.shutdown()
        if self._map is not None:
            self._map.close()

    async def embeddings(self, body: bytes, deadline: float) -> bytes:
        """Answer a request for embeddings.

        Args:
            body: of the request.
            deadline: on the monotonic clock.

        Raises:
            ApiError: it cannot be answered.
        """
        self._batcher.check_room()
        loop = asyncio.get_running_loop()

        def prepare() -> tuple[EmbeddingRequest, Work]:
            asked = EmbeddingRequest.of(body, self.model, self.encoder.dim)
            return asked, self._work(asked, deadline)

        if len(body) <= SMALL_BODY:
            asked, work = prepare()
        else:
            asked, work = await loop.run_in_executor(self._preparing, prepare)
        rows = await self._encoded(work)

        def answer() -> bytes:
            packed = pack(rows, asked.output, as_base64=asked.as_base64)
            data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(packed)]
            usage = {"prompt_tokens": work.total, "total_tokens": work.total}
            return to_json({"object": "list", "model": self.model, "data": data, "usage": usage})

        if rows.size <= SMALL_ANSWER:
            return answer()
        return await loop.run_in_executor(self._preparing, answer)

    def _work(self, asked: EmbeddingRequest, deadline: float) -> Work:
        encoder = self.encoder
        try:
            adapter = encoder.adapter(asked.task)
        except InputError as error:
            raise bad_request(str(error), "task") from None
        prompt = encoder.query_prompt(asked.task) if asked.is_query else encoder.document_prompt()
        tokens, cut = encoder.tokenize(asked.texts, prompt)
        if cut and not asked.truncate:
            raise bad_request(
                f"input[{cut[0]}] is longer than the model's {encoder.checkpoint.max_tokens} tokens"
                + (f", and so are {len(cut) - 1} others" if len(cut) > 1 else "")
                + "; shorten it, or send truncate true",
                "input",
                code="INPUT_TOKEN_LIMIT_EXCEEDED",
            )
        unit = encoder.checkpoint.normalize
        output = Output(asked.dim or encoder.dim, unit=unit, normalize=asked.normalize, binary=False)
        return Work(tokens, adapter, output, deadline)

    async def _encoded(self, work: Work) -> Any:
        """The embeddings of a request; cancelling this drops it."""
        self._batcher.submit(work)
        return await asyncio.wrap_future(work.future)

    async def search(self, body: bytes, deadline: float) -> bytes:
        """Answer a search; the arguments are those of :meth:`embeddings`.

        Raises:
            ApiError: it cannot be answered.
            IndexDamagedError: the index is not what was written.
        """
        index = self._index()
        self._batcher.check_room()
        loop = asyncio.get_running_loop()
        began = time.perf_counter()

        def prepare() -> tuple[SearchRequest, Filter | None, Work]:
            asked = SearchRequest.of(body)
            index.refresh()
            settings = index.settings
            self._check_model(settings.fingerprint)
            # What is wrong with them is said before anything is encoded.
            in_mode(settings, asked.mode)
            condition = None if asked.where is None else parse_filter(asked.where)
            tokens, _ = self.encoder.tokenize(asked.queries, settings.query_prompt)
            # As IndexModel encodes queries: a score over HTTP is the score of the command line.
            output = Output(self.encoder.dim, unit=self.encoder.checkpoint.normalize, normalize=False, binary=False)
            return asked, condition, Work(tokens, self.encoder.adapter("retrieval"), output, deadline)

        asked, condition, work = await loop.run_in_executor(self._preparing, prepare)
        rows = await self._encoded(work)
        done = time.perf_counter()
        stages = {
            "tokenize": 1000 * (work.submitted - began),
            "queue": 1000 * (work.began - work.submitted),
            "encode": 1000 * (done - work.began),
        }

        def answer() -> bytes:
            found = index.search(
                rows,
                asked.top_k,
                filter=condition,
                hybrid=asked.hybrid,
                words=asked.queries if asked.hybrid else None,
                stages=stages,
                mode=asked.mode,
            )
            mode, kept = _mode(index, asked.mode)
            answers = [
                {"query": query, "hits": [hit.to_dict() for hit in hits]}
                for query, hits in zip(asked.queries, found, strict=True)
            ]
            facts = {
                "milliseconds": {stage: round(time, 4) for stage, time in stages.items()},
                "mode": mode,
                "bytes_a_document": kept,
            }
            return to_json((answers[0] if asked.single else {"results": answers}) | facts)

        return await loop.run_in_executor(self._searching, answer)

    async def about_index(self) -> bytes:
        """What the index holds."""
        index = self._index()

        def facts() -> bytes:
            index.refresh()
            settings = index.settings
            return to_json(
                {
                    "documents": len(index),
                    "rows": index.row_count,
                    "dim": settings.dim,
                    "precision": settings.precision,
                    "rescore": settings.rescore if settings.precision == "ubinary" else None,
                    "model": self.model,
                    "lexical": settings.lexical,
                    "approximate": settings.hnsw,
                    "map": self._map is not None,
                    "modes": {mode: _mode(index, mode)[1] for mode in index.modes},
                    "fields": _fields(index),
                }
            )

        return await asyncio.get_running_loop().run_in_executor(self._searching, facts)

    def about_model(self) -> dict[str, Any]:
        """The model, in OpenAI's shape, with what else a client may want to know."""
        checkpoint = self.encoder.checkpoint
        return {
            "id": self.model,
            "object": "model",
            "created": int((checkpoint.folder / "config.json").stat().st_mtime),
            "owned_by": "jv5kit",
            "dimensions": checkpoint.dim,
            "max_tokens": checkpoint.max_tokens,
            "adapters": sorted(checkpoint.adapters),
        }

    @property
    def map(self) -> CorpusMap:
        """The map of the index.

        Raises:
            ApiError: there is no index, or none that has a map.
        """
        if self.index is None:
            raise _no_index()
        if self._map is None:
            raise ApiError(404, f"there is no map of {self.index.name}: only of an index in a folder", code="no_map")
        return self._map

    def _index(self) -> Store:
        if self.index is None:
            raise _no_index()
        return self.index

    def _check_model(self, fingerprint: str | None) -> None:
        if fingerprint != self._fingerprint:
            raise ApiError(
                503,
                f"the index was replaced by one of another model than {self.model!r}; start the server anew",
                code="index_replaced",
            )


def _no_index() -> ApiError:
    return ApiError(404, "this server has no index; start it with --index DIR", code="no_index")


def to_json(value: Any) -> bytes:
    """JSON, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _mode(index: Store, mode: SearchMode | None) -> tuple[SearchMode, float]:
    """A mode, by default the index's own, and the bytes a document that it works on."""
    known = index.modes
    name = next(iter(known)) if mode is None else mode
    # A document of several passages has as many rows.
    return name, round(known[name] * index.row_count / max(1, len(index)), 1)


def _fields(index: Store) -> dict[str, dict[str, Any]]:
    """The fields to filter by: the types of their values, and values that some documents have."""
    fields = index.fields
    # Any direction will do to get at some documents, each with its metadata.
    some = index.search(np.ones(index.settings.source_dim, np.float32), SAMPLE) if fields else []
    found: dict[str, dict[str, Any]] = {}
    for field, types in fields.items():
        of_type: dict[type, set[Any]] = {}
        for hit in some:
            value = hit.metadata.get(field)
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str | int | float) and len(shown(one)) < 40:
                    of_type.setdefault(type(one), set()).add(one)
        examples = [value for kind in of_type.values() for value in sorted(kind)[:EXAMPLES]]
        found[field] = {"types": types, "examples": examples}
    return found
