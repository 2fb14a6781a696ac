"""What every store does: the same documents, hits and errors, whatever is behind a name."""

from __future__ import annotations

import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from command import COMMAND, environment

from jv5kit import Document, Index
from jv5kit.building import Added
from jv5kit.errors import (
    DocumentError,
    DuplicateError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InputError,
)
from jv5kit.stores import Store
from jv5kit.stores.postgres import PostgresIndex
from jv5kit.stores.sharded import ShardedIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command import Inside
    from numpy.typing import NDArray
    from store_fixtures import Named

    from jv5kit import Encoder

DIM = 64

AWKWARD = {
    "four bytes": "\U0001f427 \U0001d4b3 \U00020000 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0010ffff",
    "combining": "e\u0301 a\u0308\u0304 \u05e0\u05b0 \u202eright to left\u202c",
    "noncharacters": "\ufffe \uffff \ufeff \u2028 \u2029 \u0085",
    "control": "\x01\x02 tab\t newline\n return\r escape\x1b delete\x7f",
    "COPY": "\\N \\. \\x41 \\\\ \t\\t",
    "SQL": '\'; DROP TABLE documents; -- "quoted" $1 %s %(x)s {codes} {}',
    "blank around": "  x  ",
    "long": "longest " * 131_072,
    "long word": "w" * 1_000_000,
    "many words": " ".join(f"wort{i}" for i in range(110_000)),
    "many signs": " ".join(chr(0x4E00 + i % 20_000) for i in range(260_000)),
    "hyphens": "-".join(f"a{i}" for i in range(100_000)),
}

METADATA: list[dict[str, Any]] = [
    {},
    {"": 1, " ": 2, "größe": [True, False], "🐧": "🐧", "\\u0000": "\\u0000", "'\"": None},
    {"nested": {"a": [{"b": None}]}, "empty": [], "objects": [{}]},
    {"whole": 1 << 70, "digits": 10**300, "float": 0.1, "zero": -0.0, "huge": 1e300, "tiny": 5e-324},
    {"b": 1, "a": 2, "order": [3, 1, 2], "one": 1.0},
    {"long": "x" * 10_000, "x" * 300: 1},
]


def rows(count: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def codes(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, DIM // 8)).astype(np.uint8)


def records(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": f"d{i}",
            "text": f"text {i}",
            "title": f"Title {i}" if i % 2 else None,
            "n": i,
            "of": ["all", f"m{i % 3}"],
        }
        for i in range(first, first + count)
    ]


def naive(query: NDArray[np.uint8], stored: NDArray[np.uint8]) -> list[int]:
    """Hamming distances, bit by bit."""
    return [
        sum((int(a) ^ int(b)).bit_count() for a, b in zip(query.tolist(), row.tolist(), strict=True)) for row in stored
    ]


def test_distances_are_those_of_a_naive_popcount(named: Named) -> None:
    stored, queries = codes(700), codes(200, seed=1)
    # Some are there several times, and some are the queries themselves.
    stored[100:200], stored[300:320] = stored[:100], queries[:20]
    with named.cls.build(named.name, embeddings=stored) as store:
        found = store.search(queries, 50)
    assert len(found) == 200
    for query, hits in zip(queries, found, strict=True):
        distances = naive(query, stored)
        expected = sorted(range(700), key=lambda row: (distances[row], row))[:50]
        assert [hit.id for hit in hits] == [str(row) for row in expected]
        scores = np.array([1 - 2 / DIM * distances[row] for row in expected]).astype(np.float32)
        assert [hit.score for hit in hits] == scores.tolist()


@pytest.mark.parametrize("options", [{}, {"rescore": "codes"}, {"rescore": "none"}, {"rotate": True}, {"dim": 32}])
def test_hits_are_those_of_a_folder(named: Named, tmp_path: Path, options: dict[str, Any]) -> None:
    folder = Index.build(tmp_path / "folder.jv5", records(400), embeddings=rows(400), **options)
    queries = rows(30, seed=1)
    with named.cls.build(named.name, records(400), embeddings=rows(400), **options) as store:
        for asked in ({}, {"oversample": 1}, {"filter": 'n >= 100 and of = "m1"'}, {"mode": "ubinary"}):
            for top_k in (1, 9, 1000):
                assert store.search(queries, top_k, **asked) == folder.search(queries, top_k, **asked)
        assert store.search(queries[0]) == folder.search(queries[0])
        assert store.search(np.empty((0, DIM))) == []
        assert (store.settings.dim, store.settings.rescore) == (folder.settings.dim, folder.settings.rescore)


def test_ties_come_in_the_order_of_the_documents(named: Named) -> None:
    same = np.tile(rows(1), (40, 1))
    with named.cls.build(named.name, records(40), embeddings=same) as store:
        assert [hit.id for hit in store.search(rows(1)[0], 40)] == [f"d{i}" for i in range(40)]
        # Who is put in another's place comes last.
        store.upsert([{"id": "d3", "text": "new"}], embeddings=same[:1])
        order = [f"d{i}" for i in range(40) if i != 3] + ["d3"]
        for top_k in (1, 7, 40):
            assert [hit.id for hit in store.search(rows(1)[0], top_k)] == order[:top_k]


def test_documents_come_back_as_they_were(named: Named) -> None:
    documents = [
        Document(f"m{i}", f"text {i}", "A title" if i % 2 else None, metadata) for i, metadata in enumerate(METADATA)
    ]
    with named.cls.build(named.name, documents, embeddings=rows(len(documents))) as store:
        found = store.get([*(document.id for document in documents), "none"])
        assert found == [*documents, None]
        # Equal in Python are also 1 and 1.0, and dicts of another order.
        assert [json.dumps(document.metadata) for document in found[:-1] if document] == [
            json.dumps(metadata) for metadata in METADATA
        ]
        hits = store.search(rows(len(documents)), 1)
        assert [Document(hit.id, hit.text, hit.title, hit.metadata) for (hit,) in hits] == documents


@pytest.mark.parametrize("words", [False, True])
def test_every_awkward_text_comes_back(named: Named, words: bool) -> None:
    if words and not named.kind.lexical:
        pytest.skip(f"{named.kind.name}: no lexical index")
    documents = [
        Document(f"{name} {text[:20]}", text, text[:200_000], {"text": text}) for name, text in AWKWARD.items()
    ]
    with named.cls.build(named.name, documents, embeddings=rows(len(documents)), lexical=words) as store:
        for document, found in zip(documents, store.get([document.id for document in documents]), strict=True):
            assert found == document, document.id
        if words:
            hits = store.search(rows(1)[0], 3, hybrid=True, words="longest wort7")
            assert {hit.id.split(" ")[0] for hit in hits} & {"long", "many"}


@pytest.mark.parametrize(
    "record",
    [
        {"id": "bad", "text": "a\0b"},
        {"id": "bad", "text": "x", "title": "a\0b"},
        {"id": "bad", "text": "x", "tags": ["a\0b"]},
        {"id": "bad", "text": "x", "a\0b": 1},
        {"id": "bad", "text": "half \ud83d"},
        {"id": "bad", "text": "x", "tags": "half \ud83d"},
    ],
)
def test_what_no_store_can_keep_is_refused_and_the_document_is_named(named: Named, record: dict[str, Any]) -> None:
    good = {"id": "good", "text": "text"}
    with pytest.raises(DocumentError, match=r"^document 2: .*(NUL character|half of a surrogate pair)"):
        named.cls.build(named.name, [good, record], embeddings=rows(2))
    with pytest.raises(IndexNotFoundError):
        named.open()
    with named.cls.build(named.name, [good], embeddings=rows(1)) as store:
        with pytest.raises(DocumentError, match=r"document 1: "):
            store.add([record], embeddings=rows(1))
        assert len(store) == 1
        for name in ("a\0b", "half \ud83d"):
            with pytest.raises(InputError, match=r"NUL character|surrogate"):
                store.get([name])
            with pytest.raises(InputError, match=r"NUL character|surrogate"):
                store.delete([name])


@pytest.mark.parametrize("asked", ["text\0", "\0"])
def test_words_may_have_what_a_text_may_not(lexical: Named, asked: str) -> None:
    with lexical.cls.build(lexical.name, records(3), embeddings=rows(3), lexical=True) as store:
        assert len(store.search(rows(1)[0], hybrid=True, words=asked)) == 3


FILTERS: list[tuple[Any, Any]] = [
    ("n >= 10 and n < 20", lambda r: 10 <= r["n"] < 20),
    ('of = "m1"', lambda r: "m1" in r["of"]),
    ('of != "m1"', lambda r: "m1" not in r["of"]),
    ('not (n < 30 or of in ("m0", "m2"))', lambda r: r["n"] >= 30 and "m1" in r["of"]),
    ({"n": [3, 5, 7.0, 500]}, lambda r: r["n"] in (3, 5, 7)),
    ("missing = 1", lambda r: False),
    ("missing not exists", lambda r: True),
    ("n exists and n not in ()", lambda r: True),
]


def test_filters_keep_what_they_say(named: Named) -> None:
    documents = records(40)
    with named.cls.build(named.name, documents, embeddings=rows(40)) as store:
        assert store.fields == {"n": ["number"], "of": ["string"]}
        for where, keeps in FILTERS:
            expected = {record["id"] for record in documents if keeps(record)}
            assert {hit.id for hit in store.search(rows(1)[0], 100, filter=where)} == expected, where
            assert store.count(where) == len(expected), where
        for where in ('n = "x"', "of < 3", "n = true"):
            for ask in (store.count, lambda where: store.search(rows(1)[0], filter=where)):
                with pytest.raises(InputError, match=r"but its values are (numbers|strings)"):
                    ask(where)


def test_what_is_deleted_is_gone(named: Named) -> None:
    missing: list[str] = []
    with named.cls.build(named.name, records(40), embeddings=rows(40)) as store:
        assert store.delete(["d1", "d2", "no", "d1"], on_missing=missing.append) == 2
        assert missing == ["no"]
        assert store.delete(filter="n >= 30") == 10
        assert store.delete([]) == store.delete(filter="n >= 30") == 0
        left = {f"d{i}" for i in range(30)} - {"d1", "d2"}
        assert (len(store), store.row_count, store.count()) == (28, 28, 28)
        assert {hit.id for hit in store.search(rows(1)[0], 100)} == left
        assert store.get(["d1", "d35"]) == [None, None]
        # An id that is free again may be taken.
        assert store.add([{"id": "d1", "text": "again"}], embeddings=rows(1)) == Added(1)
        for ids, where in ((None, None), (["d1"], "n = 1")):
            with pytest.raises(InputError, match="either ids or a filter"):
                store.delete(ids, filter=where)
    with named.open() as store:
        assert {hit.id for hit in store.search(rows(1)[0], 100)} == left | {"d1"}
        assert store.delete([*left, "d1"]) == 29
        assert (len(store), store.fields, store.search(rows(2))) == (0, {}, [[], []])


def test_what_was_built_is_there_when_it_is_opened_again(named: Named) -> None:
    options: dict[str, Any] = {"lexical": True} if named.kind.lexical else {}
    with named.cls.build(named.name, records(20), embeddings=rows(20), **options) as store:
        built = store.search(rows(5), 20), store.fields, store.settings, store.name
    with named.open() as store:
        assert (store.search(rows(5), 20), store.fields, store.settings, store.name) == built
        assert tuple(store.modes) == named.kind.modes
        assert store.bytes_on_disk > 20 * DIM
        assert not store.refresh()
        with named.open() as other:
            other.add(records(1, first=20), embeddings=rows(1))
        assert store.refresh()
        assert not store.refresh()
        assert len(store) == 21


def test_identical_documents_are_passed_over_and_others_refused(named: Named) -> None:
    with named.cls.build(named.name, records(10), embeddings=rows(10)) as store:
        assert store.add(records(12), embeddings=np.concatenate([rows(10), rows(2, seed=5)])) == Added(2, 10)
        with pytest.raises(DuplicateError, match="the id 'd3' is taken by other content"):
            store.add([records(10)[3] | {"text": "other"}], embeddings=rows(10)[3:4])
        with pytest.raises(DuplicateError, match="the id 'd3' is taken by other content"):
            store.add([records(10)[3]], embeddings=rows(1, seed=9))
        with pytest.raises(DuplicateError, match="the id 'new' is taken by an earlier document"):
            store.add([{"id": "new", "text": "a"}, {"id": "new", "text": "b"}], embeddings=rows(2))
        assert store.upsert([records(10)[3] | {"text": "other"}], embeddings=rows(1)) == Added(1, 0, 1)
        assert store.upsert(records(3), embeddings=rows(10)[:3]) == Added(0, 3)
        found = store.get(["d3"])[0]
        assert found is not None
        assert found.text == "other"
        assert len(store) == 12


def test_each_batch_is_acknowledged_when_it_is_there(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    if not named.kind.batches:
        pytest.skip(f"{named.kind.name}: all of it together")
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * DIM * 8)
    committed: list[int] = []

    def documents() -> Iterator[dict[str, Any]]:
        for record in records(40):
            if record["n"] == 30:
                raise KeyboardInterrupt
            yield record

    with pytest.raises(KeyboardInterrupt):
        named.cls.build(named.name, documents(), embeddings=rows(40), on_commit=committed.append)
    assert committed == [8, 16, 24]
    with named.open() as store:
        assert len(store) == 24
        assert store.add(records(40), embeddings=rows(40)) == Added(16, 24)
        skipped: list[InputError] = []
        assert store.add([{"id": "d1", "text": "other"}], embeddings=rows(1), skip=skipped.append) == Added()
        assert [type(error) for error in skipped] == [DuplicateError]


def test_an_index_is_there_whole_or_not_at_all(named: Named) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from records(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        named.cls.build(named.name, broken(), embeddings=rows(9))
    with pytest.raises(IndexNotFoundError):
        named.open()
    named.cls.build(named.name, records(5), embeddings=rows(5)).close()
    with pytest.raises(IndexExistsError, match=r"5 documents.*force"):
        named.cls.build(named.name, records(3), embeddings=rows(3))
    with pytest.raises(KeyboardInterrupt):
        named.cls.build(named.name, broken(), embeddings=rows(9), force=True)
    reader = named.open()
    assert len(reader) == 5
    named.cls.build(named.name, records(3, first=50), embeddings=rows(3, dim=16), force=True).close()
    reader.refresh()
    assert {hit.id for hit in reader.search(rows(1, dim=16)[0])} == {"d50", "d51", "d52"}
    reader.close()


def test_a_reader_that_is_not_told_finds_what_took_the_place(named: Named) -> None:
    reader = named.cls.build(named.name, records(5), embeddings=rows(5))
    named.cls.build(named.name, records(3, first=50), embeddings=rows(3), force=True).close()
    assert {hit.id for hit in reader.search(rows(1)[0])} == {"d50", "d51", "d52"}
    reader.close()


def test_an_empty_index_can_be_filled(named: Named) -> None:
    with named.cls.build(named.name, embeddings=np.empty((0, DIM), np.float32)) as store:
        assert (len(store), store.search(rows(1)[0]), store.fields, store.count("n = 1")) == (0, [], {}, 0)
        assert store.add(records(5), embeddings=rows(5)) == Added(5)
        assert len(store.search(rows(1)[0])) == 5


def test_hybrid_search_finds_the_words(lexical: Named) -> None:
    documents = [{"id": f"d{i}", "text": "of ice and of snow", "n": i} for i in range(300)]
    documents[250] |= {"text": "Penguins are swimming", "title": "Birds"}
    documents[260] |= {"text": "the sea", "title": "A Swimming penguin"}
    with lexical.cls.build(lexical.name, documents, embeddings=rows(300), lexical=True) as store:
        for words in ("penguin", "a PENGUIN swims", "penguin's", "penguin | swim & ! ("):
            hits = store.search(rows(1)[0], 120, hybrid=True, words=words)
            assert {"d250", "d260"} <= {hit.id for hit in hits[:4]}, words
            alone = {hit.id: hit.score for hit in store.search(rows(1)[0], 300, oversample=100)}
            assert all(hit.score == alone[hit.id] for hit in hits)
        kept = store.search(rows(1)[0], 10, hybrid=True, words="penguin", filter="n < 255")
        assert "d250" in [hit.id for hit in kept]
        assert "d260" not in [hit.id for hit in kept]
        assert len(store.search(rows(2), 5, hybrid=True, words=["the", "nothing like it"])) == 2
    with (
        lexical.cls.build(lexical.name, records(3), embeddings=rows(3), force=True) as store,
        pytest.raises(InputError, match="no lexical index"),
    ):
        store.search(rows(1)[0], hybrid=True, words="x")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"precision": "float16"}, "precision='float16' is not known"),
    ({"rescore": "float32"}, "rescore='float32' is not known"),
    ({"dim": 0}, "dim=0 is outside 1..64"),
    ({"dim": 12}, "not a multiple of 8"),
    ({"passages": 3}, "passages=3: a passage has at least"),
    ({"passages": 64}, "passages"),
    ({"ids": ["a"]}, "ids go with embeddings alone"),
    ({"embeddings": rows(4)}, "there are 4 embeddings, but only 3 documents"),
    ({"embeddings": np.full((3, DIM), np.nan)}, "NaN|direction|finite"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_be_built_is_refused_and_not_there(named: Named, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        named.cls.build(named.name, records(3), **({"embeddings": rows(3)} | options))
    with pytest.raises(IndexNotFoundError):
        named.open()


def test_what_a_store_does_not_store_is_refused_by_name(named: Named) -> None:
    for precision in ("int8", "float32"):
        if precision not in named.kind.precisions:
            with pytest.raises(InputError, match=f"precision='{precision}'"):
                named.cls.build(named.name, embeddings=rows(3), precision=precision)
    with named.cls.build(named.name, embeddings=rows(3)) as store, pytest.raises(InputError, match="mode='float32'"):
        store.search(rows(1), mode="float32")
    with named.open() as store:
        if "int8" not in named.kind.modes:
            with pytest.raises(InputError, match="mode='int8'"):
                store.search(rows(1), mode="int8")


def test_bad_input_is_refused_and_nothing_changes(named: Named) -> None:
    with named.cls.build(named.name, records(5), embeddings=rows(5)) as store:
        wrong: list[tuple[Any, str]] = [
            (lambda: store.search(rows(1, dim=16)), "16 dimensions; this index takes 64"),
            (lambda: store.search(np.zeros((1, DIM))), "direction|zero"),
            (lambda: store.search(rows(1), 0), "top_k=0"),
            (lambda: store.search(rows(1), oversample=0), "oversample=0"),
            (lambda: store.search(rows(1), filter="n >"), "expected"),
            (lambda: store.search(rows(1), mode=json.loads('"fast"')), "mode='fast' is not known"),
            (lambda: store.search(codes(1), mode="ubinary+int8"), "takes texts, or embeddings, but no codes"),
            (lambda: store.search("a text"), "built from given embeddings"),
            (lambda: store.add([{"text": "x"}]), "what is added needs embeddings too"),
            (lambda: store.add(embeddings=rows(2, dim=16)), "16 dimensions; those of this index had 64"),
            (lambda: store.add(embeddings=codes(2)), "uint8 codes"),
            (lambda: store.get("d1"), "give a list of ids"),
            (lambda: store.delete(json.loads("[1]")), "is no string"),
            (lambda: store.count({"n": {}}), "it must be a string, a number"),
        ]
        for act, message in wrong:
            with pytest.raises(InputError, match=message):
                act()
        assert len(store) == 5


def test_many_threads_may_search(named: Named) -> None:
    queries = rows(40, seed=1)
    with named.cls.build(named.name, records(200), embeddings=rows(200)) as store:
        expected = [store.search(query, filter="n < 150") for query in queries]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                assert list(pool.map(lambda query: store.search(query, filter="n < 150"), queries)) == expected


def test_writers_at_the_same_time(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several may write, each document is there once; elsewhere all but one writer are told so."""
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * DIM * 5)
    named.cls.build(named.name, records(10), embeddings=rows(10)).close()
    started = threading.Barrier(4)

    def write(writer: int) -> Any:
        own = [{"id": f"w{writer}-{i}", "text": "own"} for i in range(30)]
        shared = [{"id": f"s{i}", "text": "shared"} for i in range(30)]
        documents = [document for pair in zip(own, shared, strict=True) for document in pair]
        with named.open() as store:
            started.wait()
            try:
                added = store.add(documents, embeddings=np.repeat(rows(30), 2, axis=0))
                replaced = store.upsert(
                    [{"id": "one", "text": f"of {writer}-{i}"} for i in range(20)], embeddings=rows(20)
                )
                return added, replaced
            except IndexLockedError as error:
                return error

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(write, range(4)))
    done = [outcome for outcome in outcomes if not isinstance(outcome, IndexLockedError)]
    assert done
    if named.kind.writers:
        assert len(done) == 4
    with named.open() as store:
        assert len(store) == 10 + 30 * len(done) + 30 + 1
        assert sum(added.documents for added, _ in done) == 30 * len(done) + 30
        assert sum(added.identical for added, _ in done) == 30 * (len(done) - 1)
        assert sum(upserted.replaced for _, upserted in done) == sum(one.documents for _, one in done) - 1
        assert [len(store.search(rows(30)[i], 100, filter={"n": i})) for i in range(2)] == [1, 1]
        assert all(store.get([f"s{i}" for i in range(30)]))


def test_every_store_has_the_methods_of_the_protocol(named: Named) -> None:
    stores: list[type[Store]] = [Index, PostgresIndex, ShardedIndex]
    assert named.cls in stores
    public = {name for name in vars(Store) if not name.startswith("_")} | {"__len__", "__enter__", "__exit__"}
    assert {"open", "build", "add", "upsert", "delete", "get", "search", "count", "close"} <= public
    for name in public:
        wanted, own = getattr(Store, name), getattr(named.cls, name)
        assert isinstance(own, property) == isinstance(wanted, property), name
        assert own.__doc__, name


def test_a_random_sequence_of_changes(named: Named, tmp_path: Path) -> None:
    """Beside an index in a folder, step by step."""
    generator = np.random.default_rng(0)
    table = rows(6, seed=7)
    folder = Index.build(tmp_path / "beside.jv5", records(3), embeddings=table[:3])
    store = named.cls.build(named.name, records(3), embeddings=table[:3])
    for _ in range(40):
        picked = generator.integers(0, 6, generator.integers(1, 6))
        documents: list[dict[str, Any]] = [
            {"id": f"d{i}", "text": f"text {i % 4}", "n": int(i % 3)} for i in generator.integers(0, 12, len(picked))
        ]
        action = generator.choice(["add", "upsert", "delete", "where", "reopen"])
        done: list[Any] = []
        for one in (store, folder):
            if action in ("add", "upsert"):
                skipped: list[InputError] = []
                act = one.add if action == "add" else one.upsert
                added = act(documents, embeddings=table[picked], skip=skipped.append)
                done.append((added, list(map(str, skipped))))
            elif action == "delete":
                done.append(one.delete([document["id"] for document in documents]))
            elif action == "where":
                done.append(one.delete(filter={"n": documents[0]["n"], "of": "m1"}) if "of" in one.fields else 0)
        if action == "reopen":
            store.close()
            store = named.open()
        assert not done or done[0] == done[1], action
        ids = [f"d{i}" for i in range(12)]
        assert store.get(ids) == folder.get(ids)
        assert store.search(table, 20) == folder.search(table, 20)
        assert store.search(table, 3, filter="n not in (1, 2)") == folder.search(table, 3, filter="n not in (1, 2)")
        assert (len(store), store.count("n = 1")) == (len(folder), folder.count("n = 1"))
    store.close()


def test_documents_are_encoded_and_found_by_their_texts(named: Named, encoder: Encoder, other_model: Path) -> None:
    texts = ["a penguin on the ice", "the sea", "a bird"]
    documents = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    with named.cls.build(named.name, documents, encoder, show_progress_bar=False) as store:
        assert store.search("a penguin on the ice")[0].id == "0"
        store.add([{"id": "new", "text": "something else"}])
        assert [hits[0].id for hits in store.search(["something else", "the sea"])] == ["new", "1"]
    with named.open() as store:
        store.use_encoder(encoder)
        assert store.encoder is encoder
        assert store.search("a bird")[0].id == "2"
        with pytest.raises(InputError, match="was built with another model"):
            store.use_encoder(other_model)


def test_it_is_served(named: Named, encoder: Encoder, tiny_model: Path) -> None:
    documents = [{"id": str(i), "text": text, "n": i} for i, text in enumerate(["a penguin on the ice", "the sea"])]
    store = named.cls.build(named.name, documents, encoder, lexical=named.kind.lexical)
    command = [*COMMAND, "serve", "-m", str(tiny_model), "--index", named.name, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            assert f"index {store.name}: 2 documents" in line
            base = next(word for word in line.replace(",", "").split() if word.startswith("http://"))
            with httpx.Client(base_url=base, timeout=60) as http:
                asked = {"query": "a penguin on the ice", "top_k": 1, "filter": "n < 5", "hybrid": named.kind.lexical}
                assert [hit["id"] for hit in http.post("/v1/search", json=asked).json()["hits"]] == ["0"]
                # What is added meanwhile is found.
                store.use_encoder(encoder)
                store.add([{"id": "new", "text": "a penguin in the snow"}])
                asked = {"query": "a penguin in the snow", "mode": "ubinary"}
                assert http.post("/v1/search", json=asked).json()["hits"][0]["id"] == "new"
                about = http.get("/v1/index").json()
                assert (about["documents"], tuple(about["modes"]), [*about["fields"]]) == (3, named.kind.modes, ["n"])
        finally:
            server.terminate()
    store.close()


def test_the_command_line_takes_the_same_words(named: Named, folder: Path, inside: Inside) -> None:
    to = "--store" if named.kind.name == "postgres" else "-o"
    shown = inside("index", folder / "docs.jsonl", "--embeddings", folder / "x.npy", to, named.name, "--json").stdout
    with named.open() as store:
        name = store.name
    assert [json.loads(line) for line in shown.splitlines()] == [
        {"committed": 5},
        {"index": name, "documents": 5, "skipped": 0},
    ]
    again = ("index", folder / "docs.jsonl", "--embeddings", folder / "x.npy", to, named.name)
    assert "--append" in inside(*again, code=2).stderr
    assert "5 documents were there already, identical" in inside(*again, "--append").stderr
    assert "5 documents" in inside(*again, "--force").stderr
    shown = inside("search", "--index", named.name, "--embeddings", folder / "x.npy", "-k", "1", "--json").stdout
    assert [json.loads(line)["hits"][0]["id"] for line in shown.splitlines()] == [f"d{i}" for i in range(5)]
    assert json.loads(inside("get", "d1", "--index", named.name).stdout)["text"] == "a penguin 1"
    assert json.loads(inside("info", named.name, "--json").stdout)["documents"] == 5
    assert inside("delete", "d1", "no", "--index", named.name, "--json").stdout == (
        json.dumps({"index": name, "deleted": 1, "missing": 1, "documents": 4}) + "\n"
    )
    assert "has no document 'd1'" in inside("get", "d1", "--index", named.name, code=1).stderr
