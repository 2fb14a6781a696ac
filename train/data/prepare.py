"""Make training rows of public sets: ``python train/data/prepare.py UNPACKED OUTPUT [NAME …] [--class A]``.

UNPACKED has a folder for each set (data_sets.py names them). For each that is to be trained on, OUTPUT gets
``NAME.jsonl`` with the rows of its training split, and ``sources.toml`` names them all, with licence, class and kind: a
``--config`` of ``jv5kit train``.

What evaluation uses stays out: a row that has a text of another split, of this set or of any other one, is dropped,
whatever its case, spaces and punctuation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_sets import DATA_SETS, DataSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEAD = """\
# Sources of `jv5kit train`, written by train/data/prepare.py.
# Class A may be shipped with attribution; B has no licence or a mixed one; C is not for commercial use.
"""


@dataclass(frozen=True)
class Written:
    """What was written of a set: its rows, and those that were dropped for a text of evaluation, or as repeated."""

    rows: int
    held_out: int
    repeated: int


def digest(text: str) -> bytes:
    """What two texts have in common that differ in case, spaces and punctuation alone; 16 bytes."""
    plain = re.sub(r"\W+", "", text.casefold()) or re.sub(r"\s+", "", text)
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def held_out_texts(unpacked: Path, sets: Sequence[DataSet] = DATA_SETS) -> set[bytes]:
    """Digests of every text that evaluation uses; a set that is not there is named on stderr."""
    found: set[bytes] = set()
    missing = []
    for one in sets:
        if one.held_out is not None:
            if (unpacked / one.name).is_dir():
                found.update(map(digest, one.held_out(unpacked / one.name)))
            else:
                missing.append(one.name)
    if missing:
        print(f"prepare: {', '.join(missing)} not in {unpacked}: rows are not compared with them", file=sys.stderr)
    # What has no character at all is no text.
    return found - {digest("")}


def write_rows(one: DataSet, unpacked: Path, output: Path, held_out: set[bytes]) -> Written:
    """Write the rows of a set, each once, without those that evaluation uses."""
    assert one.rows is not None
    seen: set[bytes] = set()
    count = used = repeated = 0
    aside = output / f".{one.name}.tmp"
    with aside.open("w", encoding="utf-8") as file:
        for row in one.rows(unpacked / one.name):
            texts = [value.strip() for name, value in row.items() if isinstance(value, str) and name != "label"]
            whole = digest(json.dumps(row, ensure_ascii=False))
            if not all(texts):
                continue
            # A title that stands before its text may be of the same paper in another split.
            if not held_out.isdisjoint(digest(part) for text in texts for part in (text, *text.split("\n", 1))):
                used += 1
            elif whole in seen or (len(texts) == 2 and digest(texts[0]) == digest(texts[1])):
                repeated += 1
            else:
                seen.add(whole)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    aside.replace(output / f"{one.name}.jsonl")
    return Written(count, used, repeated)


def fragment(one: DataSet, output: Path, written: Written) -> str:
    """What ``sources.toml`` says of a set."""
    values: dict[str, Any] = {
        "path": str((output / f"{one.name}.jsonl").resolve()),
        "name": one.name,
        "licence": one.licence,
    }
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return "\n".join(["", "[[data]]", f"# class {one.letter}, {one.kind}, {written.rows:,} rows", *lines, ""])


def chosen(names: Sequence[str], letters: Iterable[str], unpacked: Path) -> list[DataSet]:
    """The sets to write.

    Raises:
        SystemExit: a name is none, is not there, or is for evaluation alone.
    """
    known = {one.name: one for one in DATA_SETS}
    for name in names:
        problem = None
        if name not in known:
            problem = f"there is no set {name}; the sets are {', '.join(known)}"
        elif known[name].rows is None:
            problem = f"{name} is for evaluation alone: nothing of it may be trained on"
        elif known[name].letter not in letters:
            problem = f"{name} is of class {known[name].letter}, which --class leaves out"
        elif not (unpacked / name).is_dir():
            problem = f"{unpacked} has no folder {name}"
        if problem:
            sys.exit(f"prepare: {problem}")
    wanted = [one for one in DATA_SETS if one.rows is not None and one.letter in letters]
    found = [one for one in wanted if one.name in names or (not names and (unpacked / one.name).is_dir())]
    if not found:
        sys.exit(f"prepare: {unpacked} has none of the sets {', '.join(one.name for one in wanted)}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    assert __doc__
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.partition("\n\n")[0])
    parser.add_argument("unpacked", type=Path, metavar="UNPACKED", help="a folder with a folder for each set")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="a folder for the rows")
    parser.add_argument("names", nargs="*", metavar="NAME", help="sets to write (default: all that are there)")
    parser.add_argument("--class", dest="letters", default="ABC", metavar="A", help="only sets of these classes")
    given = parser.parse_args(arguments)
    if not given.letters or not set(given.letters) <= set("ABC"):
        sys.exit(f"prepare: --class {given.letters} is none of A, B, C, or several of them, as AB")
    sets = chosen(given.names, given.letters, given.unpacked)
    held_out = held_out_texts(given.unpacked)
    given.output.mkdir(parents=True, exist_ok=True)
    parts = [HEAD]
    for one in sets:
        written = write_rows(one, given.unpacked, given.output, held_out)
        if not written.rows:
            sys.exit(f"prepare: no row of {one.name} is left: {written.held_out} have a text that evaluation uses")
        print(
            f"{one.name}: {written.rows:,} rows ({one.kind}); dropped {written.held_out:,} that evaluation uses, "
            f"{written.repeated:,} repeated",
            file=sys.stderr,
        )
        parts.append(fragment(one, given.output, written))
    (given.output / "sources.toml").write_text("".join(parts), encoding="utf-8")
    print(given.output / "sources.toml")


if __name__ == "__main__":
    main()
