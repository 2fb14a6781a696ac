"""FAISS: codes go there and come from there, and the distances are those of a loop over bits."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pytest
from command import environment, random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jv5kit import Index, quantize_embeddings, search, truncate_embeddings
from jv5kit.errors import DuplicateError, IndexExistsError, IndexNotFoundError, InputError, MissingExtraError
from jv5kit.integrations.faiss import from_faiss, to_faiss, to_faiss_with_ids

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KEPT = [i for i in range(60) if i % 7]
CODES = quantize_embeddings(random_rows(60, 64))
QUERIES = quantize_embeddings(random_rows(5, 64, seed=1))


def naive(queries: NDArray[np.uint8], codes: NDArray[np.uint8]) -> list[list[int]]:
    return [
        [sum((a ^ b).bit_count() for a, b in zip(q, c, strict=True)) for c in codes.tolist()] for q in queries.tolist()
    ]


def flat(codes: NDArray[np.uint8]) -> Any:
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    return index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Three segments, every seventh document deleted."""
    index = Index.build(tmp_path / "x.jv5", embeddings=CODES[:40], rescore="none")
    index.add(embeddings=CODES[40:55])
    index.add(embeddings=CODES[55:])
    index.delete([str(i) for i in range(60) if i % 7 == 0])
    return index


def test_codes_go_to_faiss(index: Index) -> None:
    found, ids = to_faiss(index)
    assert type(found) is faiss.IndexBinaryFlat
    assert ids == [str(i) for i in KEPT]
    distances, rows = found.search(QUERIES, 10)
    expected = np.array(naive(QUERIES, CODES[KEPT]))
    np.testing.assert_array_equal(distances, np.sort(expected, axis=1)[:, :10])
    np.testing.assert_array_equal(np.take_along_axis(expected, rows, axis=1), distances)
    # By the folder alone, and from an index that has int8 rows beside its codes.
    again, again_ids = to_faiss(index.path)
    np.testing.assert_array_equal(again.search(QUERIES, 10)[0], distances)
    assert again_ids == ids


def test_ids_go_to_faiss(index: Index, tmp_path: Path) -> None:
    mapped = to_faiss_with_ids(index)
    distances, ids = mapped.search(QUERIES, 5)
    expected = np.array(naive(QUERIES, CODES))
    np.testing.assert_array_equal(np.take_along_axis(expected, ids, axis=1), distances)
    assert set(ids.ravel().tolist()) <= set(KEPT)
    np.testing.assert_array_equal(mapped.reconstruct(KEPT[3]), CODES[KEPT[3]])
    # It is written and read as any other.
    faiss.write_index_binary(mapped, str(tmp_path / "x.faiss"))
    np.testing.assert_array_equal(faiss.read_index_binary(str(tmp_path / "x.faiss")).search(QUERIES, 5)[1], ids)
    again = from_faiss(tmp_path / "x.faiss", tmp_path / "y.jv5")
    assert [hit.id for hit in again.search(QUERIES[0], 5)] == [hit.id for hit in index.search(QUERIES[0], 5)]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda width: st.tuples(
            arrays(np.uint8, st.tuples(st.integers(1, 30), st.just(width))),
            arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(width))),
        )
    )
)
def test_there_and_back_with_the_same_distances(
    tmp_path_factory: pytest.TempPathFactory, both: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    codes, queries = both
    count, dim = len(codes), 8 * codes.shape[1]
    with from_faiss(flat(codes), tmp_path_factory.mktemp("x") / "x.jv5") as index:
        back, ids = to_faiss(index)
        found = index.search(queries, count)
    assert ids == [str(i) for i in range(count)]
    np.testing.assert_array_equal(faiss.vector_to_array(back.xb).reshape(codes.shape), codes)
    distances, _ = back.search(queries, count)
    for hits, expected, theirs in zip(found, naive(queries, codes), distances.tolist(), strict=True):
        order = sorted(range(count), key=lambda row: (expected[row], row))
        assert [hit.id for hit in hits] == [str(row) for row in order]
        assert theirs == sorted(expected)
        np.testing.assert_allclose([hit.score for hit in hits], [1 - 2 * d / dim for d in theirs], atol=1e-6)


def test_documents_go_beside_codes(tmp_path: Path) -> None:
    documents = [{"id": f"d{i}", "text": f"text {i}", "even": i % 2 == 0} for i in range(60)]
    index = from_faiss(flat(CODES), tmp_path / "x.jv5", documents)
    hits = index.search(QUERIES[0], 3, filter={"even": True})
    expected = naive(QUERIES[:1], CODES)[0]
    assert [hit.id for hit in hits] == [f"d{i}" for i in sorted(range(0, 60, 2), key=lambda i: (expected[i], i))[:3]]
    assert hits[0].text == f"text {hits[0].id[1:]}"
    named = from_faiss(flat(CODES), tmp_path / "y.jv5", ids=[f"n{i}" for i in range(60)])
    assert named.search(CODES[7], 1)[0].id == "n7"


@pytest.mark.parametrize("rescore", ["none", "codes"])
def test_embeddings_search_codes(tmp_path: Path, rescore: Any) -> None:
    """Those of np.packbits as they are; those that FAISS makes itself are turned around."""
    rows, queries = random_rows(60, 64), random_rows(5, 64, seed=1)
    ours = Index.build(tmp_path / "x.jv5", embeddings=rows, rescore=rescore)
    theirs = np.empty((60, 8), np.uint8)
    faiss.real_to_binary(rows.size, faiss.swig_ptr(rows), faiss.swig_ptr(theirs))
    assert (theirs != CODES).any()
    for codes, bitorder in ((CODES, "big"), (theirs, "little")):
        index = from_faiss(flat(codes), tmp_path / f"{bitorder}.jv5", bitorder=bitorder, rescore=rescore)  # type: ignore[arg-type]  # A literal in a loop.
        assert index.search(queries, 5) == ours.search(queries, 5)


def test_an_empty_one(tmp_path: Path) -> None:
    index = from_faiss(faiss.IndexBinaryFlat(64), tmp_path / "x.jv5")
    assert len(index) == 0
    assert to_faiss(index)[0].ntotal == to_faiss_with_ids(index).ntotal == 0


def text_file(folder: Path) -> Path:
    (folder / "notes.txt").write_text("no index")
    return folder / "notes.txt"


def with_ids(ids: list[int]) -> Any:
    mapped = faiss.IndexBinaryIDMap(faiss.IndexBinaryFlat(64))
    mapped.add_with_ids(CODES[: len(ids)], np.array(ids))
    return mapped


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: CODES, "ndarray is no binary index of FAISS; give an IndexBinaryFlat, or the embeddings themselves"),
        (lambda _: faiss.IndexFlatIP(64), "IndexFlatIP is no binary index of FAISS"),
        (lambda _: faiss.IndexBinaryHNSW(64), "a IndexBinaryHNSW of FAISS is not read"),
        (lambda _: faiss.IndexBinaryIDMap(faiss.IndexBinaryHNSW(64)), "a IndexBinaryHNSW of FAISS is not read"),
        (
            lambda folder: folder / "none.faiss",
            r"none\.faiss cannot be read as a binary index of FAISS; write one",
        ),
        (text_file, r"notes\.txt cannot be read as a binary index of FAISS"),
    ],
)
def test_what_is_no_flat_index_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_faiss(make(tmp_path), tmp_path / "x.jv5")
    assert not (tmp_path / "x.jv5").exists()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are 2 ids for 60 embeddings"):
        from_faiss(flat(CODES), tmp_path / "a.jv5", ids=["1", "2"])
    with pytest.raises(InputError, match="there are 60 embeddings, but only 1 documents"):
        from_faiss(flat(CODES), tmp_path / "b.jv5", [{"text": "one"}])
    with pytest.raises(DuplicateError, match="the id '5' is taken by an earlier document"):
        from_faiss(with_ids([5, 6, 5]), tmp_path / "c.jv5")
    with pytest.raises(InputError, match="codes have no int8 rows to rescore with"):
        from_faiss(flat(CODES), tmp_path / "d.jv5", rescore="int8")
    wrong: Any = "middle"
    with pytest.raises(InputError, match="bitorder='middle' is not known; choose 'big' or 'little'"):
        from_faiss(flat(CODES), tmp_path / "e.jv5", bitorder=wrong)
    from_faiss(with_ids([5, -7]), tmp_path / "f.jv5").close()
    with pytest.raises(IndexExistsError):
        from_faiss(flat(CODES), tmp_path / "f.jv5")
    index = from_faiss(flat(CODES), tmp_path / "f.jv5", force=True)
    with pytest.raises(InputError, match="was built from given embeddings, not texts: search it by embeddings"):
        search("a text", index.path)


@pytest.mark.parametrize("identifier", ["swift", "007", "1_0", " 7", "9223372036854775808", "1.5"])
def test_only_numbers_are_ids_of_faiss(tmp_path: Path, identifier: str) -> None:
    index = Index.build(tmp_path / "x.jv5", embeddings=CODES[:2], ids=["3", identifier], rescore="none")
    with pytest.raises(InputError, match=f"the id {identifier!r} is no whole number of 64 bits, which FAISS takes"):
        to_faiss_with_ids(index)
    assert to_faiss(index)[1] == ["3", identifier]


def test_only_codes_go_to_faiss(tmp_path: Path) -> None:
    rows = random_rows(3)
    Index.build(tmp_path / "x.jv5", embeddings=rows, precision="int8").close()
    with pytest.raises(InputError, match=r"x\.jv5 has precision 'int8', and codes are of 'ubinary'"):
        to_faiss(tmp_path / "x.jv5")
    with pytest.raises(IndexNotFoundError):
        to_faiss(tmp_path / "none.jv5")
    # Codes beside int8 rows are codes.
    with Index.build(tmp_path / "y.jv5", embeddings=rows, dim=8) as index:
        found, _ = to_faiss(index)
    np.testing.assert_array_equal(
        faiss.vector_to_array(found.xb).reshape(3, 1), quantize_embeddings(truncate_embeddings(rows, 8))
    )


def test_passages_have_no_ids_of_faiss(tmp_path: Path, encoder: Any) -> None:
    index = Index.build(tmp_path / "x.jv5", [{"id": "7", "text": "the sea " * 60}], encoder, passages=32)
    assert set(to_faiss(index)[1]) == {"7"}
    with pytest.raises(InputError, match="several rows have one id, as those of passages do"):
        to_faiss_with_ids(index)


def test_without_faiss() -> None:
    code = (
        "import sys; sys.modules['faiss'] = None\n"
        "try: import jv5kit.integrations.faiss\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    ).stdout
    assert printed == (
        f"{MissingExtraError.__name__} jv5kit.integrations.faiss needs faiss-cpu (faiss is missing): "
        "pip install 'jv5kit[faiss]'\n"
    )
