"""mteb evaluates a model of ours as it does any other."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import mteb
import pytest
from command import environment
from mteb_tasks import retrieval, sts

from jv5kit.errors import InputError, MissingExtraError
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.mteb_adapter import run_tasks
from jv5kit.evaluation.runner import Report
from jv5kit.integrations.mteb import mteb_model

if TYPE_CHECKING:
    from jv5kit import Encoder
    from jv5kit.evaluation.quantized import StoredPrecision

MODEL: Any = mteb_model
"""Takes what no type checker would let pass."""


@pytest.mark.parametrize("precision", ["float32", "ubinary", "ubinary+int8"])
def test_scores_are_those_of_our_own_command(encoder: Encoder, precision: StoredPrecision) -> None:
    model = mteb_model(encoder, dim=32, precision=precision)
    results = mteb.evaluate(model, [retrieval(), sts()], cache=None, co2_tracker=False, show_progress_bar=False)
    found = {result.task_name: result.get_score() for result in results.task_results}
    report = Report("tiny", {}, [32], [precision])
    run_tasks(report, TextEncoder(encoder), [retrieval(), sts()], lambda *_: None, lambda _: None)
    expected = {result.name: next(iter(result.scores[0].metrics.values()), None) for result in report.results}
    assert found.keys() == expected.keys()
    assert found["LocalBirds"] == expected["LocalBirds"]
    # Of a pair there is no query, so that our command leaves this blank; what mteb gets is bits.
    assert expected["LocalSTS"] in ((None,) if precision == "ubinary+int8" else (found["LocalSTS"],))


def test_what_is_wrong_is_said(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="precision='int4' is not known; choose one of float32, int8, ubinary"):
        MODEL(encoder, precision="int4")
    with pytest.raises(InputError, match=r"dim=65 is outside 1\.\.64, the model's dimensions"):
        MODEL(encoder, dim=65)
    with pytest.raises(InputError, match="dim=31 is not a multiple of 8"):
        MODEL(encoder, dim=31, precision="ubinary")
    with pytest.raises(InputError, match="'no such model' is neither a folder nor a hub id"):
        MODEL("no such model")


def test_without_mteb() -> None:
    code = (
        "import sys; sys.modules['mteb'] = None\n"
        "try: import jv5kit.integrations.mteb\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    ).stdout
    assert printed.startswith(MissingExtraError.__name__)
    assert printed.endswith("is missing): pip install 'jv5kit[eval]'\n")
