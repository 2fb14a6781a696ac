"""Which backend a model gets, what is asked for that cannot be, and how encoding is interrupted."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from command import Inside, environment
from models import TEXTS
from references import assert_same_direction, sentence_transformer

from jv5kit import Encoder, _native, backends
from jv5kit.backends import choose_backend
from jv5kit.errors import InputError
from jv5kit.pretrained import load_checkpoint


def configure(folder: Path, **values: object) -> None:
    """Change settings of a model."""
    config = json.loads((folder / "config.json").read_text())
    models.write_json(folder / "config.json", config | values)


def test_a_known_architecture_is_native_on_a_cpu(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = load_checkpoint(tiny_model)
    for device in (None, "cpu"):
        monkeypatch.setattr(backends, "_has_gpu", lambda: False)
        assert choose_backend(checkpoint, device=device) == ("native", "the architecture is known and this is a CPU")
    monkeypatch.setattr(backends, "_has_gpu", lambda: True)
    assert choose_backend(checkpoint) == ("torch", "there is a GPU")
    assert choose_backend(checkpoint, device="cpu")[0] == "native"
    assert choose_backend(checkpoint, "native") == ("native", "asked for")
    assert choose_backend(checkpoint, "torch") == ("torch", "asked for")
    assert choose_backend(checkpoint, device="cuda:1") == ("torch", "device cuda:1 is asked for")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_backend(checkpoint)[0] == "native", "a GPU is of no use without torch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "mystery"}, "backend='mystery' is not known; choose one of native, torch"),
        ({"backend": ""}, "backend='' is not known"),
        ({"dtype": "float64"}, "dtype='float64' is not known; choose one of float32, bfloat16"),
        ({"dtype": np.float32}, "dtype=.* is not known; choose one of float32, bfloat16"),
        (
            {"backend": "native", "device": "cuda"},
            "device='cuda' cannot be used: the native backend runs on the CPU; use backend='torch'",
        ),
    ],
)
def test_what_is_not_known_or_does_not_go_together_is_named(
    tiny_model: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Encoder.from_pretrained(tiny_model, **options)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"hidden_act": "mish"}, 'has hidden_act "mish" in config.json, which the native backend does not know'),
        ({"model_type": "deberta"}, 'has the model_type "deberta"; the native backend knows bert, roberta'),
        ({"is_decoder": True}, "has is_decoder true in config.json, which the native backend cannot run"),
        ({"position_embedding_type": "relative_key"}, "has position_embedding_type relative_key in config.json"),
        ({"num_attention_heads": 5}, "has 5 attention heads in 64 dimensions, which they do not divide"),
        ({"num_attention_heads": 0}, "has no num_attention_heads in config.json"),
        ({"num_hidden_layers": "two"}, "has num_hidden_layers two in config.json, which must be a whole number"),
        ({"num_hidden_layers": -1}, "has num_hidden_layers -1 in config.json, which must be a whole number"),
        ({"intermediate_size": 1.5}, "has intermediate_size 1.5 in config.json, which must be a whole number"),
        ({"vocab_size": 1 << 70}, "has vocab_size 1180591620717411303424 in config.json"),
        ({"layer_norm_eps": -1}, "has layer_norm_eps -1 in config.json, which must be above 0"),
        ({"hidden_act": "half \ud83d"}, "has hidden_act "),
    ],
)
def test_what_native_cannot_run_is_said(model_copy: Path, settings: dict[str, Any], why: str) -> None:
    configure(model_copy, **settings)
    checkpoint = load_checkpoint(model_copy)
    name, reason = choose_backend(checkpoint)
    assert name == "torch"
    assert reason.startswith(f"the model {why}")
    with pytest.raises(InputError, match=r"; use backend='torch'$") as caught:
        Encoder.from_pretrained(model_copy, backend="native")
    assert str(caught.value).startswith(f"model '{model_copy}' {why}")


def test_qwen3_with_settings_that_native_does_not_know(tmp_path: Path) -> None:
    folder = models.qwen3(tmp_path)
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"rope_parameters": yarn}, "has rope_parameters.rope_type yarn"),
        ({"rope_parameters": None, "rope_scaling": yarn}, "has rope_scaling.rope_type yarn"),
        ({"use_sliding_window": True}, "has use_sliding_window true"),
        ({"num_key_value_heads": 3}, "has 4 attention heads, 3 for keys and values"),
        ({"head_dim": 15}, "has heads of 15 dimensions; rotary positions need an even number"),
    ]
    for settings, why in refused:
        before = (folder / "config.json").read_bytes()
        configure(folder, **settings)
        assert choose_backend(load_checkpoint(folder))[1].startswith(f"the model {why}"), why
        (folder / "config.json").write_bytes(before)
    assert choose_backend(load_checkpoint(folder))[0] == "native"


def test_torch_runs_what_native_does_not_know(model_copy: Path) -> None:
    configure(model_copy, hidden_act="mish")
    encoder = Encoder.from_pretrained(model_copy)
    assert encoder.backend.name == "torch"
    assert_same_direction(encoder.encode(TEXTS), sentence_transformer(model_copy).encode(TEXTS))


def test_settings_nested_without_end_are_passed_over(model_copy: Path) -> None:
    nested: Any = {}
    for _ in range(800):
        nested = {"a": nested}
    configure(model_copy, other=nested, others=[[7]])
    assert Encoder.from_pretrained(model_copy, backend="native").encode("a penguin").shape == (64,)


def test_info_says_which_and_why(tiny_model: Path, model_copy: Path, inside: Inside) -> None:
    facts = json.loads(inside("info", "-m", tiny_model, "--json").stdout)
    assert (facts["backend"], facts["backend_why"]) == choose_backend(load_checkpoint(tiny_model))
    assert facts["dtype"] == _native.default_dtype()
    configure(model_copy, hidden_act="mish")
    facts = json.loads(inside("info", "-m", model_copy, "--json").stdout)
    assert facts["backend"] == "torch"
    assert facts["backend_why"].startswith('the model has hidden_act "mish"')
    assert facts["dtype"] == "float32"


# Interruption

LONG = """
import sys
from jv5kit import Encoder
encoder = Encoder.from_pretrained(sys.argv[1], backend="native")
texts = ["a warm bird flies over the cold sea " * 60] * 100_000
encoder.encode(texts[:2])
print("started", flush=True)
encoder.encode(texts)
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_interrupt_ends_encoding_at_once(threads: str) -> None:
    """While tokens are made ahead and all threads are busy; with the default model, whose batches take long."""
    process = subprocess.Popen(
        [sys.executable, "-c", LONG, "all-MiniLM-L6-v2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(JV5KIT_THREADS=threads),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, err = process.communicate(timeout=30)
        took = time.monotonic() - start
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert took < 5, f"it took {took} s"
    print(f"ended after {took:.2f} s", file=sys.stderr)


def test_an_encoder_that_was_interrupted_goes_on(tiny_model: Path) -> None:
    """In a process of its own, whose signal comes from a timer."""
    code = """
import signal, sys
import numpy as np
from jv5kit import Encoder
encoder = Encoder.from_pretrained(sys.argv[1], backend="native")
before = encoder.encode(["a penguin", "the sea"])
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try:
    encoder.encode(["a warm bird " * 40] * 400_000)
    print("not interrupted")
except KeyboardInterrupt:
    print(np.array_equal(encoder.encode(["a penguin", "the sea"]), before))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=100,
        check=False,
    )
    assert result.stdout == "True\n", result.stderr


def test_the_command_line_ends_with_130_where_encoding_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"text": "a warm bird flies over the cold sea"}\n' * 100_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "jv5kit", "encode", "docs.jsonl", "-o", "x.npy"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    try:
        time.sleep(3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not (tmp_path / "x.npy").exists()
