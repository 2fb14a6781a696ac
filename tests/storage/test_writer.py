from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pytest

from jv5kit import Index, truncate_embeddings
from jv5kit.errors import IndexDamagedError, IndexExistsError, IndexLockedError, IndexNotFoundError, Jv5kitError
from jv5kit.storage import writer as writer_module
from jv5kit.storage.lock import WriteLock
from jv5kit.storage.snapshot import SEGMENTS
from jv5kit.storage.state import Settings
from jv5kit.storage.vectors import vectors
from jv5kit.storage.writer import Writer
from jv5kit.types import Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

SETTINGS = Settings(16, "ubinary", 16)


def unit_rows(rows: int, seed: int) -> NDArray[np.float32]:
    return truncate_embeddings(np.random.default_rng(seed).standard_normal((rows, 16)), 16)


def create(folder: Path, *, force: bool = False) -> Writer:
    return Writer.create(folder, SETTINGS, force=force)


def commit(writer: Writer, rows: int) -> None:
    first = writer.state.next_row
    embeddings = unit_rows(rows, seed=first)
    writer.commit([Document(f"d{first + i}", "") for i in range(rows)], vectors(SETTINGS, embeddings))


def segment_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / SEGMENTS).iterdir())


def test_segments_stay_few(tmp_path: Path) -> None:
    writer = create(tmp_path / "x.jv5")
    for count in range(1, 130):
        commit(writer, 10)
        # One segment for each set bit of the number of batches.
        assert len(writer.state.segments) == count.bit_count()
        assert len(segment_files(tmp_path / "x.jv5")) == count.bit_count()
    writer.close()
    index = Index.open(tmp_path / "x.jv5")
    everything = np.concatenate([unit_rows(10, seed=i * 10) for i in range(129)])
    for row in (0, 9, 10, 645, 1289):
        assert index.search(everything[row], 1, oversample=50)[0].id == f"d{row}"


def test_full_segments_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_SEGMENT_ROWS", 40)
    writer = create(tmp_path / "x.jv5")
    for _ in range(10):
        commit(writer, 10)
    assert [entry.rows for entry in writer.state.segments] == [40, 40, 20]
    assert [entry.first_row for entry in writer.state.segments] == [0, 40, 80]


def test_leftovers_of_a_dead_writer_are_swept_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "x.jv5"
    writer = create(folder)
    commit(writer, 10)
    writer.close()
    (folder / SEGMENTS / "000002.safetensors").write_bytes(b"named, but never registered")
    (folder / SEGMENTS / "000003.tmp").write_bytes(b"never named")
    (folder / SEGMENTS / "notes.txt").write_bytes(b"somebody else's")
    assert len(Index.open(folder)) == 10
    Writer.open(folder).close()
    assert segment_files(folder) == ["000001.safetensors", "notes.txt"]


def test_the_order_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, fsync, name, fsync of the folder, only then the transaction, and then its number."""
    writer = create(tmp_path / "x.jv5")
    commit(writer, 10)
    steps: list[str] = []
    fsync, replace, register = os.fsync, Path.replace, Writer._register

    def spy_fsync(descriptor: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def spy_replace(self: Path, target: Path) -> Path:
        steps.append(f"{self.name} becomes {target.name}")
        return replace(self, target)

    def spy_register(self: Writer, *arguments: object) -> None:
        steps.append("register")
        # The spy passes on whatever it is given.
        register(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    monkeypatch.setattr(Writer, "_register", spy_register)
    commit(writer, 5)
    named = ["fsync 000002.tmp", "000002.tmp becomes 000002.safetensors", "fsync segments"]
    assert steps == [*named, "register", "fsync head"]


@pytest.mark.parametrize("step", ["fsync", "write"])
def test_a_full_disk_leaves_the_last_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    folder = tmp_path / "x.jv5"
    writer = create(folder)
    commit(writer, 10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if step == "fsync":
            patched.setattr(os, "fsync", full)
        else:
            patched.setattr(writer_module, "write_segment", full)
        with pytest.raises(Jv5kitError, match=r"No space left on device; what was committed is safe"):
            commit(writer, 5)
    assert len(Index.open(folder)) == 10
    commit(writer, 5)
    writer.close()
    assert len(Index.open(folder)) == 15


def test_a_second_writer_is_refused_by_name(tmp_path: Path) -> None:
    writer = create(tmp_path / "x.jv5")
    commit(writer, 10)
    with pytest.raises(IndexLockedError, match=f"process {os.getpid()} on "):
        Writer.open(tmp_path / "x.jv5")
    with pytest.raises(IndexLockedError, match=f"process {os.getpid()} on "):
        create(tmp_path / "x.jv5", force=True)
    writer.close()
    Writer.open(tmp_path / "x.jv5").close()


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from jv5kit.storage.lock import WriteLock\n"
    code += "lock = WriteLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(IndexLockedError, match=f"process {child.pid} on "):
            WriteLock(tmp_path)
        child.send_signal(signal.SIGKILL)
    WriteLock(tmp_path).release()


def test_a_lock_that_was_removed_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that made nothing removes its lock file, which another one may have opened just before."""
    first = WriteLock(tmp_path)
    flock = fcntl.flock
    calls = 0

    def after_the_removal(file: IO[bytes], operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / "lock").unlink()
            first.release()
        flock(file, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", after_the_removal)
        second = WriteLock(tmp_path)
    assert calls == 2, "the lock of the removed file is not taken for the index's"
    with pytest.raises(IndexLockedError):
        WriteLock(tmp_path)
    second.release()


class TestWhatIsThere:
    def test_an_index_needs_force(self, tmp_path: Path) -> None:
        writer = create(tmp_path / "x.jv5")
        commit(writer, 10)
        writer.close()
        with pytest.raises(IndexExistsError, match=r"is an index already \(10 documents\); add to it with --append"):
            create(tmp_path / "x.jv5")

    def test_a_replaced_index_stays_until_the_first_commit(self, tmp_path: Path) -> None:
        folder = tmp_path / "x.jv5"
        writer = create(folder)
        commit(writer, 10)
        writer.close()
        create(folder, force=True).abandon()
        assert len(Index.open(folder)) == 10
        writer = create(folder, force=True)
        assert len(Index.open(folder)) == 10
        commit(writer, 3)
        assert len(Index.open(folder)) == 3
        writer.close()
        assert segment_files(folder) == ["000002.safetensors"], "under a name that the old index did not use"

    def test_a_replacement_that_fails_leaves_the_index(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "x.jv5"
        embeddings = unit_rows(10, seed=0)
        Index.build(folder, embeddings=embeddings).close()
        expected = Index.open(folder).search(embeddings, 3)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        for name in ("write_segment", "fsync_path"):
            with monkeypatch.context() as patched, pytest.raises(Jv5kitError, match="No space left"):
                patched.setattr(writer_module, name, full)
                Index.build(folder, embeddings=unit_rows(5, seed=1), force=True)
            assert Index.open(folder).search(embeddings, 3) == expected

    def test_what_is_damaged_can_be_replaced(self, tmp_path: Path) -> None:
        folder = tmp_path / "x.jv5"
        Index.build(folder, embeddings=unit_rows(10, seed=0)).close()
        (folder / "index.sqlite").write_bytes(b"nothing like a database" * 100)
        assert len(Index.build(folder, embeddings=unit_rows(4, seed=0), force=True)) == 4

    def test_readers_of_a_replaced_index_see_one_or_the_other(self, tmp_path: Path) -> None:
        """Whole answers of one index, never rows of the one with documents of the other."""
        folder = tmp_path / "x.jv5"
        sides = {name: unit_rows(10, seed=seed) for seed, name in enumerate("ab")}
        query = unit_rows(1, seed=9)[0]

        def build(name: str) -> None:
            ids = [f"{name}{i}" for i in range(10)]
            Index.build(folder, embeddings=sides[name], ids=ids, force=True).close()

        expected = {}
        for name in "ab":
            build(name)
            expected[name] = Index.open(folder).search(query, 10)
        wrong: list[object] = []
        seen: set[str] = set()
        done = threading.Event()

        def read() -> None:
            try:
                index = Index.open(folder)
                while not done.is_set():
                    hits = index.search(query, 10)
                    seen.add(hits[0].id[0])
                    if hits not in expected.values():
                        wrong.append(hits)
            except Exception as error:
                wrong.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for _ in range(20):
            build("a")
            build("b")
        done.set()
        for reader in readers:
            reader.join()
        assert not wrong
        assert seen == {"a", "b"}

    def test_anything_else_is_never_touched(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "mine.txt").write_text("mine")
        for path in (tmp_path / "file", tmp_path / "folder"):
            for force in (False, True):
                with pytest.raises(IndexExistsError, match="exists and is no jv5kit index"):
                    create(path, force=force)
        assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"

    def test_nothing_is_left_of_an_index_that_never_came(self, tmp_path: Path) -> None:
        create(tmp_path / "x.jv5").abandon()
        assert not (tmp_path / "x.jv5").exists()

    def test_there_is_nothing_to_open(self, tmp_path: Path) -> None:
        with pytest.raises(IndexNotFoundError):
            Writer.open(tmp_path / "none.jv5")
        assert not (tmp_path / "none.jv5").exists()


def test_merging_verifies_what_it_copies(tmp_path: Path) -> None:
    folder = tmp_path / "x.jv5"
    writer = create(folder)
    commit(writer, 10)
    path = folder / SEGMENTS / "000001.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexDamagedError, match=r"000001\.safetensors is damaged"):
        commit(writer, 10)
    assert writer.state.rows == 10
