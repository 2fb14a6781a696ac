"""What every store does: the same documents, hits and errors, whatever is behind a name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contract_rows import DIM, codes, naive, records, rows

from jv5kit import Document, Index
from jv5kit.building import Added
from jv5kit.errors import (
    DocumentError,
    IndexNotFoundError,
    InputError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from store_fixtures import Named


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
