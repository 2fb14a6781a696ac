"""An index of 10 GB opens at once, and in little memory: nothing of it is read before it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command import environment

from jv5kit import _native
from jv5kit.scan import tensor_specs
from jv5kit.storage.catalog import Catalog, SegmentEntry, Settings, State
from jv5kit.storage.segments import BLOCK_BYTES, TensorSpec, _header
from jv5kit.storage.writer import MAX_SEGMENT_ROWS, SEGMENTS

if TYPE_CHECKING:
    from pathlib import Path

# Segments as large as they get: 9.4 million documents, without their texts.
DIM, COUNT = 1024, 9

OPEN = """
import json, re, sys, time
from pathlib import Path
from jv5kit import Index
times = []
for _ in range(5):
    start = time.perf_counter()
    index = Index.open(sys.argv[1])
    times.append(time.perf_counter() - start)
    count = len(index)
    index.close()
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(json.dumps({"documents": count, "seconds": min(times), "mib": int(peak[1]) / 1024}))
"""


def write_zeros(path: Path, specs: list[TensorSpec], rows: int) -> int:
    """Write a segment that is all zeros, which take no room on the disk; its checksum."""
    header = _header(specs, rows)
    digest = bytearray(header)
    end = len(header) + sum(rows * spec.row_bytes for spec in specs)
    with path.open("xb") as file:
        file.write(header)
        file.seek(end)
        for spec in specs:
            block = BLOCK_BYTES[spec.name]
            blocks, rest = divmod(rows * spec.row_bytes, block)
            sums = [_native.crc32c(bytes(block))] * blocks + ([_native.crc32c(bytes(rest))] if rest else [])
            table = np.array(sums, "<u4").tobytes()
            file.write(table)
            digest += table
    return _native.crc32c(bytes(digest))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_ten_gigabytes_open_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "large.jv5"
    settings = Settings(DIM, "ubinary", DIM)
    (folder / SEGMENTS).mkdir(parents=True)
    entries: list[SegmentEntry] = []
    for number in range(1, COUNT + 1):
        entry = SegmentEntry(number, (number - 1) * MAX_SEGMENT_ROWS, MAX_SEGMENT_ROWS, 0)
        checksum = write_zeros(folder / SEGMENTS / entry.file_name, tensor_specs(settings), entry.rows)
        entries.append(replace(entry, checksum=checksum))
    Catalog.create(folder, settings)
    catalog = Catalog(folder, write=True)
    catalog.commit([], 0, State(settings, tuple(entries)))
    catalog.close()
    size = sum(path.stat().st_size for path in (folder / SEGMENTS).iterdir())
    assert size > 10e9
    outcome = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)], env=environment(), capture_output=True, text=True, check=True
    )
    found = json.loads(outcome.stdout)
    print(f"{size / 1e9:.1f} GB: opened in {1000 * found['seconds']:.1f} ms, peak {found['mib']:.0f} MiB")
    assert found["documents"] == COUNT * MAX_SEGMENT_ROWS
    assert found["seconds"] < 0.05
    assert found["mib"] < 100
