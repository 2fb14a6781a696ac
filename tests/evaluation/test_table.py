from __future__ import annotations

import json

from jv5kit.evaluation.quantized import STORED_PRECISIONS, StoredPrecision
from jv5kit.evaluation.runner import Report, Result, Score
from jv5kit.evaluation.table import head_lines, mean_of, set_lines, tail_lines, to_json


def scores(value: float, precisions: tuple[StoredPrecision, ...] = STORED_PRECISIONS) -> list[Score]:
    return [
        Score(dim, precision, {"nDCG@10": value * dim / 64, "recall@100": 1.0} if precision in precisions else {})
        for dim in (64, 32)
        for precision in STORED_PRECISIONS
    ]


def report() -> Report:
    birds = Result("birds", "retrieval", {"documents": 1200, "queries": 7}, 1207, 2.0, scores(0.5))
    ships = Result("ships", "retrieval", {"documents": 3, "queries": 2}, 0, 0.0, scores(0.25, STORED_PRECISIONS[:3]))
    facts = {"backend": "native", "device": "cpu", "dtype": "float32"}
    return Report("tiny", facts, [64, 32], STORED_PRECISIONS, [birds, ships], ["needle-512: too long"])


def test_tables_are_aligned() -> None:
    made = report()
    assert list(head_lines(made)) == [
        "bytes a document",
        "  dim   float32      int8   ubinary  ubinary+codes  ubinary+int8",
        "   64       256        68         8              8            76",
        "   32       128        36         4              4            40",
    ]
    assert list(set_lines(made, made.results[0]))[:7] == [
        "",
        "birds: retrieval, nDCG@10 (1,200 documents, 7 queries; 604 texts/s)",
        "  dim   float32      int8   ubinary  ubinary+codes  ubinary+int8",
        "   64    0.5000    0.5000    0.5000         0.5000        0.5000",
        "   32    0.2500    0.2500    0.2500         0.2500        0.2500",
        "recall@100",
        "  dim   float32      int8   ubinary  ubinary+codes  ubinary+int8",
    ]
    # What has no meaning is left blank; what was encoded before has no rate.
    assert list(set_lines(made, made.results[1]))[1:4] == [
        "ships: retrieval, nDCG@10 (3 documents, 2 queries)",
        "  dim   float32      int8   ubinary  ubinary+codes  ubinary+int8",
        "   64    0.2500    0.2500    0.2500",
    ]
    assert list(tail_lines(made)) == [
        "",
        "retrieval: mean nDCG@10 of 2 sets",
        "  dim   float32      int8   ubinary  ubinary+codes  ubinary+int8",
        "   64    0.3750    0.3750    0.3750",
        "   32    0.1875    0.1875    0.1875",
        "",
        "left out: needle-512: too long",
    ]


def test_means_are_of_all_sets_or_none() -> None:
    made = report()
    assert mean_of(made.results, "nDCG@10", 64, "int8") == 0.375
    assert mean_of(made.results, "nDCG@10", 64, "ubinary+int8") is None
    assert mean_of(made.results[:1], "nDCG@10", 64, "ubinary+int8") == 0.5


def test_json_has_everything() -> None:
    found = json.loads(json.dumps(to_json(report())))
    assert {name: found[name] for name in ("model", "backend", "device", "dtype", "dims")} == {
        "model": "tiny", "backend": "native", "device": "cpu", "dtype": "float32", "dims": [64, 32]
    }  # fmt: skip
    birds, ships = found["sets"]
    assert {name: birds[name] for name in ("name", "kind", "adapter", "metric", "encoded", "texts_per_second")} == {
        "name": "birds", "kind": "retrieval", "adapter": "retrieval", "metric": "nDCG@10", "encoded": 1207,
        "texts_per_second": 603.5,
    }  # fmt: skip
    assert birds["scores"][2] == {"dim": 64, "precision": "ubinary", "bytes": 8, "nDCG@10": 0.5, "recall@100": 1.0}
    assert (len(birds["scores"]), len(ships["scores"]), ships["texts_per_second"]) == (10, 6, None)
    (means,) = found["means"]
    assert (means["kind"], means["metric"], means["sets"]) == ("retrieval", "nDCG@10", 2)
    assert means["scores"][0] == {"dim": 64, "precision": "float32", "bytes": 256, "nDCG@10": 0.375}
    assert found["skipped"] == ["needle-512: too long"]
