from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jv5kit.errors import InputError, MissingExtraError
from jv5kit.evaluation import plots
from jv5kit.evaluation.quantized import STORED_PRECISIONS, document_bytes, has_meaning
from jv5kit.evaluation.runner import Report, Result, Score

if TYPE_CHECKING:
    from pathlib import Path

    from jv5kit.evaluation.tasks import Kind

DIMS = [64, 32, 16]


def result(name: str, kind: Kind, metric: str) -> Result:
    scores = [
        Score(dim, precision, {metric: dim / 100 + number / 50, "other": 0.0} if has_meaning(kind, precision) else {})
        for dim in DIMS
        for number, precision in enumerate(STORED_PRECISIONS)
    ]
    return Result(name, kind, {"texts": 3}, 3, 1.0, scores)


def report(*results: Result) -> Report:
    return Report("org/tiny", {}, DIMS, STORED_PRECISIONS, list(results))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn."""
    drawn: list[Any] = []
    make = plots._figure

    def remember(*arguments: Any) -> Any:
        drawn.append(make(*arguments))
        return drawn[-1]

    monkeypatch.setattr(plots, "_figure", remember)
    return drawn


def test_a_line_is_what_a_precision_measured(tmp_path: Path, figures: list[Any]) -> None:
    made = report(result("birds", "retrieval", "nDCG@10"), result("news", "clustering", "V-measure"))
    paths = plots.draw(made, tmp_path / "new" / "plots")
    assert [path.name for path in paths] == [
        "retrieval-bytes.png", "retrieval-dimensions.png", "clustering-bytes.png", "clustering-dimensions.png"
    ]  # fmt: skip
    for path in paths:
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert width > 500 and height > 400
    by_bytes, by_dims, clusters, _ = figures
    (axis,) = by_bytes.axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert list(lines) == list(STORED_PRECISIONS)
    for number, (name, line) in enumerate(lines.items()):
        assert name in STORED_PRECISIONS
        assert list(line.get_xdata()) == [document_bytes(dim, name) for dim in (16, 32, 64)]
        assert list(line.get_ydata()) == pytest.approx([dim / 100 + number / 50 for dim in (16, 32, 64)])
    assert (axis.get_xscale(), axis.get_xlabel(), axis.get_ylabel()) == ("log", "bytes a document", "nDCG@10")
    assert by_bytes.get_suptitle() == "tiny: retrieval"
    (axis,) = by_dims.axes
    assert list(axis.get_lines()[2].get_xdata()) == [16, 32, 64]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["16", "32", "64"]
    assert [line.get_label() for line in clusters.axes[0].get_lines()] == ["float32", "int8", "ubinary"]


def test_a_set_is_a_panel_and_many_are_their_mean(tmp_path: Path, figures: list[Any]) -> None:
    results = [result(f"s{i}", "sts", "Spearman") for i in range(4)]
    plots.draw(report(*results), tmp_path)
    assert [axis.get_title() for axis in figures[0].axes if axis.axison] == ["s0", "s1", "s2", "s3"]
    results = [result(f"s{i}", "sts", "Spearman") for i in range(plots.PANELS + 1)]
    plots.draw(report(*results), tmp_path)
    assert [axis.get_title() for axis in figures[2].axes] == ["mean of 10 sets"]
    assert list(figures[2].axes[0].get_lines()[0].get_ydata()) == pytest.approx([0.16, 0.32, 0.64])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the plots cannot be written"):
        plots.draw(report(result("birds", "retrieval", "nDCG@10")), tmp_path / "file")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'jv5kit\[eval\]'"):
        plots.draw(report(result("birds", "retrieval", "nDCG@10")), tmp_path)
