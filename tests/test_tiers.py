"""Every tier, forced from outside, gives the same to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jv5kit import _native

FORCED = """
import sys, numpy as np
from jv5kit import _native, hamming_search, int8_search, quantize_embeddings, quantize_rows, rescored_search
rng = np.random.default_rng(7)
floats = rng.standard_normal((3000, 300)).astype(np.float32)
parts = [quantize_embeddings(floats).tobytes()]
for bytes_ in (1, 7, 16, 32, 33, 64, 96, 128, 200):
    codes = rng.integers(0, 4, (3000, bytes_), dtype=np.uint8)
    for queries in (1, 40):
        for kept in (0.1, 0.7, 0.99):
            mask = rng.random(3000) < kept
            parts += [array.tobytes() for array in hamming_search(codes[:queries], codes, 25, mask=mask)]
        parts += [array.tobytes() for array in hamming_search(codes[:queries], codes, 25)]
for dim in (1, 3, 16, 64, 100, 300):
    rows, scales = quantize_rows(floats[:, :dim])
    codes, values = quantize_embeddings(floats[:, :dim]), quantize_embeddings(floats[:, :dim], "int8")
    parts += [rows.tobytes(), scales.tobytes(), values.tobytes()]
    for queries in (1, 40):
        for kept in (0.1, 0.99):
            mask = rng.random(3000) < kept
            found = [int8_search(rows[:queries], rows, scales, 25, mask=mask)]
            found += [rescored_search(floats[:queries, :dim], codes, 25, mask=mask)]
            found += [rescored_search(floats[:queries, :dim], codes, 25, mask=mask, rows=rows, scales=scales)]
            parts += [array.tobytes() for pair in found for array in pair]
name, forced, _ = _native.simd_tier()
print(name, forced, _native.crc32c(b"".join(parts)))
"""


def run_forced(tier: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", FORCED],
        env=os.environ | {"JV5KIT_SIMD": tier},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


def test_every_tier_can_be_forced_and_gives_the_same() -> None:
    tiers = _native.simd_tier()[2]
    answers = {tier: run_forced(tier).split() for tier in tiers}
    assert [answer[:2] for answer in answers.values()] == [[tier, "True"] for tier in tiers]
    assert len({answer[2] for answer in answers.values()}) == 1


def test_a_tier_that_is_not_there_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run_forced("mmx")
    assert "InputError: JV5KIT_SIMD=mmx names no tier; this machine has: portable" in raised.value.stderr
