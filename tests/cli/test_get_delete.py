"""``jv5kit get``, ``delete`` and ``compact``."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import Inside, fails, run, write_jsonl

from jv5kit import Document, Index
from jv5kit.storage.writer import Writer

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(autouse=True)
def here(folder: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``docs.jv5``: five documents."""
    monkeypatch.chdir(folder)
    inside("index", "docs.jsonl", "--embeddings", "x.npy", "--lexical")
    return folder


def ids() -> set[str]:
    with Index.open("docs.jv5") as index:
        return {one.id for one in index.get([f"d{i}" for i in range(5)]) if one is not None}


class TestGet:
    def test_what_it_prints_can_be_indexed_again(self, inside: Inside) -> None:
        outcome = inside("get", "d3", "d0", "d1", "d2", "d4")
        assert outcome.stdout.splitlines()[0] == '{"id": "d3", "text": "a penguin 3", "year": 2023}'
        assert outcome.stderr == ""
        Path("again.jsonl").write_text(outcome.stdout)
        order = [3, 0, 1, 2, 4]
        np.save("again.npy", np.load("x.npy")[order])
        again = inside("index", "again.jsonl", "--embeddings", "again.npy", "-o", "docs.jv5", "--append")
        assert again.stderr.startswith("5 documents were there already, identical")

    def test_titles_and_strange_ids(self, inside: Inside) -> None:
        records: list[dict[str, object]] = [
            {"id": "Ünï\ncode", "title": "T", "text": "a\nb", "_id": 7, "deep": {"a": [None]}},
            {"id": "-x", "text": "dash"},
        ]
        write_jsonl(Path("strange.jsonl"), records)
        np.save("two.npy", np.eye(2, 16, dtype=np.float32))
        inside("index", "strange.jsonl", "--embeddings", "two.npy", "-o", "s.jv5")
        lines = inside("get", "-i", "s.jv5", "--", "Ünï\ncode", "-x").stdout.splitlines()
        assert [json.loads(line) for line in lines] == records

    def test_ids_that_are_not_there(self, inside: Inside) -> None:
        outcome = inside("get", "d1", "nope", "d2", "", code=1)
        assert [json.loads(line)["id"] for line in outcome.stdout.splitlines()] == ["d1", "d2"]
        assert outcome.stderr.count("\n") == 2
        assert outcome.stderr.startswith("jv5kit: ")
        assert outcome.stderr.splitlines()[0].endswith("docs.jv5 has no document 'nope'")

    def test_metadata_that_a_line_has_no_place_for(self, inside: Inside) -> None:
        Index.build("odd.jv5", [Document("a", "x", metadata={"text": 1, "n": 2})], embeddings=[[1.0] * 8]).close()
        outcome = inside("get", "a", "-i", "odd.jv5")
        assert json.loads(outcome.stdout) == {"id": "a", "text": "x", "n": 2}
        assert outcome.stderr == "jv5kit: 'a' has metadata named text, left out of its line\n"

    def test_bad_input(self) -> None:
        assert "nowhere.jv5 is no jv5kit index" in fails("get", "d1", "-i", "nowhere.jv5")
        assert "Missing argument" in run("get", code=2).stderr
        shutil.copytree(GOLDEN / "ubinary-1", "old.jv5")
        assert fails("get", "d1", "-i", "old.jv5").endswith("jv5kit compact brings it to the present format")


class TestDelete:
    def test_by_id(self, inside: Inside) -> None:
        outcome = inside("delete", "d1", "d3", "d1")
        assert (outcome.stdout, outcome.stderr) == ("", "docs.jv5: 2 documents deleted, 3 left\n")
        assert ids() == {"d0", "d2", "d4"}
        outcome = inside("delete", "d1", "x1", "x2", "x3", "x4", "x5", "d0", "--json", "-i", "docs.jv5")
        assert json.loads(outcome.stdout) == {"index": "docs.jv5", "deleted": 1, "missing": 6, "documents": 2}
        assert outcome.stderr.splitlines() == [
            *(f"jv5kit: docs.jv5 has no document '{name}'" for name in ("d1", "x1", "x2", "x3", "x4")),
            "jv5kit: nor 1 more of the ids",
        ]

    def test_by_filter(self, inside: Inside) -> None:
        assert inside("delete", "--where", "year >= 2023").stderr == "docs.jv5: 2 documents deleted, 3 left\n"
        assert ids() == {"d0", "d1", "d2"}
        assert inside("delete", "--where", "year >= 2023").stderr == "docs.jv5: 0 documents deleted, 3 left\n"
        assert json.loads(inside("delete", "--where", "nothing = 1", "--json").stdout)["deleted"] == 0

    def test_by_a_file_of_ids(self, inside: Inside) -> None:
        Path("ids.txt").write_bytes(b'\xef\xbb\xbfd1\r\n"d2"\nnone\n')
        outcome = inside("delete", "d0", "--ids", "ids.txt")
        assert outcome.stderr.splitlines() == [
            "jv5kit: docs.jv5 has no document 'none'",
            "docs.jv5: 3 documents deleted, 2 left",
        ]
        assert run("delete", "--ids", "-", stdin="d3\nd4").stderr == "docs.jv5: 2 documents deleted, 0 left\n"
        assert run("delete", "--ids", "-", stdin="").stderr == "docs.jv5: 0 documents deleted, 0 left\n"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"d1\n\nd2\n", "ids.txt:2: the id is empty"),
            (b'd1\n""\n', "ids.txt:2: the id is empty"),
            (b'"d1\n', "ids.txt:1: neither an id nor a JSON string"),
            (b'"d1" "d2"\n', "ids.txt:1: neither an id nor a JSON string"),
            (b"d1\ncaf\xe9\n", "ids.txt:2: neither an id nor a JSON string"),
        ],
    )
    def test_a_bad_file_of_ids_deletes_nothing(self, inside: Inside, content: bytes, message: str) -> None:
        Path("ids.txt").write_bytes(content)
        assert inside("delete", "--ids", "ids.txt", code=2).stderr.startswith(f"jv5kit: {message}")
        assert len(ids()) == 5

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "there is nothing to delete: name ids, or --ids FILE, or --where EXPR"),
            (["d1", "--where", "year = 2020"], "--where cannot go with ids"),
            (["--ids", "docs.jsonl", "--where", "year = 2020"], "--where cannot go with ids"),
            ([""], "an id is empty"),
            (["--where", "year ="], "--where: expected a number"),
            (["--where", "(year = 2020"], "--where: expected 'and', 'or' or ')'"),
            (["--where", "year = 'x'"], "the filter compares the field 'year' with \"x\", a string"),
            (["--ids", "none.txt"], "cannot read none.txt: No such file or directory"),
            (["--ids", "."], "cannot read .: Is a directory"),
            (["d1", "-i", "nowhere.jv5"], "nowhere.jv5 is no jv5kit index"),
        ],
    )
    def test_wrong_arguments(self, inside: Inside, arguments: list[str], message: str) -> None:
        outcome = inside("delete", *arguments, code=2)
        assert outcome.stderr.startswith(f"jv5kit: {message}")
        assert len(ids()) == 5

    def test_an_index_of_format_1(self, inside: Inside) -> None:
        shutil.copytree(GOLDEN / "ubinary-1", "old.jv5")
        assert inside("delete", "d1", "-i", "old.jv5").stderr == "old.jv5: 1 documents deleted, 39 left\n"
        assert inside("delete", "--where", "n < 3", "-i", "old.jv5").stderr == "old.jv5: 2 documents deleted, 37 left\n"


class TestCompact:
    def test_it_says_what_it_did(self, inside: Inside) -> None:
        inside("delete", "d1")
        assert json.loads(inside("info", "docs.jv5", "--json").stdout)["deleted"] == 1
        said = inside("compact", "docs.jv5").stderr
        assert said.startswith("docs.jv5: 4 documents, ")
        assert said.endswith(" now, segments: 1 before, 1 now\n")
        facts = json.loads(inside("compact", "--json").stdout)
        assert facts["bytes"] <= facts["bytes_before"]
        assert facts | {"index": "docs.jv5", "documents": 4, "segments": 1} == facts
        assert json.loads(inside("info", "docs.jv5", "--json").stdout)["deleted"] == 0
        assert "verified" in inside("info", "docs.jv5", "--verify").stdout

    def test_bad_input(self) -> None:
        assert fails("compact", "nowhere.jv5").startswith("nowhere.jv5 is no jv5kit index")


COMMANDS = [["delete", "d1"], ["compact"], ["index", "docs.jsonl", "--embeddings", "x.npy", "--upsert"]]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_an_index_that_another_writes(inside: Inside, arguments: list[str]) -> None:
    writer = Writer.open(Path("docs.jv5"))
    outcome = inside(*arguments, code=1)
    writer.close()
    assert "docs.jv5 is being written by process" in outcome.stderr
    assert outcome.stderr.endswith("wait until it is done\n")


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_folder_that_may_only_be_read(inside: Inside, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder / "lock"))

    monkeypatch.setattr("jv5kit.storage.writer.WriteLock", refuse)
    outcome = inside(*arguments, code=2)
    assert outcome.stderr.startswith("jv5kit: docs.jv5 cannot be written: ")
    assert "Permission denied" in outcome.stderr
