"""A disk that fails, fills up or loses power: the layer of ``disk.c``, and what its record says.

The layer is loaded into a process by ``LD_PRELOAD``, where it watches one folder. Its record holds every call with its
data, from which :class:`Replay` finds what a power cut at any moment would leave.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("disk.c")

# Pages that SQLite keeps in shared memory, and the name of the lock's holder: neither is data.
NOT_DATA = ("index.sqlite-shm", "lock")


class Mode(IntEnum):
    """What happens at the call that was chosen: as ``Mode`` of ``disk.c``."""

    COUNT = 0
    ONCE = 1
    """It fails with EIO."""
    FULL = 2
    """The disk is full from there on: a write is cut short, the next ones fail with ENOSPC."""
    GONE = 3
    """It and all that follow fail with EIO."""
    KILL = 4
    """The process ends."""


def compiled(folder: Path) -> Path:
    """The layer as a library."""
    library = folder / "disk.so"
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


class Layer:
    """The layer of this process, which was started with it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)

    def watch(self, folder: Path, record: Path | None = None) -> None:
        """Count from 0 what changes the folder, and record it."""
        self._library.disk_watch(os.fsencode(folder), os.fsencode(record) if record else None)

    def arm(self, mode: Mode, nth: int) -> None:
        """Choose the call that fails, from 1."""
        self._library.disk_arm(int(mode), ctypes.c_long(nth))

    def note(self, text: str) -> None:
        """Put a remark into the record."""
        self._library.disk_note(text.encode())

    def calls(self) -> int:
        """Calls so far."""
        return int(self._library.disk_calls())


@dataclass(frozen=True, slots=True)
class Event:
    """One call of the record: ``note``, ``create``, ``mkdir``, ``write``, ``truncate``, ``sync``, ``rename``,
    ``link`` or ``remove``.
    """

    call: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.call} {Path(self.path).name}" + (f" {Path(self.other).name}" if self.other else "")


def events(record: Path) -> Iterator[Event]:
    """The calls of a record, in order."""
    with record.open("rb") as file:
        for line in file:
            call, path, other, offset, size = line.decode().rstrip("\n").split("\t")
            yield Event(call, path, other, int(offset), file.read(int(size)))


@dataclass(eq=False)
class _File:
    """A file or a folder (``None`` as content): what it holds, and what of that would survive."""

    content: bytearray | None
    synced: bytes = b""
    waiting: list[Event] = field(default_factory=list)


class Replay:
    """A folder as the calls so far made it, and as a power cut would leave it.

    What survives for certain is the content of a file at its last sync, under the names that its folder had at its last
    sync. Any part of the rest may survive as well.
    """

    def __init__(self, root: Path, before: dict[str, bytes | None]) -> None:
        """Begin with files (``None`` for a folder) by path below ``root``, all of them safe."""
        self.root = str(root)
        self._names: dict[str, _File] = {self.root: _File(None)}
        for path, content in before.items():
            self._names[f"{root}/{path}"] = _File(None if content is None else bytearray(content), content or b"")
        self._safe_names = dict(self._names)

    def apply(self, event: Event) -> None:
        """Do what a call did."""
        path, names = event.path, self._names
        if event.call in ("create", "mkdir"):
            names[path] = _File(bytearray() if event.call == "create" else None)
        elif event.call in ("write", "truncate") and path in names:
            # A file that has no name any more survives nothing.
            _change(names[path].content, event)
            names[path].waiting.append(event)
        elif event.call == "sync" and path in names:
            file = names[path]
            if file.content is None:
                self._sync_names(path)
            else:
                file.synced, file.waiting = bytes(file.content), []
        elif event.call == "rename":
            names[event.other] = names.pop(path)
        elif event.call == "link":
            names[event.other] = names[path]
        elif event.call == "remove":
            names.pop(path, None)

    def unsafe(self) -> list[str]:
        """What a power cut might lose; what was removed may come back as well, which does no harm."""
        data = {
            path: file
            for path, file in self._names.items()
            if Path(path).name not in NOT_DATA and (file.content is None or file.content)
        }
        problems = [f"{path} is not synced" for path, file in data.items() if file.waiting]
        return problems + [
            f"the name {path} is not synced" for path, file in data.items() if self._safe_names.get(path) is not file
        ]

    def power_cut(self, folder: Path, chance: random.Random | None = None) -> None:
        """Make the folder that a power cut leaves: what is safe, or with it, by chance, part of what is not."""
        names = dict(self._safe_names)
        if chance:
            for path in sorted(self._names.keys() | names.keys()):
                if self._names.get(path) is not names.get(path) and chance.random() < 0.5:
                    names.pop(path, None)
                    if path in self._names:
                        names[path] = self._names[path]
        for path in sorted(names):
            relative = Path(path).relative_to(self.root)
            if relative.name in NOT_DATA or not all(
                str(Path(self.root) / parent) in names for parent in relative.parents
            ):
                continue
            content = names[path].content
            if content is None:
                (folder / relative).mkdir(exist_ok=True)
                continue
            kept = bytearray(names[path].synced)
            for event in names[path].waiting if chance else ():
                if chance and chance.random() < 0.5:
                    _change(kept, event)
            (folder / relative).write_bytes(kept)

    def _sync_names(self, folder: str) -> None:
        for names in (self._safe_names, self._names):
            for path in [path for path in names if path != self.root and str(Path(path).parent) == folder]:
                self._safe_names.pop(path, None)
                if path in self._names:
                    self._safe_names[path] = self._names[path]


def _change(content: bytearray | None, event: Event) -> None:
    """Write into the content of a file, or give it another size."""
    if content is None:
        return
    end = event.offset + len(event.data)
    content.extend(bytes(max(0, end - len(content))))
    if event.call == "truncate":
        del content[event.offset :]
    else:
        content[event.offset : end] = event.data
