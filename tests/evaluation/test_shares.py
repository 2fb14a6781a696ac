"""The share of another model's scores: against plain division, in the table, in JSON and back."""

import json
from pathlib import Path
from typing import Any

import pytest

from jv5kit.errors import InputError
from jv5kit.evaluation.shares import by_kind, from_json, lines, read_scores, shares, to_json


def scores(model: str, **sets: list[tuple[int, str, float]]) -> dict[str, Any]:
    """As ``jv5kit eval --json`` prints them; the name of a set begins with its kind."""
    return {
        "model": model,
        "sets": [
            {
                "name": name,
                "kind": name.partition("_")[0],
                "metric": "ndcg_at_10",
                "scores": [{"dim": dim, "precision": how, "ndcg_at_10": value} for dim, how, value in measured],
            }
            for name, measured in sets.items()
        ],
    }


OTHER = scores(
    "large",
    retrieval_a=[(384, "float32", 0.5), (64, "float32", 0.9), (384, "ubinary", 0.8)],
    retrieval_b=[(384, "float32", 0.25)],
    sts_c=[(384, "float32", 0.8)],
    sts_bits=[(384, "ubinary", 0.8)],
)
OWN = scores(
    "small",
    retrieval_a=[(256, "float32", 0.4), (256, "ubinary", 0.3)],
    retrieval_b=[(256, "float32", 0.2), (256, "ubinary", 0.1)],
    sts_c=[(256, "float32", 0.84)],
    sts_bits=[(256, "float32", 0.5)],
    sts_d=[(256, "float32", 0.5)],
)


def test_shares_are_of_the_other_model_at_its_best() -> None:
    found = {one.name: one for one in shares(OWN, OTHER)}
    assert list(found) == ["retrieval_a", "retrieval_b", "sts_c"], "what both have, and the other in float32"
    assert found["retrieval_a"].share((256, "float32")) == pytest.approx(0.4 / 0.5)
    assert found["sts_c"].share((256, "float32")) == pytest.approx(1.05)
    assert found["sts_c"].share((256, "ubinary")) is None


def test_of_a_kind_the_means_are_compared() -> None:
    retrieval, sts = by_kind(shares(OWN, OTHER))
    assert retrieval.sets == 2
    assert retrieval.reference == pytest.approx(0.375)
    assert retrieval.share((256, "ubinary")) == pytest.approx(((0.3 + 0.1) / 2) / ((0.5 + 0.25) / 2))
    assert (sts.sets, sts.name) == (1, None)


def test_a_share_of_nothing_is_none() -> None:
    nothing = scores("none", retrieval_a=[(8, "float32", 0.0)])
    assert shares(OWN, nothing)[0].share((256, "float32")) is None


def test_the_table() -> None:
    assert list(lines(shares(OWN, OTHER), "large")) == [
        "share of large, float32",
        "                             there  float32, 256  ubinary, 256",
        "retrieval_a                 0.5000         80.0%         60.0%",
        "retrieval_b                 0.2500         80.0%         40.0%",
        "sts_c                       0.8000        105.0%",
        "retrieval, mean of 2 sets   0.3750         80.0%         53.3%",
        "sts, mean of 1 set          0.8000        105.0%",
    ]


def test_json_and_back() -> None:
    found = shares(OWN, OTHER)
    written = json.loads(json.dumps(to_json(found, "large")))
    assert from_json(written) == found
    assert [one["kind"] for one in written["kinds"]] == ["retrieval", "sts"]
    assert written["sets"][0]["scores"][0] == {"dim": 256, "precision": "float32", "value": 0.4, "share": 0.8}


def test_another_measure_of_a_set_is_not_compared() -> None:
    other = scores("large", sts_c=[(8, "float32", 0.5)], sts_d=[(8, "float32", 0.5)])
    other["sets"][0]["metric"] = "Pearson"
    other["sets"][0]["scores"][0]["Pearson"] = 0.9
    assert [one.name for one in shares(OWN, other)] == ["sts_d"]


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(InputError, match="the sets are sts_x, and of large there are scores in float32 on retrieval_a"):
        shares(scores("small", sts_x=[(8, "float32", 1.0)]), OTHER)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("[]", "no sets with scores"),
        ("{}", "'sets' is missing"),
        ('{"sets": [{}]}', "'name' is missing"),
        ('{"sets": 3}', "not iterable"),
        ('{"sets": [{"name": 3}]}', "the name of a set is 3"),
        ('{"sets": [{"name": "a", "metric": "AP", "scores": [{"dim": 8}]}]}', "'precision' is missing"),
        (
            '{"sets": [{"name": "a", "metric": "AP", "scores": [{"dim": 8, "precision": "float32"}]}]}',
            "'AP' is missing",
        ),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_file_that_is_no_report_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=rf"x\.json has no scores as 'jv5kit eval --json' prints them: .*{message}"):
        read_scores(tmp_path / "x.json")
    (tmp_path / "y.json").write_text(json.dumps(OTHER))
    assert read_scores(tmp_path / "y.json") == OTHER
