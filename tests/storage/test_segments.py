from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jv5kit.errors import IndexDamagedError
from jv5kit.storage.deletions import Deletions
from jv5kit.storage.layout import SMALL_BLOCK_BYTES, segment_specs
from jv5kit.storage.merging import NewRows, StoredRows, write_segment
from jv5kit.storage.segments import Segment
from jv5kit.storage.state import SegmentEntry, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SETTINGS = Settings(256, "ubinary", 256)


def random_tensors(rows: int, seed: int = 0, dim: int = 256) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "codes": rng.integers(0, 256, (rows, dim // 8), dtype=np.uint8),
        "rows": rng.integers(-127, 128, (rows, dim)).astype(np.int8),
        "scales": rng.random(rows, dtype=np.float32),
    }


def new_rows(rows: int, seed: int = 0, first: int = 0, dim: int = 256) -> NewRows:
    ids = [f"d{i}" for i in range(first, first + rows)]
    metadata = [{"n": i, "tags": ["x"] * (i % 3), "name": f"name {i % 7}"} for i in range(first, first + rows)]
    return NewRows(first, ids, metadata, random_tensors(rows, seed, dim))


def make(path: Path, rows: int = 500, first: int = 0) -> SegmentEntry:
    return write_segment(path, SETTINGS, 1, [new_rows(rows, first=first)])


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 40_000])
def test_what_was_written_is_read(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "s.safetensors"
    entry, tensors = make(path, rows, first=7), random_tensors(rows)
    assert (entry.rows, entry.first_row) == (rows, 7)
    segment = Segment(path, SETTINGS, entry)
    for name, expected in tensors.items():
        assert np.array_equal(segment.tensor(name), expected)
    chosen = np.random.default_rng(1).integers(0, rows, (3, 5))
    for name, expected in tensors.items():
        assert np.array_equal(Segment(path, SETTINGS, entry).rows_of(name, chosen)[chosen], expected[chosen])
    assert np.array_equal(segment.numbers(chosen), chosen + 7)


@pytest.mark.parametrize("dim", [8, 24, 256])
def test_the_file_is_safetensors_and_aligned(tmp_path: Path, dim: int) -> None:
    path, settings = tmp_path / "s.safetensors", Settings(dim, "ubinary", dim)
    entry = write_segment(path, settings, 1, [new_rows(39_999, dim=dim)])
    theirs = load_file(path)
    for name, expected in random_tensors(39_999, dim=dim).items():
        assert np.array_equal(theirs[name], expected)
    assert theirs["codes.crc32c"].shape == (-(-39_999 * dim // 8 // 2**20),)
    assert (8 + struct.unpack("<Q", path.read_bytes()[:8])[0]) % 64 == 0, "the codes start on a cache line"
    offset = 0
    for spec in segment_specs(settings, entry):
        assert offset % spec.dtype.itemsize == 0, spec.name
        offset += spec.bytes


def test_rows_longer_than_a_block_are_verified_whole(tmp_path: Path) -> None:
    path, dim = tmp_path / "s.safetensors", 3 * SMALL_BLOCK_BYTES
    settings = Settings(dim, "int8", dim)
    entry = write_segment(path, settings, 1, [new_rows(5, dim=dim)])
    rows = random_tensors(5, dim=dim)["rows"]
    data = bytearray(path.read_bytes())
    data[8 + struct.unpack("<Q", data[:8])[0] + 2 * dim + dim // 2] ^= 1
    path.write_bytes(data)
    segment = Segment(path, settings, entry)
    assert np.array_equal(segment.rows_of("rows", np.array([0, 1, 3]))[[0, 1, 3]], rows[[0, 1, 3]])
    with pytest.raises(IndexDamagedError, match="block 7 of rows"):
        segment.rows_of("rows", np.array([2]))


def test_segments_merge_block_by_block(tmp_path: Path) -> None:
    counts, stored, kept = [40_000, 1, 999], [], []
    rng = np.random.default_rng(3)
    for i, first in enumerate([0, 40_000]):
        path = tmp_path / f"{i}.safetensors"
        entry = write_segment(path, SETTINGS, i, [new_rows(counts[i], i, first)])
        # A third here and there, and a run of rows that fills whole blocks.
        gone = (rng.random(counts[i]) < 0.3) | (np.arange(counts[i]) // 10_000 == 2)
        dropped = np.flatnonzero(gone) if i == 0 else np.empty(0, np.int64)
        deletions, _ = Deletions(counts[i]).with_rows(dropped)
        live = SegmentEntry(i, first, counts[i], entry.checksum, entry.layout, deletions.count, deletions.checksum)
        stored.append(StoredRows(path, SETTINGS, live, deletions))
        kept.append(np.setdiff1d(np.arange(counts[i]), dropped))
    kept.append(np.arange(999))
    merged = tmp_path / "merged.safetensors"
    entry = write_segment(merged, SETTINGS, 9, [*stored, new_rows(999, 2, 40_001)])
    segment = Segment(merged, SETTINGS, entry)
    for name in ("codes", "rows", "scales"):
        expected = [random_tensors(count, i)[name][kept[i]] for i, count in enumerate(counts)]
        assert np.array_equal(segment.tensor(name), np.concatenate(expected))
    numbers = np.concatenate([kept[0], [40_000], np.arange(40_001, 41_000)])
    assert np.array_equal(segment.numbers(np.arange(entry.rows)), numbers)
    assert np.array_equal(segment.positions(numbers), np.arange(entry.rows))
    assert segment.positions(np.array([41_000, 2**32, 2**40])).tolist() == [entry.rows] * 3


def test_blocks_all_of_whose_rows_are_deleted(tmp_path: Path) -> None:
    entry, tensors = make(tmp_path / "1.safetensors", 500), random_tensors(500)
    deleted = np.arange(10, 400)
    assert len(deleted) * 256 > 3 * SMALL_BLOCK_BYTES
    deletions, _ = Deletions(500).with_rows(deleted)
    stored = StoredRows(tmp_path / "1.safetensors", SETTINGS, replace(entry, deleted=len(deleted)), deletions)
    merged = write_segment(tmp_path / "2.safetensors", SETTINGS, 2, [stored])
    segment = Segment(tmp_path / "2.safetensors", SETTINGS, merged)
    for name, expected in tensors.items():
        assert np.array_equal(segment.tensor(name), np.delete(expected, deleted, axis=0))


def test_damage_is_not_merged_away(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    entry = make(path)
    data = bytearray(path.read_bytes())
    data[4000] ^= 4
    path.write_bytes(data)
    with pytest.raises(IndexDamagedError, match=r"s\.safetensors is damaged: block 0 of codes"):
        write_segment(tmp_path / "merged", SETTINGS, 2, [StoredRows(path, SETTINGS, entry, Deletions(500))])


def read_everything(path: Path, entry: SegmentEntry) -> None:
    Segment(path, SETTINGS, entry).verify()


def test_every_flipped_bit_of_the_header_and_any_of_the_rest_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    entry = make(path, 50)
    sound = path.read_bytes()
    header_bytes = 8 + struct.unpack("<Q", sound[:8])[0]
    rng = np.random.default_rng(5)
    bits = [*range(8 * header_bytes), *rng.integers(8 * header_bytes, 8 * len(sound), 1000).tolist()]
    for bit in bits:
        data = bytearray(sound)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        with pytest.raises(IndexDamagedError, match=r"s\.safetensors is damaged"):
            read_everything(path, entry)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    entry = make(path, 50)
    sound = path.read_bytes()
    for size in [*range(200), *range(200, len(sound), 97), len(sound) - 1]:
        path.write_bytes(sound[:size])
        with pytest.raises(IndexDamagedError):
            read_everything(path, entry)
    path.write_bytes(sound + b"\0")
    with pytest.raises(IndexDamagedError, match="bytes instead of"):
        read_everything(path, entry)


def test_another_segment_in_its_place_is_found(tmp_path: Path) -> None:
    first, path = make(tmp_path / "a", 50), tmp_path / "b"
    write_segment(path, SETTINGS, 1, [new_rows(50, seed=9)])
    with pytest.raises(IndexDamagedError, match="table of checksums"):
        read_everything(path, first)


def test_a_missing_file_a_link_and_a_monstrous_header_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    entry = make(tmp_path / "elsewhere", 50)
    with pytest.raises(IndexDamagedError, match="it is missing"):
        read_everything(path, entry)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IndexDamagedError, match="symbolic link"):
        read_everything(path, entry)
    path.unlink()
    path.write_bytes(struct.pack("<Q", 1 << 60) + json.dumps({}).encode())
    with pytest.raises(IndexDamagedError, match="claims 1152921504606846976 bytes"):
        read_everything(path, entry)
