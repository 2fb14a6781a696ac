from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jv5kit.errors import IndexDamagedError
from jv5kit.storage.segments import BLOCK_BYTES, Part, Segment, SegmentPart, TensorSpec, write_segment

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPECS = [
    TensorSpec("codes", np.dtype("u1"), (32,)),
    TensorSpec("rows", np.dtype("i1"), (256,)),
    TensorSpec("scales", np.dtype("<f4"), ()),
]


def random_tensors(rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "codes": rng.integers(0, 256, (rows, 32), dtype=np.uint8),
        "rows": rng.integers(-127, 128, (rows, 256)).astype(np.int8),
        "scales": rng.random(rows, dtype=np.float32),
    }


def make(path: Path, rows: int = 500) -> tuple[int, dict[str, NDArray[Any]]]:
    tensors = random_tensors(rows)
    return write_segment(path, SPECS, [Part(tensors)]), tensors


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 40_000])
def test_what_was_written_is_read(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "s.safetensors"
    checksum, tensors = make(path, rows)
    segment = Segment(path, 7, rows, checksum, SPECS)
    for name, expected in tensors.items():
        assert np.array_equal(segment.tensor(name), expected)
    chosen = np.random.default_rng(1).integers(0, rows, (3, 5))
    for name, expected in tensors.items():
        assert np.array_equal(Segment(path, 7, rows, checksum, SPECS).rows_of(name, chosen)[chosen], expected[chosen])


def test_the_file_is_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    _, tensors = make(path, 40_000)
    theirs = load_file(path)
    for name, expected in tensors.items():
        assert np.array_equal(theirs[name], expected)
    assert theirs["codes.crc32c"].shape == (2,)
    header_bytes = struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert (8 + header_bytes) % 64 == 0, "the codes start on a cache line"


def test_rows_longer_than_a_block_are_verified_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    specs = [TensorSpec("rows", np.dtype("i1"), (3 * BLOCK_BYTES["rows"],))]
    rows = np.random.default_rng(0).integers(-127, 128, (5, 3 * BLOCK_BYTES["rows"])).astype(np.int8)
    checksum = write_segment(path, specs, [Part({"rows": rows})])
    data = bytearray(path.read_bytes())
    data[len(data) - 4 * 15 - rows.nbytes + 2 * rows.shape[1] + rows.shape[1] // 2] ^= 1
    path.write_bytes(data)
    segment = Segment(path, 0, 5, checksum, specs)
    assert np.array_equal(segment.rows_of("rows", np.array([0, 1, 3]))[[0, 1, 3]], rows[[0, 1, 3]])
    with pytest.raises(IndexDamagedError, match="block 7 of rows"):
        segment.rows_of("rows", np.array([2]))


def test_segments_merge_block_by_block(tmp_path: Path) -> None:
    parts = [random_tensors(rows, seed) for seed, rows in enumerate([40_000, 1, 999])]
    old = []
    for i, tensors in enumerate(parts[:2]):
        path = tmp_path / f"{i}.safetensors"
        checksum = write_segment(path, SPECS, [Part(tensors)])
        old.append(SegmentPart(path, len(tensors["codes"]), checksum, SPECS))
    merged = tmp_path / "merged.safetensors"
    checksum = write_segment(merged, SPECS, [*old, Part(parts[2])])
    segment = Segment(merged, 0, 41_000, checksum, SPECS)
    for name in parts[0]:
        assert np.array_equal(segment.tensor(name), np.concatenate([tensors[name] for tensors in parts]))


def test_damage_is_not_merged_away(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    checksum, _ = make(path)
    data = bytearray(path.read_bytes())
    data[2000] ^= 4
    path.write_bytes(data)
    with pytest.raises(IndexDamagedError, match=r"s\.safetensors is damaged: block 0 of codes"):
        write_segment(tmp_path / "merged", SPECS, [SegmentPart(path, 500, checksum, SPECS)])


def read_everything(path: Path, rows: int, checksum: int) -> None:
    segment = Segment(path, 0, rows, checksum, SPECS)
    for spec in SPECS:
        segment.tensor(spec.name)


def test_every_flipped_bit_of_the_header_and_any_of_the_rest_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    checksum, _ = make(path, 50)
    sound = path.read_bytes()
    header_bytes = 8 + struct.unpack("<Q", sound[:8])[0]
    rng = np.random.default_rng(5)
    bits = [*range(8 * header_bytes), *rng.integers(8 * header_bytes, 8 * len(sound), 1000).tolist()]
    for bit in bits:
        data = bytearray(sound)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        with pytest.raises(IndexDamagedError, match=r"s\.safetensors is damaged"):
            read_everything(path, 50, checksum)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    checksum, _ = make(path, 50)
    sound = path.read_bytes()
    for size in [*range(200), *range(200, len(sound), 97), len(sound) - 1]:
        path.write_bytes(sound[:size])
        with pytest.raises(IndexDamagedError):
            read_everything(path, 50, checksum)
    path.write_bytes(sound + b"\0")
    with pytest.raises(IndexDamagedError, match="bytes instead of"):
        read_everything(path, 50, checksum)


def test_another_segment_in_its_place_is_found(tmp_path: Path) -> None:
    (first, _), path = make(tmp_path / "a", 50), tmp_path / "b"
    write_segment(path, SPECS, [Part(random_tensors(50, seed=9))])
    with pytest.raises(IndexDamagedError, match="table of checksums"):
        read_everything(path, 50, first)


def test_a_missing_file_a_link_and_a_monstrous_header_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with pytest.raises(IndexDamagedError, match="it is missing"):
        read_everything(path, 50, 0)
    checksum, _ = make(tmp_path / "elsewhere", 50)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IndexDamagedError, match="symbolic link"):
        read_everything(path, 50, checksum)
    path.unlink()
    path.write_bytes(struct.pack("<Q", 1 << 60) + json.dumps({}).encode())
    with pytest.raises(IndexDamagedError, match="claims 1152921504606846976 bytes"):
        read_everything(path, 50, 0)
