"""An index of 10 GB opens at once, and in little memory: nothing of it is read before it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command import environment, random_rows

from jv5kit import Index, _native
from jv5kit.storage.catalog import Change
from jv5kit.storage.layout import TensorSpec, header_of, segment_specs
from jv5kit.storage.snapshot import SEGMENTS, segment_path
from jv5kit.storage.state import SegmentEntry
from jv5kit.storage.writer import MAX_SEGMENT_ROWS, Writer

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


def write_zeros(path: Path, specs: list[TensorSpec]) -> int:
    """Write a segment that is all zeros, which take no room on the disk; its checksum."""
    header = header_of(specs)
    digest = bytearray(header)
    with path.open("xb") as file:
        file.write(header)
        file.seek(len(header) + sum(spec.bytes for spec in specs))
        for spec in specs:
            blocks, rest = divmod(spec.bytes, spec.block_bytes)
            sums = [_native.crc32c(bytes(spec.block_bytes))] * blocks + ([_native.crc32c(bytes(rest))] if rest else [])
            table = np.array(sums, "<u4").tobytes()
            file.write(table)
            digest += table
    return _native.crc32c(bytes(digest))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_ten_gigabytes_open_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "large.jv5"
    Index.build(folder, embeddings=random_rows(1, DIM)).close()
    writer = Writer.open(folder)
    layout = writer.state.segments[0].layout
    entries: list[SegmentEntry] = []
    for number in range(2, COUNT + 2):
        entry = SegmentEntry(number, 1 + len(entries) * MAX_SEGMENT_ROWS, MAX_SEGMENT_ROWS, 0, layout)
        path = segment_path(folder, entry)
        entries.append(replace(entry, checksum=write_zeros(path, segment_specs(writer.state.settings, entry))))
    segments = (*writer.state.segments, *entries)
    writer._register(Change(replace(writer.state, segments=segments, next_row=1 + COUNT * MAX_SEGMENT_ROWS)))
    writer.close()
    size = sum(path.stat().st_size for path in (folder / SEGMENTS).iterdir())
    assert size > 10e9
    outcome = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)], env=environment(), capture_output=True, text=True, check=True
    )
    found = json.loads(outcome.stdout)
    print(f"{size / 1e9:.1f} GB: opened in {1000 * found['seconds']:.1f} ms, peak {found['mib']:.0f} MiB")
    assert found["documents"] == 1 + COUNT * MAX_SEGMENT_ROWS
    assert found["seconds"] < 0.05
    assert found["mib"] < 100
