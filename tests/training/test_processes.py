"""What processes agree on, as one of them sees it; several of them are in test_torchrun.py and gradients.py."""

from __future__ import annotations

import logging

import pytest
from safetensors import SafetensorError

from jv5kit.errors import InputError, Jv5kitError
from jv5kit.training.processes import is_first_to_say, launched, meet, most, restarts, together


def test_one_process_agrees_with_itself() -> None:
    assert (launched(), restarts(), most(3)) == (False, 0, 3)
    assert is_first_to_say("something")
    assert is_first_to_say("something")
    with pytest.raises(InputError, match="of its own"), together():
        raise InputError("of its own")
    # What a full disk is to safetensors.
    with pytest.raises(Jv5kitError, match="tensors cannot be written or read: no space"), together():
        raise SafetensorError("no space")


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As a process on one of two boxes sees it, which cannot reach the other."""
    variables = {
        **{"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3"},
        **{"TORCHELASTIC_RESTART_COUNT": "1", "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "RANK": "1"},
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_where_a_restart_may_hang_it_is_said(torchrun: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert (launched(), restarts()) == (True, 1)
    with caplog.at_level(logging.WARNING, "jv5kit"):
        meet()
        assert "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in caplog.text
        caplog.clear()
        # As torchrun says where that is set.
        torchrun.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
        meet()
    assert not caplog.text


def test_what_nobody_can_know_is_said(torchrun: pytest.MonkeyPatch) -> None:
    assert is_first_to_say("something")
    torchrun.setenv("MASTER_ADDR", "localhost")
    torchrun.setenv("MASTER_PORT", "none")
    assert is_first_to_say("something")
