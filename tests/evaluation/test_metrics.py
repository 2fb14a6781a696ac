from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import pytrec_eval
from hypothesis import assume, given, settings
from sklearn.metrics import average_precision_score

from jv5kit.errors import InputError
from jv5kit.evaluation.metrics import average_precision, mean, ndcg, recall

DOCUMENTS = st.sampled_from(["a", "b", "c", "d10", "d9", "é", "漢", "🐧", "\uffff", "A"]) | st.text(
    # What is passed to trec_eval ends at a NUL.
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    min_size=1,
    max_size=3,
)
QUERIES = st.sampled_from(["q1", "q2", "q3"])
# trec_eval writes outside its memory for one below -1.
RELEVANCE = st.integers(-1, 4)
SCORES = (
    st.floats(allow_nan=False, width=32)
    | st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, 1.0 - 1e-9, 1e300, -1e300, 1e-300])
    | st.floats(0, 1)
)


@settings(deadline=None)
@given(
    st.dictionaries(QUERIES, st.dictionaries(DOCUMENTS, RELEVANCE, min_size=1, max_size=12), min_size=1),
    st.dictionaries(QUERIES, st.dictionaries(DOCUMENTS, SCORES, min_size=1, max_size=30)),
    st.sampled_from([1, 2, 3, 10, 100]),
)
def test_measures_are_those_of_trec_eval(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]], k: int
) -> None:
    expected = pytrec_eval.RelevanceEvaluator(qrels, {f"ndcg_cut.{k}", f"recall.{k}"}).evaluate(run)
    assert ndcg(qrels, run, k).keys() == qrels.keys() == recall(qrels, run, k).keys()
    for query in qrels:
        # trec_eval itself leaves out a query without a run, which `-c` counts as 0.
        values = expected.get(query, {f"ndcg_cut_{k}": 0.0, f"recall_{k}": 0.0})
        assert ndcg(qrels, run, k)[query] == pytest.approx(values[f"ndcg_cut_{k}"], abs=1e-6)
        assert recall(qrels, run, k)[query] == pytest.approx(values[f"recall_{k}"], abs=1e-6)


def test_a_ranking_is_taken_as_it_is() -> None:
    qrels = {"q": {"a": 2, "b": 1}}
    assert ndcg(qrels, {"q": ["a", "b"]}) == {"q": 1.0}
    assert ndcg(qrels, {"q": ["x", "b", "a"]}) == ndcg(qrels, {"q": {"x": 3.0, "b": 2.0, "a": 1.0}})
    assert recall(qrels, {"q": ("x", "b", "a")}, k=2) == {"q": 0.5}


def test_a_query_without_a_run_or_a_relevant_document_scores_0() -> None:
    qrels = {"not run": {"a": 1}, "nothing found": {"a": 1}, "nothing relevant": {"a": 0, "b": -1}, "found": {"a": 1}}
    run = {"nothing found": [], "nothing relevant": ["a"], "found": ["a"], "not judged": ["a"]}
    for measure in (ndcg, recall):
        assert measure(qrels, run) == {"not run": 0, "nothing found": 0, "nothing relevant": 0, "found": 1}
        assert mean(measure(qrels, run)) == 0.25


@pytest.mark.parametrize("measure", [ndcg, recall])
def test_bad_input(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(InputError, match="k=0; it must be at least 1"):
        measure({"q": {"a": 1}}, {"q": ["a"]}, k=0)
    with pytest.raises(InputError, match="query 'q' has document 'b' twice in its ranking"):
        measure({"q": {"a": 1}}, {"q": ["a", "b", "c", "b"]})
    with pytest.raises(InputError, match="the score of document 'b' for query 'q' is NaN"):
        measure({"q": {"a": 1}}, {"q": {"a": 1.0, "b": float("nan")}})
    with pytest.raises(InputError, match="there is no query"):
        mean({})


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=40))
def test_average_precision_is_scikit_learns_with_ties(items: list[tuple[bool, int]]) -> None:
    relevant, scores = np.array(items).T
    assume(relevant.any())
    assert average_precision(relevant, scores) == pytest.approx(average_precision_score(relevant, scores), abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_average_precision_without_ties_is_trec_evals(relevant: list[bool], random: object) -> None:
    assume(any(relevant))
    scores = np.arange(len(relevant), dtype=np.float64)
    random.shuffle(scores)  # type: ignore[attr-defined]
    qrels = {"q": {f"d{i}": int(flag) for i, flag in enumerate(relevant)}}
    run = {"q": {f"d{i}": float(score) for i, score in enumerate(scores)}}
    expected = pytrec_eval.RelevanceEvaluator(qrels, {"map"}).evaluate(run)["q"]["map"]
    assert average_precision(relevant, scores) == pytest.approx(expected, abs=1e-6)


def test_average_precision_refuses_what_has_none() -> None:
    with pytest.raises(InputError, match="nothing is relevant"):
        average_precision([0, 0], [1, 2])
    with pytest.raises(InputError, match="score 1 is NaN"):
        average_precision([0, 1], [1, float("nan")])
    with pytest.raises(InputError, match=r"relevant has shape \(2,\) and scores \(1,\)"):
        average_precision([0, 1], [1])
