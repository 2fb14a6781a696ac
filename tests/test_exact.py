from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jv5kit import _native, hamming_search, int8_search, quantize_rows
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def naive_search(
    queries: NDArray[np.uint8], codes: NDArray[np.uint8], top_k: int, mask: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distances by unpacking every bit, sorted by distance, then row."""
    distances = (np.unpackbits(queries, axis=1)[:, None] != np.unpackbits(codes, axis=1)[None]).sum(axis=2)
    rows = np.arange(len(codes)) if mask is None else np.flatnonzero(mask)
    distances = distances[:, rows]
    order = np.argsort(distances, axis=1, kind="stable")[:, :top_k]
    return np.take_along_axis(distances, order, axis=1), rows[order]


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


def naive_int8_search(
    queries: NDArray[np.int8],
    values: NDArray[np.int8],
    scales: NDArray[np.float32],
    top_k: int,
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Products in int64, sorted by score, then row."""
    rows = np.flatnonzero(mask)
    scores = (queries.astype(np.int64) @ values[rows].T.astype(np.int64)).astype(np.float32) * scales[rows]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return np.take_along_axis(scores, order, axis=1), rows[order]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.sampled_from([None, 0, 0.03, 0.5, 0.97, 1])), min_size=1, max_size=6),
    st.integers(1, 140),
    st.integers(1, 20),
    st.integers(1, 100),
    st.integers(0, 2**32),
    st.sampled_from([3, 128]),
)
def test_int8_search_equals_the_naive_one(
    parts: list[tuple[int, float | None]], dim: int, q: int, top_k: int, seed: int, largest: int
) -> None:
    rng = np.random.default_rng(seed)
    values = [rng.integers(-largest, largest, (n, dim), dtype=np.int8) for n, _ in parts]
    # Few scales and few values make many ties.
    scales = [(rng.integers(0, 3, n) / 7).astype(np.float32) for n, _ in parts]
    queries = rng.integers(-largest, largest, (q, dim), dtype=np.int8)
    masks = [rng.random(n) < (1 if kept is None else kept) for n, kept in parts]
    bits = [np.packbits(mask, bitorder="little") for mask in masks]
    given = [
        (part, scale, None if kept is None else bit)
        for part, scale, bit, (_, kept) in zip(values, scales, bits, parts, strict=True)
    ]
    found = _native.dot_search(queries, given, top_k, None)
    whole = np.concatenate(values), np.concatenate(scales)
    expected = naive_int8_search(queries, *whole, top_k, np.concatenate(masks))
    assert same(found, expected)
    assert same(int8_search(queries, *whole, top_k, mask=np.concatenate(masks)), expected)
    assert [array.dtype for array in found] == [np.float32, np.int64]


def test_int8_search_of_quantized_rows_is_near_the_cosine() -> None:
    embeddings = np.random.default_rng(6).standard_normal((500, 64)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    values, scales = quantize_rows(embeddings)
    scores, rows = int8_search(values[:9], values, scales, 500)
    cosines = np.take_along_axis(embeddings[:9] @ embeddings.T, rows, axis=1)
    assert np.abs(scores * scales[:9, None] - cosines).max() < 0.01
    assert np.array_equal(rows[:, 0], np.arange(9))


def test_a_score_that_is_no_number_comes_last() -> None:
    values = np.ones((4, 3), np.int8)
    scales = np.array([np.nan, 1, -np.inf, 2], np.float32)
    scores, rows = int8_search(values[:1], values, scales, 4)
    assert rows.tolist() == [[3, 1, 0, 2]]
    assert scores.tolist() == [[6, 3, -np.inf, -np.inf]]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros((1, 4), np.int8), np.zeros((2, 5), np.int8), np.zeros(2, np.float32), 1), {}, "have 4 dimensions"),
        ((np.zeros((1, 4)), np.zeros((2, 4), np.int8), np.zeros(2, np.float32), 1), {}, "query_values is float64"),
        ((np.zeros((1, 4), np.int8), np.zeros((2, 4), np.uint8), np.zeros(2, np.float32), 1), {}, "values is uint8"),
        ((np.zeros((1, 4), np.int8), np.zeros((2, 4), np.int8), np.zeros(2), 1), {}, "scales is float64"),
        ((np.zeros((1, 4), np.int8), np.zeros((2, 4), np.int8), np.zeros(3, np.float32), 1), {}, "3 scales for 2 rows"),
        ((np.zeros((1, 0), np.int8), np.zeros((2, 0), np.int8), np.zeros(2, np.float32), 1), {}, "of 0 dimensions"),
        ((np.zeros((1, 4), np.int8), np.zeros((2, 4), np.int8), np.zeros(2, np.float32), 0), {}, "top_k=0"),
        ((np.zeros((1, 4), np.int8), np.zeros((2, 4), np.int8), np.zeros(2, np.float32), 1.5), {}, "top_k is 1.5"),
    ],
)
def test_wrong_arguments_of_int8_search_are_named(
    arguments: tuple[object, ...], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        # Arguments of the wrong types are the point.
        int8_search(*arguments, **options)  # type: ignore[arg-type]


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_a_system_without_threads_to_give() -> None:
    child = """
import re, resource, numpy as np
from pathlib import Path
from jv5kit import hamming_search
codes, queries = np.zeros((1_000_000, 16), np.uint8), np.zeros((64, 16), np.uint8)
hamming_search(queries, codes, 5, threads=2)
size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
# Room for the results, not for the stacks of so many threads.
resource.setrlimit(resource.RLIMIT_AS, (size + (3 << 20),) * 2)
distances, rows = hamming_search(queries, codes, 5, threads=64)
assert not distances.any() and (rows == np.arange(5)).all()
"""
    subprocess.run([sys.executable, "-c", child], check=True)


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
        # Arguments of the wrong types are the point.
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
