"""mteb itself, on tasks of data that is made here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command import random_rows
from mteb_tasks import (
    DOCUMENTS,
    QRELS,
    QUERIES,
    bitext,
    classification,
    clustering,
    metadata,
    retrieval,
    sts,
    summaries,
)

from jv5kit import quantize_embeddings, truncate_embeddings
from jv5kit.errors import InputError, Jv5kitError, MissingExtraError
from jv5kit.evaluation import mteb_adapter
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.metrics import mean, ndcg
from jv5kit.evaluation.mteb_adapter import IndexBackend, MtebEncoder, kind_of, run_tasks, tasks_named
from jv5kit.evaluation.quantized import STORED_PRECISIONS, StoredPrecision, pair_cosines, stored
from jv5kit.evaluation.runner import Report, Result
from jv5kit.evaluation.tasks import ADAPTERS

if TYPE_CHECKING:
    from jv5kit import Encoder


def evaluate(encoder: Encoder, tasks: list[Any], dims: list[int], precisions: list[StoredPrecision]) -> list[Result]:
    report = Report("tiny", {}, dims, precisions)
    begun: list[str] = []
    ended: list[Result] = []
    run_tasks(report, TextEncoder(encoder), tasks, lambda name, _: begun.append(name), ended.append)
    assert report.results == ended
    assert begun == [result.name for result in ended]
    return ended


def by_precision(result: Result, dim: int) -> dict[str, float]:
    return {score.precision: value for score in result.scores if score.dim == dim for value in score.metrics.values()}


def test_retrieval_is_searched_in_our_index(encoder: Encoder) -> None:
    task = retrieval()
    (result,) = evaluate(encoder, [task], [64, 32], list(STORED_PRECISIONS))
    assert (result.name, result.kind, result.metrics) == ("LocalBirds", "retrieval", ["ndcg_at_10"])
    # Loaded once and encoded once for ten runs, and given back.
    assert (task.loads, task.data_loaded, result.encoded) == (1, False, len(DOCUMENTS) + len(QUERIES))
    documents, queries = encoder.encode_document(DOCUMENTS), encoder.encode_query(QUERIES)
    for dim in (64, 32):
        found = by_precision(result, dim)
        shorter = [truncate_embeddings(rows, dim) for rows in (queries, documents)]
        scores = shorter[0] @ shorter[1].T
        run = {f"q{i}": {f"d{j}": float(score) for j, score in enumerate(row)} for i, row in enumerate(scores)}
        assert found["float32"] == pytest.approx(mean(ndcg(QRELS, run, 10)), abs=1e-5)
        bits = [np.unpackbits(quantize_embeddings(rows), axis=1).astype(np.int32) for rows in shorter]
        distances = (bits[0][:, None] != bits[1][None]).sum(axis=2)
        run = {f"q{i}": {f"d{j}": -float(value) for j, value in enumerate(row)} for i, row in enumerate(distances)}
        # Which of those at one distance are among the first thousand hits does not depend on ids: all are.
        assert found["ubinary"] == pytest.approx(mean(ndcg(QRELS, run, 10)), abs=1e-5)
        assert found["int8"] == pytest.approx(found["float32"], abs=0.05)
        assert 0 < found["ubinary"] < 1
    assert by_precision(result, 64) != by_precision(result, 32)


def test_reranking_orders_its_candidates(encoder: Encoder) -> None:
    (result,) = evaluate(encoder, [retrieval(reranking=True)], [64], list(STORED_PRECISIONS))
    found = by_precision(result, 64)
    assert list(found) == ["float32", "int8", "ubinary", "ubinary+codes"]
    scores = encoder.encode_query(QUERIES) @ encoder.encode_document(DOCUMENTS).T
    right = [int(next(iter(QRELS[f"q{i}"]))[1:]) for i in range(len(QUERIES))]
    ranks = [(row > row[j]).sum() + 1 for row, j in zip(scores, right, strict=True)]
    assert found["float32"] == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=1e-4)
    assert found["int8"] == pytest.approx(found["float32"], abs=0.05)


@pytest.mark.parametrize("task", [sts, classification, bitext, summaries, clustering])
def test_what_is_not_searched_is_compared_at_its_precision(encoder: Encoder, task: Any) -> None:
    (result,) = evaluate(encoder, [task()], [64], list(STORED_PRECISIONS))
    found = by_precision(result, 64)
    assert list(found) == ["float32", "int8", "ubinary"]
    assert all(-1 <= value <= 1 for value in found.values())
    assert found["int8"] == pytest.approx(found["float32"], abs=0.15)
    assert found["ubinary"] != found["float32"]
    # Drawn alike each time.
    assert by_precision(evaluate(encoder, [task()], [64], ["float32"])[0], 64) == {"float32": found["float32"]}


def test_sts_is_ours(encoder: Encoder) -> None:
    from scipy.stats import spearmanr

    (result,) = evaluate(encoder, [sts()], [64], ["float32", "ubinary"])
    left, right = encoder.encode_document(DOCUMENTS[:-9]), encoder.encode_document(DOCUMENTS[9:])
    gold = [len(set(a) & set(b)) for a, b in zip(DOCUMENTS, DOCUMENTS[9:], strict=False)]
    for precision, value in by_precision(result, 64).items():
        assert precision in ("float32", "ubinary")
        cosines = pair_cosines(stored(left, precision), stored(right, precision))  # type: ignore[arg-type]
        assert value == pytest.approx(spearmanr(cosines, gold)[0], abs=0.01)


def test_the_type_of_a_task_decides_adapter_and_prompt(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from mteb.types import PromptType

    asked = []

    def remember(texts: Any, task: str, *, queries: bool = False) -> Any:
        asked.append((list(texts), task, queries))
        return random_rows(len(texts), 64)

    model = MtebEncoder(TextEncoder(encoder), 64, "ubinary")
    monkeypatch.setattr(model, "_texts", remember)
    batches = [{"text": ["a", "b"]}, {"text": ["c"]}]
    for kind in mteb_adapter.KINDS:
        named = metadata("Named", kind, "ndcg_at_10")
        for prompt_type in (PromptType.query, PromptType.document, None):
            rows = model.encode(batches, task_metadata=named, prompt_type=prompt_type, hf_split="test", batch_size=3)
            assert asked.pop() == (["a", "b", "c"], ADAPTERS[kind_of(named)], prompt_type is PromptType.query)
            assert (set(np.unique(rows)) == {-1, 1}) == ("Retrieval" not in kind and "Reranking" not in kind)
    with pytest.raises(InputError, match="Named is a task of mteb of the type ImageClustering; it must be one of Retr"):
        kind_of(metadata("Named", "ImageClustering", "v_measure"))


def test_mteb_knows_what_it_has(encoder: Encoder) -> None:
    from mteb.models import EncoderProtocol

    model = MtebEncoder(TextEncoder(encoder), 32, "float32")
    assert isinstance(model, EncoderProtocol)
    assert (model.mteb_model_meta.name, model.mteb_model_meta.embed_dim) == ("jv5kit/tiny", 32)
    rows = random_rows(3)
    assert model.similarity(rows, rows).shape == (3, 3)
    assert model.similarity_pairwise(rows, rows).tolist() == pytest.approx([1, 1, 1])


def test_a_backend_grows_and_is_cleared() -> None:
    rows = truncate_embeddings(random_rows(20, 64), 64)
    backend = IndexBackend("ubinary+int8")
    backend.add_documents(rows[:10], [f"d{i}" for i in range(10)])
    assert backend.search(rows[5:6], 1, None)[1] == [[5]]
    backend.add_documents(rows[10:], [f"d{i}" for i in range(10, 20)])
    scores, found = backend.search(rows[15:17], 50, None)
    assert [one[0] for one in found] == [15, 16] and len(found[0]) == 20
    assert scores[0] == sorted(scores[0], reverse=True) and scores[0][0] == pytest.approx(1, abs=0.01)
    scores, found = backend.search(rows[15:16], 2, None, {"q": ["d3", "d15", "d4"]}, {0: "q"})
    assert found[0][0] == 1 and len(found[0]) == 2 == len(scores[0])
    backend.clear()
    backend.add_documents(rows[10:], [f"d{i}" for i in range(10)])
    assert backend.search(rows[15:16], 1, None)[1] == [[5]]
    backend.clear()


def test_data_that_cannot_be_loaded(encoder: Encoder) -> None:
    task = sts()

    def fail(**_: Any) -> None:
        raise ConnectionError("the hub is not there\nand more")

    task.load_data = fail
    with pytest.raises(Jv5kitError, match=r"mteb could not evaluate LocalSTS: the hub is not there$"):
        evaluate(encoder, [task], [64], ["float32"])


def test_names() -> None:
    assert [task.metadata.name for task in tasks_named(["NFCorpus", "STSBenchmark"])] == ["NFCorpus", "STSBenchmark"]
    english = tasks_named(["MTEB(eng, v2)"])
    assert len(english) > 30
    with pytest.raises(InputError, match=r"mteb has no task and no benchmark 'NFCorpsu': .*Did you mean: 'NFCorpus'"):
        tasks_named(["NFCorpsu"])
    with pytest.raises(InputError, match="is a task of mteb of the type"):
        tasks_named(["CIFAR10ZeroShot"])


def test_without_mteb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingExtraError, match=r"--mteb needs mteb .*: pip install 'jv5kit\[eval\]'"):
        tasks_named(["NFCorpus"])
