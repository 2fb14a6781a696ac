"""``jv5kit export``, and the files as other programs read them."""

import json
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from command import Inside, fails, random_rows

from jv5kit import Index, exporting, quantize_embeddings, truncate_embeddings

GOLDEN = Path(__file__).parent.parent / "golden"
KEPT = [i for i in range(300) if i % 7]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporting, "BLOCK_ROWS", 64)
    return tmp_path


def build(**options: Any) -> None:
    """``x.jv5``: three segments, every seventh document deleted."""
    rows = random_rows(300)
    with Index.build("x.jv5", embeddings=rows[:200], dim=8, **options) as index:
        index.add(embeddings=rows[200:290])
        index.add(embeddings=rows[290:])
        assert index.segment_count == 3
        index.delete([str(i) for i in range(300) if i % 7 == 0])


STORED = truncate_embeddings(random_rows(300), 8)[KEPT]

NAMES = {
    "float32": ["embeddings.npy"],
    "int8": ["rows.npy", "scales.npy"],
    "ubinary": ["codes.npy", "rows.npy", "scales.npy"],
    "codes": ["codes.npy"],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "int8": {"precision": "int8"},
    "ubinary": {},
    "codes": {"rescore": "codes"},
}


@pytest.mark.parametrize("kind", NAMES)
def test_arrays_and_ids(inside: Inside, kind: str) -> None:
    build(**OPTIONS[kind])
    outcome = inside("export", "-o", "out", "--faiss", "--json")
    names = [*NAMES[kind], "ids.jsonl", "index.faiss"]
    assert json.loads(outcome.stdout) == {
        "index": "x.jv5",
        "documents": len(KEPT),
        "files": [f"out/{name}" for name in names],
    }
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(names)
    lines = Path("out/ids.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [str(i) for i in KEPT]
    arrays = {name: np.load(f"out/{name}") for name in NAMES[kind]}
    if "codes.npy" in arrays:
        assert np.array_equal(arrays["codes.npy"], quantize_embeddings(STORED))
        assert faiss.read_index_binary("out/index.faiss").ntotal == len(KEPT)
    if "rows.npy" in arrays:
        values = arrays["rows.npy"] * arrays["scales.npy"][:, None]
        assert np.allclose(values, STORED, atol=0.005)
    if "embeddings.npy" in arrays:
        assert np.array_equal(arrays["embeddings.npy"], STORED)


@pytest.mark.parametrize("kind", ["float32", "int8", "codes"])
def test_faiss_finds_what_the_index_finds(inside: Inside, kind: str) -> None:
    build(**OPTIONS[kind] | ({"rescore": "none"} if kind == "codes" else {}))
    inside("export", "x.jv5", "-o", "out", "--faiss")
    ids = [json.loads(line) for line in Path("out/ids.jsonl").read_text().splitlines()]
    queries = truncate_embeddings(random_rows(10, seed=1), 8)
    with Index.open("x.jv5") as index:
        expected = index.search(queries, 5, oversample=100)
    if kind == "codes":
        found = faiss.read_index_binary("out/index.faiss").search(quantize_embeddings(queries), 5)
        scores = 1 - 2 * found[0] / 8
    else:
        found = faiss.read_index("out/index.faiss").search(queries, 5)
        scores = found[0]
        assert [[ids[row] for row in rows] for rows in found[1]] == [[hit.id for hit in hits] for hits in expected]
    assert np.allclose(scores, [[hit.score for hit in hits] for hits in expected], atol=1e-5)


def test_a_rotation_comes_along(inside: Inside) -> None:
    build(precision="float32", rotate=True)
    inside("export", "-o", "out")
    query = random_rows(1, seed=1)
    turned = truncate_embeddings(truncate_embeddings(query, 16) @ np.load("out/rotation.npy"), 8)
    with Index.open("x.jv5") as index:
        scores = [hit.score for hit in index.search(query, 5)[0]]
    assert np.allclose(np.sort(np.load("out/embeddings.npy") @ turned[0])[::-1][:5], scores, atol=1e-5)


def test_nothing_is_overwritten_without_force(inside: Inside) -> None:
    build()
    inside("export", "-o", "out")
    Path("out/mine.txt").write_text("mine")
    before = Path("out/codes.npy").stat().st_ino
    assert inside("export", "-o", "out", code=2).stderr == (
        "jv5kit: out/codes.npy exists; replace the export with --force (force=True), or name another folder\n"
    )
    assert Path("out/codes.npy").stat().st_ino == before
    shutil.rmtree("x.jv5")
    build(precision="float32")
    said = inside("export", "-o", "out", "--force").stderr
    assert said == f"out: {len(KEPT)} documents, in embeddings.npy, ids.jsonl\n"
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["embeddings.npy", "ids.jsonl", "mine.txt"], "rows of another index do not stay beside these"


def test_an_export_that_fails_leaves_nothing(inside: Inside, here: Path) -> None:
    build()
    inside("export", "-o", "out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    path = here / "x.jv5" / "segments" / max(path.name for path in (here / "x.jv5" / "segments").iterdir())
    data = bytearray(path.read_bytes())
    data[8 + int.from_bytes(data[:8], "little")] ^= 1
    path.write_bytes(data)
    outcome = inside("export", "-o", "out", "--force", code=1)
    assert "is damaged" in outcome.stderr
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_an_empty_index(inside: Inside) -> None:
    Index.build("e.jv5", embeddings=np.empty((0, 8))).close()
    inside("export", "e.jv5", "-o", "out", "--faiss")
    assert np.load("out/codes.npy").shape == (0, 1)
    assert Path("out/ids.jsonl").read_text() == ""


def test_format_1(inside: Inside) -> None:
    shutil.copytree(GOLDEN / "ubinary-1", "old.jv5")
    inside("export", "old.jv5", "-o", "out")
    assert len(np.load("out/codes.npy")) == len(Path("out/ids.jsonl").read_text().splitlines()) == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say where the files go with -o DIR"),
        (["-o", "x.jv5"], "x.jv5 is the index itself, or within it"),
        (["-o", "x.jv5/segments"], "x.jv5/segments is the index itself, or within it"),
        (["-o", "a file"], "cannot write a file: File exists"),
        (["-o", "a file/out"], "cannot write a file/out: Not a directory"),
        (["nowhere.jv5", "-o", "out"], "nowhere.jv5 is no jv5kit index"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    build()
    Path("a file").write_text("")
    assert fails("export", *arguments).startswith(message)
    assert not Path("out").exists()


def test_a_missing_library_is_said_with_what_to_do(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name)

    build()
    monkeypatch.setattr("jv5kit.exporting.importlib.import_module", missing)
    outcome = inside("export", "-o", "out", "--faiss", code=1)
    assert outcome.stderr == "jv5kit: an index of FAISS needs faiss-cpu: pip install 'jv5kit[faiss]'\n"
    assert not Path("out").exists()
