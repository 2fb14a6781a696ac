"""The scores of each kind, computed from embeddings that are given, against other libraries and by hand."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from command import random_rows
from scipy.stats import spearmanr
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, v_measure_score

from jv5kit import Document, hamming_search, quantize_embeddings, quantize_rows, truncate_embeddings
from jv5kit.errors import MissingExtraError
from jv5kit.evaluation import bitext, classification, clustering, pairs, reranking, retrieval, summarization
from jv5kit.evaluation.beir import Collection
from jv5kit.evaluation.quantized import STORED_PRECISIONS, StoredPrecision, has_meaning, stored, unit
from jv5kit.evaluation.tasks import Bitext, Classification, Clustering, Pairs, Reranking, Retrieval, Summaries

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIM = 32


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    return truncate_embeddings(random_rows(count, DIM, seed), DIM)


def near(others: NDArray[np.float32], noise: float, seed: int = 9) -> NDArray[np.float32]:
    """Rows in about the directions of others."""
    return truncate_embeddings(others + noise * rows(len(others), seed), DIM)


def test_precisions_are_all_there() -> None:
    assert get_args(StoredPrecision) == STORED_PRECISIONS == tuple(retrieval.SETTINGS)


def test_sts_is_the_rank_correlation_of_cosines() -> None:
    left, right = rows(60), rows(60, seed=1)
    gold = [float(i % 6) for i in range(60)]
    data = Pairs("sts", ["a"] * 60, ["b"] * 60, gold)
    cosines = (left * right).sum(axis=1)
    embeddings = {"left": left, "right": right}
    assert pairs.score(data, embeddings, "float32") == {
        "Spearman": pytest.approx(spearmanr(cosines, gold)[0], abs=1e-6)
    }
    distances = (np.sign(left) != np.sign(right)).sum(axis=1)
    expected = spearmanr(-distances, gold)[0]
    assert pairs.score(data, embeddings, "ubinary") == {"Spearman": pytest.approx(expected, abs=1e-6)}
    expected = spearmanr((left * np.sign(right)).sum(axis=1), gold)[0]
    assert pairs.score(data, embeddings, "ubinary+codes") == {"Spearman": pytest.approx(expected, abs=1e-6)}
    same = {"left": left, "right": left}
    assert pairs.score(data, same, "ubinary") == {"Spearman": 0.0}


def test_pair_classification_is_average_precision() -> None:
    left, right = rows(60), rows(60, seed=1)
    gold = [float(i % 3 == 0) for i in range(60)]
    data = Pairs("pair-classification", ["a"] * 60, ["b"] * 60, gold)
    for precision in ("float32", "int8", "ubinary"):
        a, b = (unit(stored(side, precision)) for side in (left, right))
        # Rounded, so that equal distances of bits are equal.
        expected = average_precision_score(gold, (a * b).sum(axis=1).round(5))
        assert pairs.score(data, {"left": left, "right": right}, precision)["AP"] == pytest.approx(expected, abs=1e-6)


def test_summaries_are_compared_with_the_nearest_reference() -> None:
    references, summaries = rows(3), rows(6, seed=1)
    scores = [[1.0, 3.0, 2.0], [5.0, 4.0, 4.0]]
    data = Summaries([["a", "b"], ["c"]], [["x"] * 3, ["y"] * 3], scores)
    first = (summaries[:3] @ references[:2].T).max(axis=1)
    second = summaries[3:] @ references[2]
    expected = (spearmanr(first, scores[0])[0] + spearmanr(second, scores[1])[0]) / 2
    found = summarization.score(data, {"references": references, "summaries": summaries}, "float32")
    assert found == {"Spearman": pytest.approx(expected, abs=1e-6)}


def test_reranking_is_the_mean_of_average_precisions_and_ties_are_no_gift() -> None:
    queries, documents = rows(2), rows(9, seed=1)
    relevant = [[True, False, False, True], [False, False, True, False, False]]
    data = Reranking(["a", "b"], [["x"] * 4, ["y"] * 5], relevant)
    embeddings = {"queries": queries, "documents": documents}
    expected = [
        average_precision_score(relevant[0], documents[:4] @ queries[0]),
        average_precision_score(relevant[1], documents[4:] @ queries[1]),
    ]
    assert reranking.score(data, embeddings, "float32") == {"MAP": pytest.approx(np.mean(expected), abs=1e-6)}
    alike = {"queries": queries, "documents": np.repeat(queries[:1], 9, axis=0)}
    # As many found before as a ranking at random has: half of four, one of five.
    assert reranking.score(data, alike, "ubinary") == {"MAP": pytest.approx((0.5 + 0.2) / 2)}


@pytest.mark.parametrize("precision", STORED_PRECISIONS)
def test_bitext_finds_the_nearest_as_a_search_does(precision: StoredPrecision) -> None:
    right = rows(700, seed=1)
    left = near(right, 1.1)
    names = [f"t{i}" for i in range(700)]
    found = bitext.nearest(left, right, precision)
    values, scales = quantize_rows(right)
    codes = quantize_embeddings(right)
    _, candidates = hamming_search(quantize_embeddings(left), codes, 4)
    expected = {
        "float32": (left @ right.T).argmax(axis=1),
        "int8": (quantize_rows(left)[0].astype(np.int32) @ values.T.astype(np.int32) * scales).argmax(axis=1),
        "ubinary": candidates[:, 0],
        "ubinary+codes": best_of(left, stored(right, "ubinary"), candidates),
        "ubinary+int8": best_of(left, values * scales[:, None], candidates),
    }[precision]
    assert (found == expected).mean() > 0.999
    accuracy = bitext.score(Bitext(names, names), {"left": left, "right": right}, precision)["accuracy"]
    assert accuracy == pytest.approx((expected == np.arange(700)).mean(), abs=0.003)
    assert 0.1 < accuracy < 0.999


def best_of(
    queries: NDArray[np.float32], documents: NDArray[np.float32], candidates: NDArray[np.int64]
) -> NDArray[np.int64]:
    scores = np.einsum("qd,qcd->qc", queries, documents[np.sort(candidates, axis=1)])
    return np.take_along_axis(np.sort(candidates, axis=1), scores.argmax(axis=1)[:, None], axis=1)[:, 0]


def test_a_sentence_that_is_there_twice_is_right_either_time() -> None:
    right = rows(3)
    right[2] = right[0]
    data = Bitext(["a", "b", "a"], ["x", "y", "x"])
    assert bitext.score(data, {"left": right, "right": right}, "ubinary") == {"accuracy": 1.0}


def labeled(count: int, seed: int) -> tuple[list[tuple[str, ...]], NDArray[np.float32]]:
    centers = rows(3, seed=100)
    of_row = np.random.default_rng(seed).integers(0, 3, count)
    return [("abc"[label],) for label in of_row], near(centers[of_row], 1.6, seed)


def test_classification_is_a_logistic_regression_on_a_few_rows_of_each_label() -> None:
    train_labels, train = labeled(90, 1)
    test_labels, test = labeled(40, 2)
    draws = classification.draw(train_labels)
    assert draws == classification.draw(train_labels)
    assert len(draws) == classification.DRAWS and len({tuple(draw) for draw in draws}) == classification.DRAWS
    for draw in draws:
        names = [train_labels[row][0] for row in draw]
        assert sorted(names) == [name for name in "abc" for _ in range(classification.ROWS_A_LABEL)]
    data = Classification(["t"] * 90, train_labels, draws, ["t"] * 40, test_labels)
    for precision in ("float32", "int8", "ubinary"):
        seen, unseen = (unit(stored(side, precision)) for side in (train, test))
        accuracies, measures = [], []
        for draw in draws:
            classifier = LogisticRegression(max_iter=100).fit(seen[draw], [train_labels[row][0] for row in draw])
            predicted, true = classifier.predict(unseen), [label for (label,) in test_labels]
            accuracies.append(accuracy_score(true, predicted))
            measures.append(f1_score(true, predicted, average="macro"))
        found = classification.score(data, {"train": train, "test": test}, precision)
        expected = {"accuracy": np.mean(accuracies), "F1": np.mean(measures)}
        assert found == {name: pytest.approx(value, abs=1e-6) for name, value in expected.items()}
        assert 0.5 < found["accuracy"] < 1


def test_several_labels_are_predicted_one_by_one() -> None:
    labels, train = labeled(90, 1)
    several: list[tuple[str, ...]] = [(*label, "every") for label in labels]
    several[:10] = [("every",)] * 10
    draws = classification.draw(several)
    assert all(sum("b" in several[row] for row in draw) >= classification.ROWS_A_LABEL for draw in draws)
    data = Classification(["t"] * 90, several, draws, ["t"] * 90, [*several[:89], ("never",)], multilabel=True)
    found = classification.score(data, {"train": train, "test": train}, "float32")
    assert list(found) == ["LRAP", "F1", "accuracy"]
    assert 0.9 < found["LRAP"] < 1
    shuffled = classification.score(data, {"train": train, "test": rows(90, seed=5)}, "float32")
    assert shuffled["LRAP"] < found["LRAP"] and shuffled["accuracy"] < found["accuracy"]


def test_clustering_is_mini_batch_k_means_from_fixed_seeds() -> None:
    labels, sentences = labeled(200, 3)
    names = [label for (label,) in labels]
    data = Clustering(["t"] * 200, names)
    expected = [
        v_measure_score(
            names, MiniBatchKMeans(3, batch_size=512, n_init=1, random_state=seed).fit_predict(unit(sentences))
        )
        for seed in range(clustering.RUNS)
    ]
    found = clustering.score(data, {"sentences": sentences}, "float32")
    assert found == {"V-measure": pytest.approx(np.mean(expected), abs=1e-6)}
    assert found["V-measure"] > clustering.score(data, {"sentences": sentences}, "ubinary")["V-measure"] > 0


def test_what_needs_scikit_learn_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.cluster", "sklearn.exceptions", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    sides = {"train": rows(4), "test": rows(4), "sentences": rows(4)}
    two = Classification(["t"] * 2, [("a",), ("b",)], [[0, 1]], ["t"], [("a",)])
    with pytest.raises(MissingExtraError, match=r"classification needs scikit-learn: pip install 'jv5kit\[eval\]'"):
        classification.score(two, sides, "float32")
    with pytest.raises(MissingExtraError, match=r"clustering needs scikit-learn: pip install 'jv5kit\[eval\]'"):
        clustering.score(Clustering(["t"] * 4, list("abab")), sides, "float32")


@pytest.mark.parametrize("precision", STORED_PRECISIONS)
def test_retrieval_is_what_the_index_finds(precision: StoredPrecision) -> None:
    documents = rows(300, seed=1)
    queries = near(documents[:40], 1.8)
    collection = Collection(
        [Document(f"d{i}", "text") for i in range(300)],
        {f"q{i}": "query" for i in range(40)},
        {f"q{i}": {f"d{i}": 1} for i in range(40)},
    )
    scores = retrieval.score(Retrieval(collection), {"documents": documents, "queries": queries}, precision)
    assert list(scores) == ["nDCG@10", "recall@100"]
    exact = (queries @ documents.T).argsort(axis=1)[:, ::-1]
    places = (exact == np.arange(40)[:, None]).argmax(axis=1)
    if precision == "float32":
        assert scores["nDCG@10"] == pytest.approx(np.mean(np.where(places < 10, 1 / np.log2(places + 2), 0)), abs=1e-6)
        assert scores["recall@100"] == pytest.approx((places < 100).mean(), abs=1e-6)
    if precision == "ubinary":
        _, found = hamming_search(quantize_embeddings(queries), quantize_embeddings(documents), 300)
        places = (found == np.arange(40)[:, None]).argmax(axis=1)
        assert scores["nDCG@10"] == pytest.approx(np.mean(np.where(places < 10, 1 / np.log2(places + 2), 0)), abs=1e-6)
    assert 0.2 < scores["nDCG@10"] < 1
    first = Retrieval(collection, "long-documents", depth=1)
    assert list(retrieval.score(first, {"documents": documents, "queries": queries}, precision)) == ["nDCG@1"]
    assert has_meaning("retrieval", precision)


def test_rescoring_helps_as_it_should() -> None:
    documents = rows(600, seed=1)
    queries = near(documents[:60], 1.2)
    collection = Collection(
        [Document(f"d{i}", "text") for i in range(600)],
        {f"q{i}": "query" for i in range(60)},
        {f"q{i}": {f"d{i}": 1} for i in range(60)},
    )
    found = {
        precision: retrieval.score(Retrieval(collection), {"documents": documents, "queries": queries}, precision)[
            "nDCG@10"
        ]
        for precision in STORED_PRECISIONS
    }
    assert found["ubinary"] < found["ubinary+codes"] < found["ubinary+int8"] <= found["float32"] + 0.01
    assert found["int8"] == pytest.approx(found["float32"], abs=0.02)
