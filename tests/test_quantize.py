from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jv5kit import _native, hamming_search, quantize_embeddings, quantize_rows
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

any_rows = arrays.arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(1, 300)),
    elements=st.floats(width=32) | st.sampled_from([0.0, -0.0]),
)


def naive_search(
    queries: NDArray[np.uint8], codes: NDArray[np.uint8], top_k: int, mask: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distances by unpacking every bit, sorted by distance, then row."""
    distances = (np.unpackbits(queries, axis=1)[:, None] != np.unpackbits(codes, axis=1)[None]).sum(axis=2)
    rows = np.arange(len(codes)) if mask is None else np.flatnonzero(mask)
    distances = distances[:, rows]
    order = np.argsort(distances, axis=1, kind="stable")[:, :top_k]
    return np.take_along_axis(distances, order, axis=1), rows[order]


@given(any_rows)
def test_bits_are_those_of_packbits(embeddings: NDArray[np.float32]) -> None:
    codes = quantize_embeddings(embeddings)
    assert codes.dtype == np.uint8
    with np.errstate(invalid="ignore"):
        assert np.array_equal(codes, np.packbits(embeddings > 0, axis=-1))


def test_bits_are_those_of_sentence_transformers() -> None:
    from sentence_transformers.util import quantize_embeddings as theirs

    embeddings = np.random.default_rng(0).standard_normal((20, 384)).astype(np.float32)
    assert np.array_equal(quantize_embeddings(embeddings), theirs(embeddings, precision="ubinary"))


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 50)), elements=st.floats(-1e3, 1e3, width=32))
)
def test_int8_rows_come_back_to_half_a_step(embeddings: NDArray[np.float32]) -> None:
    values, scales = quantize_rows(embeddings)
    assert values.dtype == np.int8
    assert scales.dtype == np.float32
    error = np.abs(values * scales[:, None].astype(np.float64) - embeddings)
    assert (error <= scales[:, None] * 0.501 + 1e-30).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(0, 200),
    st.integers(0, 6),
    st.integers(1, 250) | st.just(10**30),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_search_equals_the_naive_one(bytes_: int, n: int, q: int, top_k: int, seed: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    # Few different bytes make many ties.
    codes = rng.integers(0, 3, (n, bytes_), dtype=np.uint8)
    queries = rng.integers(0, 3, (q, bytes_), dtype=np.uint8)
    mask = rng.random(n) < 0.3 if masked else None
    distances, rows = hamming_search(queries, codes, top_k, mask=mask)
    expected_distances, expected_rows = naive_search(queries, codes, top_k, mask)
    if q:
        assert np.array_equal(distances, expected_distances)
        assert np.array_equal(rows, expected_rows)
    assert distances.dtype == np.int32
    assert rows.dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.sampled_from([None, 0, 0.03, 0.5, 0.97, 1])), max_size=6),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 100),
    st.integers(0, 2**32),
)
def test_parts_are_searched_as_one(
    parts: list[tuple[int, float | None]], bytes_: int, q: int, top_k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, 3, (n, bytes_), dtype=np.uint8) for n, _ in parts]
    queries = rng.integers(0, 3, (q, bytes_), dtype=np.uint8)
    masks = [rng.random(n) < (1 if kept is None else kept) for n, kept in parts]
    bits = [np.packbits(mask, bitorder="little") for mask in masks]
    given = [(part, None if kept is None else bit) for part, bit, (_, kept) in zip(codes, bits, parts, strict=True)]
    distances, rows = _native.hamming_search(queries, given, top_k, None)
    whole, mask = np.concatenate([np.empty((0, bytes_), np.uint8), *codes]), np.concatenate([np.zeros(0, bool), *masks])
    assert same((distances, rows), naive_search(queries, whole, top_k, mask))


FORCED = """
import sys, numpy as np
from jv5kit import _native, hamming_search, quantize_embeddings
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
    assert "InputError: JV5KIT_SIMD=mmx names no tier; this machine has: scalar" in raised.value.stderr


def same(a: tuple[NDArray[Any], ...], b: tuple[NDArray[Any], ...]) -> bool:
    return all(np.array_equal(left, right) for left, right in zip(a, b, strict=True))


def test_threads_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (200_000, 16), dtype=np.uint8)
    queries = rng.integers(0, 256, (70, 16), dtype=np.uint8)
    expected = hamming_search(queries, codes, 15, threads=1)
    for threads in (2, 5, None):
        assert same(hamming_search(queries, codes, 15, threads=threads), expected)
    monkeypatch.setenv("JV5KIT_THREADS", "3")
    assert same(hamming_search(queries, codes, 15), expected)
    alone = [hamming_search(queries[i : i + 1], codes, 15) for i in range(len(queries))]
    assert np.array_equal(np.concatenate([rows for _, rows in alone]), expected[1])


def test_codes_may_be_a_memory_map(tmp_path: Path) -> None:
    codes = np.random.default_rng(3).integers(0, 256, (1000, 32), dtype=np.uint8)
    np.save(tmp_path / "codes.npy", codes)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    assert np.array_equal(hamming_search(codes[:3], mapped, 5)[1], hamming_search(codes[:3], codes, 5)[1])


def test_other_python_threads_run_during_a_search() -> None:
    codes = np.random.default_rng(4).integers(0, 256, (1_000_000, 32), dtype=np.uint8)
    queries = codes[:400]
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    hamming_search(queries, codes, 10, threads=1)
    during, elapsed = ticks, time.perf_counter() - start
    done.set()
    thread.join()
    # A search that held the GIL would let a tick through before and after, at most.
    assert during > 5, f"{during} ticks in {elapsed:.3f} s"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros((1, 4), np.uint8), np.zeros((2, 5), np.uint8), 1), {}, "query codes have 4 bytes"),
        ((np.zeros((1, 4)), np.zeros((2, 4), np.uint8), 1), {}, "query_codes is float64"),
        ((np.zeros(4, np.uint8), np.zeros((2, 4), np.uint8), 1), {}, r"query_codes is uint8 of shape \(4,\)"),
        ((np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.int8), 1), {}, "codes is int8"),
        ((np.zeros((1, 4), np.uint8), np.zeros((4, 2), np.uint8).T, 1), {}, "codes is not C-contiguous"),
        ((np.zeros((1, 0), np.uint8), np.zeros((2, 0), np.uint8), 1), {}, "codes of 0 bytes"),
        ((np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.uint8), 0), {}, "top_k=0"),
        ((np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.uint8), -3), {}, "top_k=-3"),
        ((np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.uint8), 1), {"threads": 0}, "threads=0"),
        (
            (np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.uint8), 1),
            {"mask": np.ones(3, bool)},
            r"mask is bool of shape \(3,\)",
        ),
        ((np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.uint8), 1), {"mask": np.ones(2)}, "mask is float64"),
        ((np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.uint8), 1), {"mask": np.ones((2, 1), bool)}, "mask is bool"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hamming_search(*arguments, **options)  # type: ignore[arg-type]


def test_a_mask_of_parts_has_one_bit_a_row() -> None:
    codes = np.zeros((9, 4), np.uint8)
    for bits in (np.zeros(1, np.uint8), np.zeros(3, np.uint8)):
        with pytest.raises(InputError, match=f"mask has {len(bits)} bytes for 9 rows"):
            _native.hamming_search(codes, [(codes, None), (codes, bits)], 1, None)
    with pytest.raises(InputError, match="mask is not C-contiguous"):
        _native.hamming_search(codes, [(codes, np.zeros(4, np.uint8)[::2])], 1, None)
    with pytest.raises(InputError, match="query codes have 4 bytes, the codes to search 2"):
        _native.hamming_search(codes, [(codes, None), (codes[:, :2], None)], 1, None)


@pytest.mark.parametrize("value", [1, 2, 6, 255])
def test_a_mask_of_any_bytes_keeps_what_is_not_zero(value: int) -> None:
    codes = np.arange(1000, dtype=np.uint8)[:, None]
    mask = np.zeros(1000, np.uint8)
    mask[[10, 500]] = value
    assert hamming_search(codes[:1], codes, 5, mask=mask.view(np.bool_))[1].tolist() in ([[10, 500]], [[500, 10]])


def test_threads_of_the_environment_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.zeros((2, 4), np.uint8)
    for value in ("0", "-1", "many"):
        monkeypatch.setenv("JV5KIT_THREADS", value)
        with pytest.raises(InputError, match=f"JV5KIT_THREADS={value}"):
            hamming_search(codes, codes, 1)


def test_no_rows_and_no_queries() -> None:
    some, none = np.zeros((3, 4), np.uint8), np.zeros((0, 4), np.uint8)
    assert hamming_search(none, some, 2)[1].shape == (0, 0)
    assert hamming_search(some, none, 2)[1].shape == (3, 0)
    assert hamming_search(some, some, 2, mask=np.zeros(3, bool))[1].shape == (3, 0)


def test_only_known_precisions() -> None:
    with pytest.raises(InputError, match="precision='int4'"):
        quantize_embeddings(np.ones((1, 8)), "int4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no dimension"):
        quantize_embeddings(np.ones((3, 0)))
