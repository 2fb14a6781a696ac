"""``jv5kit info INDEX --verify``: what is damaged, and that nothing else is said to be."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import Inside, fails, random_rows

from jv5kit import Index
from jv5kit.storage import verify as verification
from jv5kit.storage.catalog import Catalog, record
from jv5kit.storage.connection import connect
from jv5kit.storage.verify import verify
from jv5kit.storage.writer import Writer
from jv5kit.types import Document

GOLDEN = Path(__file__).parent.parent / "golden"
PATH = Path("x.jv5")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with ``x.jv5``: two segments, documents deleted in both, a rotation, words."""
    monkeypatch.chdir(tmp_path)
    documents = [{"id": f"d{i}", "text": f"text {i}", "n": i} for i in range(120)]
    with Index.build(PATH, documents[:90], embeddings=random_rows(90), rotate=True, lexical=True) as index:
        index.add(documents[90:], embeddings=random_rows(30, seed=1))
        index.delete(["d3", "d100", "d101"])
        index.upsert([{"id": "d5", "text": "new"}], embeddings=random_rows(1, seed=2))


def test_a_sound_index(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "DOCUMENTS_TOGETHER", 16)
    outcome = inside("info", "x.jv5", "--verify", "--json")
    facts = json.loads(outcome.stdout)
    assert outcome.stderr == ""
    assert facts["verified"] == "every block, document and id"
    assert (facts["documents"], facts["deleted"]) == (117, 4)
    assert facts["rotated"] is facts["lexical"] is True
    assert "fields             n (number)\n" in inside("info", "x.jv5").stdout
    steps: list[int] = []
    assert verify(PATH, steps.append) == []
    assert sum(steps) == 117
    assert len(steps) > 5
    with Index.open(PATH) as index:
        index.compact()
    assert verify(PATH) == []


@pytest.mark.parametrize("golden", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_past_formats_are_sound(golden: str) -> None:
    shutil.copytree(GOLDEN / golden, "old.jv5")
    assert verify(Path("old.jv5")) == []


def test_an_index_without_documents() -> None:
    Index.build("e.jv5", embeddings=np.empty((0, 8)), lexical=True).close()
    assert verify(Path("e.jv5")) == []


def sql(*statements: str) -> None:
    """Change the catalogue behind its back."""
    connection = sqlite3.connect(PATH / "index.sqlite", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def flip(pattern: str) -> None:
    for path in PATH.glob(pattern):
        data = bytearray(path.read_bytes())
        # Behind the header, where there is one.
        data[8 + int.from_bytes(data[:8], "little") if path.parent.name == "segments" else len(data) // 2] ^= 1
        path.write_bytes(data)


def forge(row: int, identifier: str) -> None:
    """Write a document of our own making, its checksum included."""
    connection, _ = connect(PATH / "index.sqlite", write=True)
    values = record(row, Document(identifier, "forged"), "{}")
    connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)", values)
    connection.close()


DAMAGES: dict[str, tuple[Callable[[], object], str]] = {
    "a block": (lambda: flip("segments/*2.safetensors"), "000002.safetensors is damaged: block"),
    "a segment is missing": ((PATH / "segments/000001.safetensors").unlink, "000001.safetensors is damaged"),
    "the rotation": (lambda: flip("rotation-*"), "rotation-"),
    "a document": (lambda: sql("UPDATE documents SET text = 'x' WHERE row = 7"), "of row 7 does not match"),
    "a document is missing": (lambda: sql("DELETE FROM documents WHERE row = 7"), "the document of row 7 is missing"),
    "a dead document is missing": (
        lambda: sql("DELETE FROM documents WHERE row = 3"),
        "the document of row 3 is missing",
    ),
    "the last document is missing": (
        lambda: sql("DELETE FROM documents WHERE row = 120"),
        "the document of row 120 is missing",
    ),
    "a document too many": (lambda: forge(500, "more"), "has a document of row 500, which no segment has"),
    "one before the first": (lambda: forge(-5, "less"), "has a document of row -5, which no segment has"),
    "another id": (lambda: forge(8, "other"), "the document 'other' is not found by its id"),
    "an id twice": (lambda: forge(8, "d9"), "the id 'd9' belongs to two documents"),
    "a deletion is forgotten": (lambda: sql("DELETE FROM dead WHERE row = 3"), "row 3, which no segment has"),
    "a live one in the list": (lambda: sql("INSERT INTO dead VALUES (7)"), "list of deleted documents names some"),
    "the bitmap": (lambda: sql("DELETE FROM deletions"), "the deletions of segment"),
    "the settings": (lambda: sql("UPDATE catalog SET next_row = 5"), "do not match their checksum"),
    "the words": (
        lambda: sql("INSERT INTO lexical (lexical, rowid, title, text) VALUES ('delete', 7, NULL, 'text 7')"),
        "the lexical index: ",
    ),
    "the head": ((PATH / "head").unlink, "head is damaged: it is missing"),
}


@pytest.mark.parametrize(("damage", "problem"), DAMAGES.values(), ids=DAMAGES)
def test_damage(inside: Inside, damage: Callable[[], object], problem: str) -> None:
    damage()
    outcome = inside("info", "x.jv5", "--verify", "--json", code=1)
    damaged = json.loads(outcome.stdout)["damaged"]
    assert any(problem in one for one in damaged), damaged
    assert outcome.stderr.splitlines() == [f"jv5kit: {one}" for one in damaged]


def test_all_of_several_damages_are_said() -> None:
    flip("segments/*.safetensors")
    flip("rotation-*")
    problems = verify(PATH)
    assert len(problems) == 1 + len(list((PATH / "segments").iterdir()))


def test_a_file_that_is_no_catalogue(inside: Inside) -> None:
    for path in PATH.glob("index.sqlite*"):
        path.unlink()
    (PATH / "index.sqlite").write_bytes(b"nonsense" * 1000)
    assert "index.sqlite is damaged" in inside("info", "x.jv5", "--verify", code=1).stderr


def test_bad_input() -> None:
    assert fails("info", "--verify") == "--verify checks an index: name one"
    assert fails("info", "nowhere.jv5", "--verify").startswith("nowhere.jv5 is no jv5kit index")


def test_an_index_that_another_writes(inside: Inside) -> None:
    writer = Writer.open(PATH)
    outcome = inside("info", "x.jv5", "--verify", code=1)
    assert "x.jv5 is being written by process" in outcome.stderr
    writer.close()
    inside("info", "x.jv5", "--verify")


def test_a_folder_that_may_only_be_read(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(verification, "WriteLock", refuse)
    outcome = inside("info", "x.jv5", "--verify")
    assert "verified" in outcome.stdout
    assert outcome.stderr == "jv5kit: x.jv5 cannot be written, so that its lexical index could not check itself\n"


def test_a_reader_is_not_disturbed() -> None:
    with Index.open(PATH) as reader:
        before = reader.search(random_rows(1), 5)
        assert verify(PATH) == []
        assert reader.search(random_rows(1), 5) == before
    assert Catalog(PATH).state().rows == 117
