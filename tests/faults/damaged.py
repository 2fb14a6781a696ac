"""Run by the tests: an index damaged again and again, each time opened and asked.

What is about to be tried is printed before it is tried, so that whoever reads knows what a crash or a silence is of.
"""

from __future__ import annotations

import json
import resource
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from damage import Case, Files, cases

from jv5kit import Index
from jv5kit.errors import Jv5kitError

if TYPE_CHECKING:
    from collections.abc import Mapping

MORE_MEMORY = 512 << 20
SEGMENT_FILES = [f"segments/{number:06d}.safetensors" for number in range(1, 10)]

Answers = list[list[tuple[object, ...]]]


def answers(folder: Path, queries: np.ndarray) -> Answers:
    """Everything that a reader may learn: sizes, hits with their documents, and what is found by id."""
    with Index.open(folder) as index:
        hits = [*index.search(queries, 10), *index.search(queries, 10, filter={"year": [2003, 2007, 2019]})]
        found = index.get(["d0", "d17", "d699", "none"])
        rows: Answers = [[(len(index), index.segment_count, str(index.settings))]]
        rows += [
            [(hit.id, hit.score, hit.title, hit.text, str(hit.metadata), hit.passage) for hit in of_query]
            for of_query in hits
        ]
        rows += [[(str(document),)] for document in found]
        return rows


class Damaged:
    """A copy of an index that is damaged, asked, and mended."""

    def __init__(self, sound: Path, folder: Path) -> None:
        self.files: Files = {
            str(path.relative_to(sound)): path.read_bytes()
            for path in sorted(sound.rglob("*"))
            if path.is_file() and path.name not in ("lock", "index.sqlite-shm") and path.stat().st_size
        }
        self.folder = folder
        self.queries = np.load(sound.parent / "queries.npy")
        self._touched = set(self.files)
        self._mend({})
        self.expected = answers(folder, self.queries)

    def outcome(self, case: Case) -> str:
        """What came of a case: ``refused``, ``same``, or what was wrong."""
        name, changed = case
        self._mend(changed)
        try:
            found = answers(self.folder, self.queries)
        except Jv5kitError as error:
            # A log that lost its end shows in the segments: those that were merged since then are missing.
            suspects = [*changed, "index.sqlite", "head", *(SEGMENT_FILES if "index.sqlite-wal" in changed else ())]
            named = [path for path in suspects if str(self.folder / path) in str(error)]
            missing = str(error).startswith(f"{self.folder} is no jv5kit index (it has no index.sqlite)")
            return "refused" if named or missing else f"{name}: the error does not name the file: {error}"
        except BaseException:
            return f"{name}: {traceback.format_exc()}"
        if found == self.expected:
            return "same"
        return f"{name}: another answer: {_difference(found, self.expected)}"

    def _mend(self, changed: Mapping[str, bytes | None]) -> None:
        """Put every file there as it was, but for those that are changed, and no others."""
        (self.folder / "segments").mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("index.sqlite*"):
            # SQLite shares what it knows of a file among its connections, as long as one of them lives.
            path.unlink()
        for name in self._touched | changed.keys() | {"index.sqlite", "index.sqlite-wal"}:
            data = changed[name] if name in changed else self.files.get(name)
            if data is None:
                (self.folder / name).unlink(missing_ok=True)
            else:
                (self.folder / name).write_bytes(data)
        self._touched = set(changed)


def _difference(found: Answers, expected: Answers) -> Any:
    pairs = zip(found, expected, strict=False)
    return next((pair for pair in pairs if pair[0] != pair[1]), (len(found), len(expected)))


def main() -> None:
    sound, folder, kind, arguments = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    damaged = Damaged(sound, folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + MORE_MEMORY, pages + MORE_MEMORY))
    for case in cases(damaged.files, kind, arguments):
        print(json.dumps({"case": case[0]}), flush=True)
        print(json.dumps({"outcome": damaged.outcome(case)}), flush=True)
    print(json.dumps({"peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


if __name__ == "__main__":
    main()
