"""Damage to the files of an index: what is done to them, case by case.

A case is a name and the files that it changes; ``None`` takes a file away.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Files = dict[str, bytes]
Changes = dict[str, bytes | None]
Case = tuple[str, Changes]
Mutation = Callable[[Files, str, random.Random], Changes]

DATABASE = "index.sqlite"
LOG = "index.sqlite-wal"
PAGE = 4096
LOG_HEADER, FRAME_HEADER = 32, 24


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def truncations(files: Files, points: int) -> Iterator[Case]:
    """Every file cut at so many lengths, the shortest and the longest among them."""
    for name, data in files.items():
        lengths = {round(i * (len(data) - 1) / (points - 1)) for i in range(points)} if data else set()
        for length in sorted(lengths):
            yield f"{name} cut to {length} bytes", {name: data[:length]}


def _headers(name: str, data: bytes) -> list[tuple[int, int]]:
    """Where the headers of a file are: begin and end, in bytes."""
    if name == DATABASE:
        # Its own, and that of the first page's tree.
        return [(0, 112)]
    if name == LOG:
        frames = range(LOG_HEADER, len(data), FRAME_HEADER + PAGE)
        return [(0, LOG_HEADER), *((frame, frame + FRAME_HEADER) for frame in frames)]
    if name.endswith(".safetensors"):
        return [(0, 8 + struct.unpack("<Q", data[:8])[0])]
    # The number of the last commit, and what a graph says of itself.
    return [(0, min(len(data), 112))]


def header_flips(files: Files, stride: int) -> Iterator[Case]:
    """Every bit of every header; of segments each ``stride``-th, as tests of the segments flip them all."""
    for name, data in files.items():
        bits = [bit for begin, end in _headers(name, data) for bit in range(8 * begin, 8 * end)]
        for bit in bits[:: stride if name.endswith(".safetensors") else 1]:
            yield f"{name} bit {bit} flipped", {name: flipped(data, bit)}


def mutations(files: Files, count: int, seed: int) -> Iterator[Case]:
    """Random ones: a bit or a byte changed, a run zeroed or noise, a piece cut out, moved or added, files exchanged."""
    names = sorted(files)
    for number in range(count):
        # Each has its own seed, so that one of them can be made again.
        chance = random.Random(f"{seed} {number}")
        # The catalogue and its log have the most ways to go wrong.
        name = chance.choice([DATABASE, LOG, *names])
        if not files.get(name):
            continue
        kind = chance.choice(list(_KINDS))
        yield f"mutation {number}: {kind} in {name}", _KINDS[kind](files, name, chance)


def _span(data: bytes, chance: random.Random) -> tuple[int, int]:
    """Some bytes, or a page."""
    size = chance.choice([1, 4, 64, PAGE])
    begin = chance.randrange(len(data))
    if size == PAGE:
        begin -= begin % PAGE
    return begin, min(len(data), begin + size)


def _flip(files: Files, name: str, chance: random.Random) -> Changes:
    return {name: flipped(files[name], chance.randrange(8 * len(files[name])))}


def _overwrite(
    fill: Callable[[int, random.Random], bytes],
) -> Mutation:
    def change(files: Files, name: str, chance: random.Random) -> Changes:
        data = files[name]
        begin, end = _span(data, chance)
        return {name: data[:begin] + fill(end - begin, chance) + data[end:]}

    return change


def _cut(files: Files, name: str, chance: random.Random) -> Changes:
    begin, end = _span(files[name], chance)
    return {name: files[name][:begin] + files[name][end:]}


def _copy(files: Files, name: str, chance: random.Random) -> Changes:
    """A page or less over another one."""
    data = files[name]
    begin, end = _span(data, chance)
    target = chance.randrange(max(1, len(data) - (end - begin) + 1))
    target -= target % PAGE if end - begin == PAGE else 0
    return {name: data[:target] + data[begin:end] + data[target + end - begin :]}


def _append(files: Files, name: str, chance: random.Random) -> Changes:
    extra = chance.choice([b"\0" * 100, chance.randbytes(5000), files[name][-PAGE:]])
    return {name: files[name] + extra}


def _swap(files: Files, name: str, chance: random.Random) -> Changes:
    other = chance.choice(sorted(files))
    return {name: files[other], other: files[name]}


def _remove(files: Files, name: str, chance: random.Random) -> Changes:
    return {name: None}


_KINDS: dict[str, Mutation] = {
    "bit": _flip,
    "several": lambda files, name, chance: {
        name: flipped(_flip(files, name, chance)[name] or b"", chance.randrange(8 * len(files[name])))
    },
    "zeros": _overwrite(lambda size, chance: bytes(size)),
    "noise": _overwrite(lambda size, chance: chance.randbytes(size)),
    "cut": _cut,
    "copy": _copy,
    "append": _append,
    "swap": _swap,
    "remove": _remove,
}


def cases(files: Files, kind: str, arguments: str) -> Iterator[Case]:
    """The cases of a kind, from its arguments in JSON."""
    kinds: dict[str, Callable[..., Iterator[Case]]] = {
        "truncations": truncations,
        "header_flips": header_flips,
        "mutations": mutations,
    }
    return kinds[kind](files, *json.loads(arguments))
