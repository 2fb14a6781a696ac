"""What each phase minimizes, and the projection between a student and its teacher."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from jv5kit.errors import InputError
from jv5kit.training import losses
from jv5kit.training.encoded import Column, Encoded, negatives, never_negatives, two_columns
from jv5kit.training.objectives import DistillObjective, RetrievalObjective, TextMatchingObjective
from jv5kit.training.phases import Phase, asks_teacher
from jv5kit.training.projection import Distillation
from jv5kit.training.rows import Labeled, Pair, Scored, Text
from jv5kit.training.sizes import (
    ClassificationSettings,
    ClusteringSettings,
    DistillSettings,
    Objective,
    PhaseSettings,
    Projection,
    RetrievalSettings,
    TextMatchingSettings,
)

ROWS = [Pair("a", "A", ("x", "y")), Pair("b", "B", ()), Pair("a", "C", ("B",)), Pair("d", "A", ("z", "x", "w"))]


def distillation(
    place: Projection = "student", *, rotated: bool = False, dims: tuple[int, ...] = (8, 4)
) -> Distillation:
    return Distillation(8, 12, place, "orthogonal", dims=dims, weights=[1.0] * len(dims), rotated=rotated, seed=2)


def encoded(column: Column, seed: int = 0) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(len(column.texts), 8, generator=generator, requires_grad=True)
    return Encoded(column, student, torch.randn(len(column.texts), 12, generator=generator))


def test_columns_of_each_kind_of_row() -> None:
    first, second = two_columns(ROWS, "query")
    assert (first.role, first.texts) == ("query", ["a", "b", "a", "d"])
    assert (second.role, second.texts) == ("document", ["A", "B", "C", "A"])
    assert [column.role for column in two_columns([Scored("s", "t", 1.0)], "query")] == ["document", "document"]
    (alone,) = two_columns([Text("t"), Labeled("u", ("l",))], "query")
    assert (alone.role, alone.texts) == ("document", ["t", "u"])
    mined = negatives(ROWS, 2)
    assert (mined.texts, mined.counts, mined.taught) == (["x", "y", "B", "z", "x"], [2, 0, 1, 2], False)


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_no_negative(shared: bool) -> None:
    queries, positives = two_columns(ROWS, "query")
    mined = negatives(ROWS, 3)
    found = never_negatives(queries, positives, mined, shared=shared)
    candidates = positives.texts + mined.texts
    owners = [0, 0, 2, 3, 3, 3]
    for i, row in enumerate(ROWS):
        for j, text in enumerate(candidates):
            expected = text in (row.anchor, row.positive) or (j < 4 and ROWS[j].anchor == row.anchor)
            if j >= 4 and not shared:
                expected = expected or owners[j - 4] != i
            assert bool(found[i, j]) == expected, (i, text)


def test_a_batch_without_negatives() -> None:
    same = [Pair("a", "A"), Pair("a", "B"), Pair("b", "A")]
    queries, positives = two_columns(same[:2], "query")
    with pytest.raises(InputError, match=r"a batch of 2 rows, of which the first is 'a', has no negative"):
        never_negatives(queries, positives, negatives(same[:2], 7))
    # One is enough.
    queries, positives = two_columns(same, "query")
    never_negatives(queries, positives, negatives(same, 7))


def test_prefixes_are_compared_with_prefixes_of_rotated_targets() -> None:
    student, teacher = torch.randn(5, 8), torch.randn(5, 12)
    for rotated in (False, True):
        one = distillation(rotated=rotated)
        expected = []
        for dim in (8, 4):
            outs = dim if rotated else 12
            mapped = student[:, :dim] @ one.weight[:outs, :dim].T + one.bias[:outs]
            expected.append(losses.distillation(mapped, torch.nn.functional.normalize(teacher)[:, :outs]))
        torch.testing.assert_close(one.distances(student, teacher), sum(expected) / 2)


@pytest.mark.parametrize("place", get_args(Projection))
def test_a_projection_is_learned_or_not_and_on_its_side(place: Projection) -> None:
    one = distillation(place)
    assert one.weight.requires_grad == (not place.endswith("frozen"))
    assert tuple(one.weight.shape) == ((8, 12) if place.startswith("teacher") else (12, 8))
    student = torch.randn(5, 8, requires_grad=True)
    one.distances(student, torch.randn(5, 12)).backward()
    assert student.grad is not None
    assert bool(student.grad.abs().sum() > 0)
    assert (one.weight.grad is None) == place.endswith("frozen")


def test_starts() -> None:
    def start(name: str) -> np.ndarray:
        # A name of a start as a plain string.
        made = Distillation(8, 8, "student", name, dims=[8], weights=[1], rotated=False, seed=4)  # type: ignore[arg-type]
        return made.weight.detach().numpy()

    np.testing.assert_array_equal(start("identity"), np.eye(8))
    np.testing.assert_allclose(start("orthogonal") @ start("orthogonal").T, np.eye(8), atol=1e-5)
    assert not np.allclose(start("random") @ start("random").T, np.eye(8), atol=0.1)
    np.testing.assert_array_equal(start("random"), start("random"))


@pytest.mark.parametrize("name", get_args(Objective))
def test_objectives_of_stage_1(name: Objective) -> None:
    settings = DistillSettings(objective=name, similarity=0.5)
    one = DistillObjective(settings, distillation(), [(8, 1.0), (4, 1.0)])
    columns = one.columns(ROWS)
    found = one.terms(ROWS, [encoded(column, seed) for seed, column in enumerate(columns)])
    assert found.keys() == {name, "similarity"} == one.weights.keys()
    assert all(torch.isfinite(term) and term > 0 for term in found.values())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (DistillSettings(), True),
        (DistillSettings(objective="infonce"), False),
        (DistillSettings(objective="infonce", similarity=0.5), True),
        (RetrievalSettings(distill=0), False),
        (RetrievalSettings(distill=0, ranking_sign=1.0), True),
        (TextMatchingSettings(), True),
        (TextMatchingSettings(distill=0), False),
        (ClusteringSettings(), True),
        (ClassificationSettings(), False),
    ],
)
def test_which_phases_ask_the_teacher(settings: PhaseSettings, expected: bool) -> None:
    assert asks_teacher(Phase("any", settings, None, 0)) is expected


def test_a_weight_of_0_leaves_its_term_out() -> None:
    settings = RetrievalSettings(distill=0, gor=0, sign=0)
    one = RetrievalObjective(settings, None, [(8, 1.0)])
    assert one.terms(ROWS, [encoded(column) for column in one.columns(ROWS)]).keys() == {"infonce"}
    settings = RetrievalSettings(sign=1.0, ranking=1.0, ranking_sign=1.0, sign_dim=8)
    every = RetrievalObjective(settings, distillation(), [(8, 1.0)])
    found = every.terms(ROWS, [encoded(column) for column in every.columns(ROWS)])
    assert found.keys() == {"infonce", "distill", "gor", "sign", "ranking", "ranking_sign"} == every.weights.keys()


def test_a_ranking_takes_the_teachers_embeddings_of_mined_negatives_too() -> None:
    ranks = RetrievalObjective(RetrievalSettings(infonce=0, distill=0, gor=0, ranking=1.0), None, [(8, 1.0)])
    assert [column.taught for column in ranks.columns(ROWS)] == [True, True, True]
    assert [column.taught for column in RetrievalObjective(RetrievalSettings(), None, []).columns(ROWS)][2] is False
    # A student whose embeddings are the teacher's ranks as it does; of a text that is its own query nothing is asked.
    columns = ranks.columns([*ROWS, Pair("A", "B", ("A",))])
    same = [Encoded(one.column, one.student, one.student.detach()) for one in map(encoded, columns)]
    assert ranks.terms(ROWS, same)["ranking"].item() == pytest.approx(0.0, abs=1e-6)


def test_text_matching_takes_what_a_batch_has() -> None:
    one = TextMatchingObjective(TextMatchingSettings(), distillation(), [(8, 1.0)])
    scored = [Scored(f"s{i}", f"t{i}", i / 3) for i in range(4)]
    assert one.terms(scored, [encoded(column) for column in one.columns(scored)]).keys() == {"cosent"}
    assert one.terms(ROWS, [encoded(column) for column in one.columns(ROWS)]).keys() == {"infonce", "distill"}


def test_a_temperature_is_learned_or_not() -> None:
    for learned in (True, False):
        settings = RetrievalSettings(distill=0, gor=0, learn_temperature=learned)
        one = RetrievalObjective(settings, None, [(8, 1.0)])
        one.terms(ROWS, [encoded(column) for column in one.columns(ROWS)])["infonce"].backward()
        (parameter,) = one.module.parameters()
        assert (parameter.grad is not None) == learned
