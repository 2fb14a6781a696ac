from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from jv5kit import Document
from jv5kit.errors import InputError
from jv5kit.evaluation.beir import Collection
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.quantized import STORED_PRECISIONS
from jv5kit.evaluation.runner import Report, Result, default_dims, evaluate, run, usable
from jv5kit.evaluation.tasks import ADAPTERS, KINDS, Bitext, Clustering, Pairs, Retrieval
from jv5kit.tasks import TASKS

if TYPE_CHECKING:
    from pathlib import Path

    from jv5kit import Encoder
    from jv5kit.evaluation.tasks import EvaluationSet

PAIRS = Pairs("sts", ["a bird", "ice", "the sea"], ["a penguin", "cold", "a penguin"], [3, 2, 1])
RETRIEVAL = Retrieval(
    Collection([Document(f"d{i}", text) for i, text in enumerate(PAIRS.left)], {"q": "ice"}, {"q": {"d1": 1}})
)
TRANSLATIONS = Bitext(PAIRS.left, PAIRS.left)
GROUPS = Clustering(["ice", "sea", "warm"], ["a", "b", "a"])


def test_default_dims_are_matryoshka_ones() -> None:
    assert default_dims(384) == [384, 256, 128, 64, 32]
    assert default_dims(1024) == [1024, 768, 512, 256, 128, 64, 32]
    assert default_dims(768) == [768, 512, 256, 128, 64, 32]
    assert default_dims(24) == [24]


def test_every_kind_has_an_adapter() -> None:
    assert ADAPTERS.keys() == set(KINDS)
    assert set(ADAPTERS.values()) == set(TASKS)


def test_a_set_is_scored_at_every_dimension_and_precision(encoder: Encoder) -> None:
    texts = TextEncoder(encoder)
    result = evaluate(texts, "mine", PAIRS, [64, 32], STORED_PRECISIONS)
    assert (result.name, result.kind, result.metrics) == ("mine", "sts", ["Spearman"])
    assert [(score.dim, score.precision) for score in result.scores] == [
        (dim, precision) for dim in (64, 32) for precision in STORED_PRECISIONS
    ]
    assert [score.bytes for score in result.scores[:5]] == [256, 68, 8, 8, 76]
    assert [bool(score.metrics) for score in result.scores] == [True, True, True, True, False] * 2
    assert (dict(result.texts), result.encoded) == ({"left": 3, "right": 3}, 5)
    assert result.texts_per_second == pytest.approx(5 / result.seconds)
    again = evaluate(texts, "again", PAIRS, [64], ["float32"])
    assert (again.encoded, again.texts_per_second) == (0, None)
    assert again.scores[0] == result.scores[0]


def test_sets_of_a_folder_share_embeddings(encoder: Encoder) -> None:
    report = Report("tiny", {}, [64], ["float32"])
    begun: list[tuple[str, str]] = []
    ended: list[Result] = []
    sets: list[tuple[str, EvaluationSet]] = [("stsb/en", PAIRS), ("stsb/x", TRANSLATIONS), ("other", PAIRS)]
    run(report, TextEncoder(encoder), sets, lambda name, size: begun.append((name, size)), ended.append)
    assert begun == [
        ("stsb/en", "sts, 3 left, 3 right"),
        ("stsb/x", "bitext, 3 left, 3 right"),
        ("other", "sts, 3 left, 3 right"),
    ]
    assert report.results == ended
    assert [result.encoded for result in ended] == [5, 0, 5]


def test_kinds_without_an_adapter_are_left_out(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = Report("tiny", {}, [64], ["float32"])
    sets: list[tuple[str, EvaluationSet]] = [("r", RETRIEVAL), ("s", PAIRS), ("c", GROUPS), ("d", GROUPS)]
    assert usable(report, encoder, sets, []) == sets
    assert report.skipped == []
    checkpoint = replace(encoder.checkpoint, adapters={"retrieval": tmp_path, "text-matching": tmp_path})
    monkeypatch.setattr(encoder, "checkpoint", checkpoint)
    assert usable(report, encoder, sets, []) == sets[:2]
    assert report.skipped == [
        "2 of the kind clustering, which needs the adapter 'clustering', and the model has 'retrieval', 'text-matching'"
    ]
    with pytest.raises(InputError, match="clustering needs the adapter 'clustering', and the model has 'retrieval'"):
        usable(report, encoder, sets, ["clustering"])
    with pytest.raises(InputError, match="clustering needs the adapter"):
        usable(report, encoder, sets[2:], [])
