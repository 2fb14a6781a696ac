"""A long text takes memory in proportion to its length: keys are attended in blocks, and a layer at a time is held."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
from command import environment
from models import write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = int(os.environ.get("JV5KIT_TEST_TOKENS", "4096"))
"""Of the text; JV5KIT_TEST_TOKENS=32768 pytest -s takes some minutes."""

MOST_BYTES_A_TOKEN = 1_000_000_000 / 32_768

SCRIPT = """
import sys
from jv5kit import Encoder
from jv5kit.backends import Output

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

encoder = Encoder.from_pretrained(sys.argv[1], backend="native")
output = Output(1024, unit=False, normalize=True, binary=False)
encoder.backend.embed([[1, 2, 3]], None, output)
before = peak()
encoder.backend.embed([[i % 1000 for i in range(int(sys.argv[2]))]], None, output)
print(peak() - before)
"""


def qwen3_layer(folder: Path) -> Path:
    """A layer of the size of Qwen3-0.6B's, which all its layers share memory with, of random weights in bfloat16."""
    config = {
        "model_type": "qwen3",
        "vocab_size": 1000,
        "hidden_size": 1024,
        "num_hidden_layers": 1,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "max_position_embeddings": 32_768,
    }
    shapes = {
        "embed_tokens": (1000, 1024),
        "norm": (1024,),
        "layers.0.input_layernorm": (1024,),
        "layers.0.post_attention_layernorm": (1024,),
        "layers.0.self_attn.q_norm": (128,),
        "layers.0.self_attn.k_norm": (128,),
        "layers.0.self_attn.q_proj": (2048, 1024),
        "layers.0.self_attn.k_proj": (1024, 1024),
        "layers.0.self_attn.v_proj": (1024, 1024),
        "layers.0.self_attn.o_proj": (1024, 2048),
        "layers.0.mlp.gate_proj": (3072, 1024),
        "layers.0.mlp.up_proj": (3072, 1024),
        "layers.0.mlp.down_proj": (1024, 3072),
    }
    random = np.random.default_rng(0)
    header, data = {}, b""
    for name, shape in shapes.items():
        values = random.standard_normal(shape, np.float32) * 0.02 + (len(shape) == 1)
        raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, template="$A")
    return folder


def test_memory_grows_with_the_length_of_a_text(tmp_path: Path) -> None:
    folder = qwen3_layer(tmp_path / "model")
    command = [sys.executable, "-c", SCRIPT, str(folder), str(TOKENS)]
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=3000)
    assert outcome.stderr == ""
    used = int(outcome.stdout)
    print(f"{TOKENS} tokens: {used / 1e6:.0f} MB beyond the weights")
    assert used < TOKENS * MOST_BYTES_A_TOKEN
    # Half of it is the residual stream alone: less would mean that nothing was measured.
    assert used > TOKENS * 1024 * 4
