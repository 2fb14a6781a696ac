"""Nothing outside an index's folder is read or written because of what is inside it."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from command import random_rows

from jv5kit import Index
from jv5kit.errors import Jv5kitError
from jv5kit.storage.state import SegmentEntry

ROWS = random_rows(30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Index.build(tmp_path / "x.jv5", embeddings=ROWS).close()
    return tmp_path / "x.jv5"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["index.sqlite", "segments", "segments/000001.safetensors"])
def test_a_link_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside" / Path(name).name
    outside.parent.mkdir()
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)
    # What a sweep would remove, if it went there.
    (outside.parent / "000009.tmp").write_bytes(b"somebody's")
    if outside.is_dir():
        (outside / "000009.tmp").write_bytes(b"somebody's")
    before = contents(outside.parent)
    with pytest.raises(Jv5kitError, match=re.escape(str(folder))):
        Index.open(folder).search(ROWS, 1)
    with pytest.raises(Jv5kitError, match=re.escape(str(folder))):
        Index.open(folder).add(embeddings=random_rows(3, seed=1), ids="abc")
    assert contents(outside.parent) == before
    # A replacement may do away with the link, but not with what it leads to.
    try:
        Index.build(folder, embeddings=ROWS, force=True).close()
    except Jv5kitError as error:
        assert str(folder) in str(error)
    assert contents(outside.parent) == before


@pytest.mark.parametrize("name", ["lock", "index.sqlite-wal", "index.sqlite-shm", "index.sqlite-journal"])
def test_a_link_beside_the_catalogue_is_not_written_through(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"somebody's own" * 10)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    for write in (
        lambda: Index.open(folder).add(embeddings=random_rows(1, seed=1), ids=["new"]),
        lambda: Index.build(folder, embeddings=ROWS, force=True),
    ):
        try:
            write()
        except Jv5kitError as error:
            assert str(folder) in str(error)
        assert outside.read_bytes() == b"somebody's own" * 10


def test_the_index_itself_may_be_reached_by_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.jv5").symlink_to(folder)
    with Index.open(tmp_path / "link.jv5") as index:
        index.add(embeddings=random_rows(1, seed=1))
        assert len(index) == 31


@pytest.mark.parametrize("number", [0, -1, 7, 10**6, 2**63 - 1, -(2**63)])
def test_names_of_files_are_made_of_numbers(number: int) -> None:
    assert re.fullmatch(r"[-\d]+\.safetensors", SegmentEntry(number, 0, 1, 0).file_name)


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd"])
def test_a_catalogue_cannot_name_a_path(folder: Path, name: str) -> None:
    connection = sqlite3.connect(folder / "index.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="datatype mismatch"):
        connection.execute("UPDATE segments SET number = ?", (name,))
    connection.close()
