"""mteb's own tasks: it loads them and scores them, with our encoder and, where something is searched, our index.

mteb asks an encoder for the embeddings of texts (its ``EncoderProtocol``), and a search backend for the nearest of them
(its ``IndexEncoderSearchProtocol``). The type of a task decides the adapter, as in :mod:`jv5kit.evaluation.tasks`, and
whether a text is a query decides its prompt.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.embeddings import truncate_embeddings
from jv5kit.errors import InputError, Jv5kitError, MissingExtraError
from jv5kit.evaluation.quantized import as_query, pair_cosines, stored
from jv5kit.evaluation.retrieval import temporary_index
from jv5kit.evaluation.runner import Result, Score
from jv5kit.evaluation.tasks import ADAPTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from jv5kit.evaluation.encoding import TextEncoder
    from jv5kit.evaluation.quantized import StoredPrecision
    from jv5kit.evaluation.runner import Report
    from jv5kit.evaluation.tasks import Kind
    from jv5kit.index import Index

KINDS: dict[str, Kind] = {
    "Retrieval": "retrieval",
    "InstructionRetrieval": "retrieval",
    "Reranking": "reranking",
    "InstructionReranking": "reranking",
    "STS": "sts",
    "Summarization": "summarization",
    "PairClassification": "pair-classification",
    "BitextMining": "bitext",
    "Classification": "classification",
    "MultilabelClassification": "classification",
    "Clustering": "clustering",
}
"""What the types of mteb's tasks are here; those of images and sounds are nothing."""

_SEARCHED: tuple[Kind, ...] = ("retrieval", "reranking")


class MtebEncoder:
    """An encoder as mteb takes it.

    Args:
        texts: the model; it keeps the embeddings of texts that it has seen.
        dim: dimensions to keep.
        precision: what they are stored as.
    """

    def __init__(self, texts: TextEncoder, dim: int, precision: StoredPrecision) -> None:
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        checkpoint = texts.encoder.checkpoint
        self._texts = texts
        self._dim = dim
        self._precision = precision
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"jv5kit/{checkpoint.name.rstrip('/').rpartition('/')[2]}",
                "revision": checkpoint.fingerprint(),
                "embed_dim": dim,
                "max_tokens": checkpoint.max_tokens,
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        prompt_type: Any = None,
        **_: Any,
    ) -> NDArray[np.float32]:
        """Embed the texts of batches: float32 ``(n, dim)``.

        Where something is searched they are of unit length, and the backend stores them at its precision; else they
        are what that precision keeps of them. What else mteb says, the split and its batch size, changes nothing.
        """
        kind = kind_of(task_metadata)
        texts = [text for batch in inputs for text in batch["text"]]
        queries = prompt_type is not None and prompt_type.value == "query"
        rows = truncate_embeddings(self._texts(texts, ADAPTERS[kind], queries=queries), self._dim)
        return rows if kind in _SEARCHED else stored(rows, self._precision)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosine of each embedding with each: a tensor."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosine of each embedding with the other one in its place: a tensor."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


class IndexBackend:
    """An index of ours as mteb's search backend.

    Args:
        precision: of the index.
    """

    def __init__(self, precision: StoredPrecision) -> None:
        self._precision = precision
        self._ids: list[str] = []
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._open = ExitStack()
        self._index: Index | None = None

    def add_documents(self, embeddings: Any, idxs: Sequence[str]) -> None:
        """Add documents: their embeddings ``(n, dim)`` and ids."""
        self._rows = np.concatenate([self._rows, embeddings]) if len(self._ids) else np.asarray(embeddings)
        self._ids.extend(idxs)
        self._close()

    def search(
        self,
        embeddings: Any,
        top_k: int,
        similarity_fn: Any,  # noqa: ARG002 - the protocol of mteb has it; an index knows its own.
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        query_idx_to_id: Mapping[int, str] | None = None,
    ) -> tuple[list[list[float]], list[list[int]]]:
        """The best documents of each query.

        Args:
            embeddings: of the queries, ``(q, dim)``.
            top_k: documents wanted.
            similarity_fn: not used: the index scores at its own precision.
            top_ranked: for reranking, candidates by the id of the query.
            query_idx_to_id: for reranking, ids of the queries.

        Returns:
            Scores, and rows of the documents, or for reranking their places among the candidates.
        """
        if top_ranked is not None:
            names = query_idx_to_id or {}
            return self._rerank(
                np.asarray(embeddings), top_k, [top_ranked.get(names[i], ()) for i in range(len(embeddings))]
            )
        if self._index is None:
            numbers = [str(number) for number in range(len(self._ids))]
            self._index = self._open.enter_context(temporary_index(numbers, self._rows, self._precision))
        hits = self._index.search(np.asarray(embeddings), min(top_k, len(self._ids)))
        return [[hit.score for hit in one] for one in hits], [[int(hit.id) for hit in one] for one in hits]

    def clear(self) -> None:
        """Forget the documents."""
        self._ids = []
        self._close()

    def _close(self) -> None:
        self._open.close()
        self._index = None

    def _rerank(
        self, queries: NDArray[np.float32], top_k: int, candidates: Sequence[Sequence[str]]
    ) -> tuple[list[list[float]], list[list[int]]]:
        place = {identifier: row for row, identifier in enumerate(self._ids)}
        scores, places = [], []
        for query, names in zip(as_query(queries, self._precision), candidates, strict=True):
            rows = stored(self._rows[[place[name] for name in names]], self._precision)
            cosines = pair_cosines(np.broadcast_to(query, rows.shape), rows)
            best = np.argsort(-cosines, kind="stable")[:top_k]
            scores.append(cosines[best].tolist())
            places.append(best.tolist())
        return scores, places


def kind_of(metadata: Any) -> Kind:
    """The kind that a task of mteb is.

    Raises:
        InputError: it is none of texts.
    """
    if metadata.type not in KINDS:
        raise InputError(
            f"{metadata.name} is a task of mteb of the type {metadata.type}; it must be one of {', '.join(KINDS)}"
        )
    return KINDS[metadata.type]


def tasks_named(names: Sequence[str]) -> list[Any]:
    """The tasks of mteb that are named, and those of benchmarks that are.

    Raises:
        InputError: there is no such task or benchmark.
        MissingExtraError: mteb is not installed.
    """
    try:
        import mteb
    except ImportError as error:
        raise MissingExtraError(f"--mteb needs mteb ({error.name} is missing): pip install 'jv5kit[eval]'") from None
    tasks: list[Any] = []
    for name in names:
        try:
            tasks.append(mteb.get_task(name))
        except KeyError as no_task:
            try:
                tasks += mteb.get_benchmark(name).tasks
            except KeyError as no_benchmark:
                raise InputError(
                    f"mteb has no task and no benchmark {name!r}: {no_task.args[0]} {no_benchmark.args[0]}"
                ) from None
    # A task of tasks is scored through those.
    single = [inner for task in tasks for inner in getattr(task, "tasks", [task])]
    for task in single:
        kind_of(task.metadata)
    return single


def run_tasks(
    report: Report,
    texts: TextEncoder,
    tasks: Sequence[Any],
    on_task: Callable[[str, str], None],
    on_result: Callable[[Result], None],
) -> None:
    """Let mteb evaluate a model on tasks, at every dimension and precision of a report.

    Each text is encoded once. Nothing is read from or written to mteb's cache of results.

    Args:
        report: takes the results: the main score of each task, the mean over its splits and languages.
        texts: the model.
        tasks: mteb's.
        on_task: called before each with its name and type.
        on_result: called after each.

    Raises:
        InputError: a task is none of texts, or the model has no adapter for it.
        Jv5kitError: mteb could not load its data.
    """
    for task in tasks:
        metadata = task.metadata
        kind = kind_of(metadata)
        on_task(metadata.name, f"{metadata.type} of mteb")
        texts.forget()
        before = texts.texts, texts.seconds
        loaded = task.data_loaded
        try:
            if not loaded:
                task.load_data()
            scores = [
                Score(
                    dim,
                    precision,
                    {metadata.main_score: _main_score(texts, task, dim, precision)} if _meant(kind, precision) else {},
                )
                for dim in report.dims
                for precision in report.precisions
            ]
        except Jv5kitError:
            raise
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise Jv5kitError(f"mteb could not evaluate {metadata.name}: {reason}") from error
        if not loaded:
            task.unload_data()
        encoded, seconds = texts.texts - before[0], texts.seconds - before[1]
        report.results.append(Result(metadata.name, kind, {"texts": encoded}, encoded, seconds, scores))
        on_result(report.results[-1])


def _meant(kind: Kind, precision: StoredPrecision) -> bool:
    """Whether mteb can be asked: which text of a pair would be the query it does not say."""
    if precision == "ubinary+int8":
        return kind == "retrieval"
    return precision != "ubinary+codes" or kind in _SEARCHED


def _main_score(texts: TextEncoder, task: Any, dim: int, precision: StoredPrecision) -> float:
    import mteb
    from mteb.models import SearchEncoderWrapper

    # A task draws from its generators: every run is to draw the same.
    fresh = copy.copy(task)
    fresh.rng_state, fresh.np_rng = copy.deepcopy((task.rng_state, task.np_rng))
    model = SearchEncoderWrapper(MtebEncoder(texts, dim, precision), index_backend=IndexBackend(precision))
    results = mteb.evaluate(
        model, fresh, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs={"show_progress_bar": False}
    )
    return float(results.task_results[0].get_score())
