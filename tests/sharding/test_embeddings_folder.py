"""A folder of shards, indexed as one file of embeddings would be."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import Inside, write_jsonl

from jv5kit import Index
from jv5kit.errors import InputError
from jv5kit.sharding.reading import EmbeddingsFolder

COUNT = 40


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, inside: Inside) -> Path:
    """A folder with ``docs.jsonl``, the ``shards`` of it, some of them empty, and the same in ``x.npy``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JV5KIT_MODEL", str(tiny_model))
    lines = [json.dumps({"id": f"é{i}", "text": f"ice {i}"}, ensure_ascii=False) for i in range(COUNT)]
    lines[7:7] = ["{"]
    lines[20:20] = [" " * 1000]
    (tmp_path / "docs.jsonl").write_text("\n".join(lines))
    inside("encode", "docs.jsonl", "-o", "shards", "--shards", "9", "--skip-invalid")
    inside("encode", "docs.jsonl", "-o", "x.npy", "--skip-invalid")
    return tmp_path


def test_it_is_an_array(here: Path) -> None:
    folder, whole = EmbeddingsFolder(here / "shards"), np.load("x.npy")
    assert (folder.shape, folder.dtype, len(folder)) == (whole.shape, whole.dtype, COUNT)
    counts = [len(np.load(path)) for path in (here / "shards").glob("*.npy")]
    assert 0 in counts
    for start in range(0, COUNT + 3, 3):
        for stop in range(start, COUNT + 3, 5):
            np.testing.assert_array_equal(folder[start:stop], whole[start:stop])
            assert folder.ids[start:stop] == [f"é{i}" for i in range(COUNT)][start:stop]


def test_it_is_indexed_with_its_ids(here: Path, inside: Inside) -> None:
    inside("index", "--embeddings", "shards", "-o", "ids.jv5")
    with Index.open("ids.jv5") as index:
        assert [hit.id for hit in index.search(np.load("x.npy")[3], 1)] == ["é3"]
        assert len(index) == COUNT


def test_it_is_indexed_with_its_documents(here: Path, inside: Inside) -> None:
    outcome = inside("index", "docs.jsonl", "--embeddings", "shards", "--skip-invalid")
    assert "2 documents were skipped" in outcome.stderr
    with Index.open("docs.jv5") as index:
        hits = index.search(np.load("x.npy"), 1)
        assert [found[0].text for found in hits] == [f"ice {i}" for i in range(COUNT)]


def test_other_documents_are_refused(here: Path, inside: Inside) -> None:
    write_jsonl(here / "other.jsonl", [{"id": f"é{i + (i > 30)}", "text": "ice"} for i in range(COUNT)])
    outcome = inside("index", "other.jsonl", "--embeddings", "shards", code=2)
    assert "other.jsonl:32: the document 'é32' is not the one of row 31 of the embeddings, 'é31'" in outcome.stderr
    write_jsonl(here / "more.jsonl", [{"id": f"é{i}", "text": "ice"} for i in range(COUNT + 1)])
    outcome = inside("index", "more.jsonl", "--embeddings", "shards", code=2)
    assert f"there are only {COUNT} embeddings, but more documents" in outcome.stderr


@pytest.mark.parametrize("name", ["embeddings-00004-of-00009.npy", "ids-00004-of-00009.jsonl"])
def test_a_missing_shard_is_named_and_made_again(here: Path, inside: Inside, name: str) -> None:
    missing = here / "shards" / name
    before = missing.read_bytes()
    missing.unlink()
    outcome = inside("index", "--embeddings", "shards", code=2)
    assert outcome.stderr == (
        f"jv5kit: shards/{name} is missing: shards is not encoded to its end, or has lost it; run the same "
        "'jv5kit encode' again, which makes what is not there\n"
    )
    inside("encode", "docs.jsonl", "-o", "shards", "--shards", "9", "--skip-invalid")
    assert missing.read_bytes() == before


def test_damage_is_named(here: Path) -> None:
    ids = here / "shards" / "ids-00000-of-00009.jsonl"
    lines = ids.read_bytes().splitlines(keepends=True)
    ids.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(InputError, match=f"{ids} has {len(lines) - 1} ids for {len(lines)} embeddings: remove both"):
        EmbeddingsFolder(here / "shards").ids[0:1]
    ids.write_bytes(b"{\n")
    with pytest.raises(InputError, match=f"{ids} is damaged"):
        EmbeddingsFolder(here / "shards").ids[0:1]
    manifest = here / "shards" / "manifest.json"
    for content, message in [(b"{", "is damaged"), (b'{"format": 9}', "has a format that this jv5kit does not read")]:
        manifest.write_bytes(content)
        with pytest.raises(InputError, match=message):
            EmbeddingsFolder(here / "shards")
    manifest.unlink()
    with pytest.raises(InputError, match=f"{here}/shards has no manifest.json of jv5kit"):
        EmbeddingsFolder(here / "shards")
