"""Where a run computes: the type, run after run."""

import pytest

from jv5kit.training import hardware


def test_runs_of_a_process_may_be_of_different_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "fast_bfloat16", lambda: True)
    found = [hardware.accelerator_of(bfloat16=one).mixed_precision for one in (True, False, False, True, False)]
    assert found == ["bf16", "no", "no", "bf16", "no"]
