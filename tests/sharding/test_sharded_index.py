"""An index in shards is one index, to the last bit: the same hits, scores and order, whatever is asked of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alike import COUNT, DIM, assert_same, both, records, rows

from jv5kit import Encoder, Index
from jv5kit.errors import IndexDamagedError, IndexExistsError, IndexLockedError, IndexNotFoundError, InputError
from jv5kit.sharding.searcher import LocalShards
from jv5kit.sharding.shard import Shard
from jv5kit.sharding.writer import ShardedWriter
from jv5kit.stores import store_class
from jv5kit.stores.sharded import ShardedIndex

KINDS: list[dict[str, Any]] = [
    {},
    {"rescore": "codes"},
    {"rescore": "none"},
    {"precision": "int8"},
    {"precision": "float32"},
    {"precision": "float32", "dim": 8},
    {"rotate": True},
    {"rotate": True, "precision": "float32", "dim": 24},
]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_every_kind_of_index(tmp_path: Path, options: dict[str, Any]) -> None:
    whole, parts = both(tmp_path, **options)
    assert_same(whole, parts)
    for index in (whole, parts):
        assert index.delete([f"d{i}" for i in range(0, COUNT, 3)]) == 134
        assert index.delete(filter="n >= 130 and n < 300") == 114
    assert_same(whole, parts)
    with ShardedIndex.open(tmp_path / "parts.jv5s") as again:
        assert_same(whole, again)


@pytest.mark.parametrize("shards", [1, 2, 17])
def test_any_number_of_shards(tmp_path: Path, shards: int) -> None:
    assert_same(*both(tmp_path, shards))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_more_shards_than_documents(tmp_path: Path, count: int) -> None:
    for precision in ("ubinary", "int8", "float32"):
        options: dict[str, Any] = {"embeddings": rows(count), "precision": precision, "force": True}
        whole = Index.build(tmp_path / "whole.jv5", records(count), **options)
        with ShardedIndex.build(tmp_path / "parts.jv5s", records(count), shards=6, **options) as parts:
            assert parts.search(rows(3, seed=1), 4) == whole.search(rows(3, seed=1), 4)
            assert (len(parts), parts.fields) == (len(whole), whole.fields)


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that end within a shard, and shards that end within a batch."""
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * DIM * 37)
    assert_same(*both(tmp_path, 5))


def test_codes_without_documents(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 4, (COUNT, 8)).astype(np.uint8)
    whole = Index.build(tmp_path / "whole.jv5", embeddings=codes)
    with ShardedIndex.build(tmp_path / "parts.jv5s", embeddings=codes, shards=3) as parts:
        # Ids are the numbers of the rows in both.
        assert parts.search(codes[::9], 30) == whole.search(codes[::9], 30)


def test_what_is_added_and_replaced(tmp_path: Path) -> None:
    whole, parts = both(tmp_path)
    committed: list[int] = []
    for index in (whole, parts):
        index.upsert([{"id": "d7", "text": "new", "n": 7}, {"id": "d200", "text": "new"}], embeddings=rows(2, seed=3))
        more = [record | {"id": f"e{record['n']}"} for record in records(90)] + records(9)[:5]
        added = index.add(more, embeddings=np.concatenate([rows(90, seed=4), rows()[:5]]), on_commit=committed.append)
        assert (added.documents, added.identical) == (90, 5)
    assert committed == [COUNT + 90, COUNT + 90]
    assert_same(whole, parts)


def test_passages_and_texts(tmp_path: Path, encoder: Encoder) -> None:
    documents = [
        {
            "id": f"d{i}",
            "title": "Ice" if i % 2 else None,
            "text": "the penguin swims in the cold sea " * (1 + i % 9),
            "n": i,
        }
        for i in range(40)
    ]
    whole = Index.build(tmp_path / "whole.jv5", documents, encoder, passages=24, precision="float32")
    # An iterator, of which nobody knows how many it has.
    with ShardedIndex.build(
        tmp_path / "parts.jv5s", iter(documents), encoder, passages=24, precision="float32", shards=3
    ) as parts:
        assert parts.row_count == whole.row_count > len(parts) == 40
        for query in ("a penguin", ["the sea", "cold ice"]):
            assert parts.search(query, 60) == whole.search(query, 60)
            assert parts.search(query, 9, filter="n > 20") == whole.search(query, 9, filter="n > 20")
        assert parts.count("n > 20") == whole.count("n > 20") == 19
        assert parts.get(["d8", "d31"]) == whole.get(["d8", "d31"])
        stages: dict[str, float] = {}
        parts.search("a penguin", stages=stages)
        assert stages.keys() == {"encode", "filter", "scan", "documents"}


def test_filters_are_checked_against_all_shards(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A field whose values are numbers in one shard and strings in another has both, as in one index."""
    documents = [
        {"id": str(i), "text": "x", "v": i if i < 20 else f"s{i}", "w": i, "long": "y" * 300} for i in range(40)
    ]
    whole = Index.build(tmp_path / "whole.jv5", documents, embeddings=rows(40))
    with ShardedIndex.build(tmp_path / "parts.jv5s", documents, embeddings=rows(40), shards=4) as parts:
        for where in ("v > 5", 'v = "s30"', 'v = 3 or v = "s21"', 'not (v = 3 or v > "s30")'):
            assert parts.search(rows(2), 40, filter=where) == whole.search(rows(2), 40, filter=where)
            assert parts.count(where) == whole.count(where)
        for where in ('w = "x"', "v = true", 'long = "y"'):
            for ask in (
                parts.count,
                lambda where: parts.search(rows(1), filter=where),
                lambda where: parts.delete(filter=where),
            ):
                with pytest.raises(InputError) as refused:
                    ask(where)
                with pytest.raises(InputError) as expected:
                    whole.count(where)
                assert str(refused.value) == str(expected.value)
        assert parts.search(rows(1), filter="none = 3") == [[]]
        assert "no document has the field 'none'; fields to filter by: long, v, w" in caplog.text


def test_a_reader_takes_up_what_was_published(tmp_path: Path) -> None:
    whole, parts = both(tmp_path)
    reader = ShardedIndex.open(tmp_path / "parts.jv5s")
    assert not reader.refresh()
    for index in (whole, parts):
        index.delete(filter="n < 50")
    # Without being told: an answer is always of the state that is published.
    assert reader.search(rows(3, seed=1), 80) == whole.search(rows(3, seed=1), 80)
    assert len(reader) == len(whole)
    for index in (whole, parts):
        index.delete(["d60"])
    assert reader.get(["d60", "d61"]) == whole.get(["d60", "d61"])
    assert reader.count("n < 70") == whole.count("n < 70")
    assert reader.refresh() is False
    # Another one in its place, with another number of shards and other dimensions.
    ShardedIndex.build(tmp_path / "parts.jv5s", embeddings=rows()[:, :8], shards=5, force=True)
    assert reader.refresh()
    assert len(reader.search(rows()[:2, :8], 7)[1]) == 7


@pytest.mark.parametrize("publications", [1, 2])
def test_what_is_published_in_the_middle_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publications: int
) -> None:
    """After the candidates were found, and before their documents are read: the state before is known still."""
    whole, parts = both(tmp_path)
    queries = rows(3, seed=1)
    before = whole.search(queries, 50)
    ask = LocalShards.ask

    def disturbed(self: LocalShards, questions: Any) -> Any:
        answers = ask(self, questions)
        if self is parts._searcher._shards and next(iter(questions.values()))[0] == "find":
            monkeypatch.undo()
            with ShardedIndex.open(tmp_path / "parts.jv5s") as other:
                for found in before[0][:publications]:
                    other.delete([found.id])
                    whole.delete([found.id])
                    # The shards answer others meanwhile, and take up what is new.
                    ask(self, dict.fromkeys(range(3), ("describe", ())))
        return answers

    monkeypatch.setattr(LocalShards, "ask", disturbed)
    found = parts.search(queries, 50)
    after = whole.search(queries, 50)
    assert before != after
    # The state before is known still; of an older one all is asked again.
    assert found == (before if publications == 1 else after)
    assert parts.search(queries, 50) == after


def test_an_older_state_is_kept_until_the_next_one(tmp_path: Path) -> None:
    _, parts = both(tmp_path)
    folder = tmp_path / "parts.jv5s"
    found = parts._searcher._shards.ask({1: ("describe", ())})[1][0]
    for version in (2, 3, 4):
        parts.delete([f"d{200 + version}"])
        kept = {str(path.relative_to(folder)) for path in folder.glob("0*/*")}
        own = {f"{one:06d}/00001" for one in (version, version - 1)}
        assert kept == own | {"000001/00000", "000001/00002"}
    newest = parts._searcher.state.checksum
    assert parts._searcher._shards.ask({1: ("fetch", (found, [0]))})[1] == (newest, ({}, {}))
    # One that was not asked for anything before, as an actor that was started again.
    assert Shard(folder, 1, 3).fetch(newest, [0])[1][0][0].id == "d134"


def test_versions_share_their_segments(tmp_path: Path) -> None:
    _, parts = both(tmp_path)
    parts.delete(["d1"])
    old, new = (tmp_path / "parts.jv5s" / version / "00000" for version in ("000001", "000002"))
    segments = list((old / "segments").iterdir())
    assert segments
    assert all(path.samefile(new / "segments" / path.name) for path in segments)
    for name in ("index.sqlite", "head"):
        assert not (old / name).samefile(new / name)


def test_nothing_is_written_by_a_reader(tmp_path: Path) -> None:
    both(tmp_path)
    folder = tmp_path / "parts.jv5s"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with ShardedIndex.open(folder) as index:
        assert len(index.search(rows(1), 3)[0]) == 3
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    # A rollback journal, which needs no memory that machines would have to share.
    assert not [path for path in before if path.name.endswith(("-wal", "-shm", "-journal"))]
    assert all(path.read_bytes()[18:20] == b"\1\1" for path in before if path.name == "index.sqlite")
    for path in before:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_change_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = both(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jv5kit.sharding.writer.publish", fails)
        with pytest.raises(Exception, match=r"parts.jv5s cannot be written: .*No space left"):
            parts.delete(filter="n < 399")
    assert_same(whole, parts)
    with pytest.raises(InputError, match="holds a NaN"):
        parts.add([{"id": "x", "text": "x"}, {"id": "y", "text": "y"}], embeddings=np.full((2, DIM), np.nan))
    assert_same(whole, parts)
    # What a killed writer left is in nobody's way.
    left = tmp_path / "parts.jv5s" / "000002" / "00001"
    left.mkdir(parents=True)
    for index in (whole, parts):
        index.delete(["d150"])
    assert_same(whole, parts)
    assert not (left / "nothing").exists()


def test_what_is_built_is_acknowledged_when_all_of_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jv5kit.sources.BATCH_BYTES", 4 * DIM * 37)
    committed: list[int] = []

    def interrupted() -> Iterator[dict[str, Any]]:
        yield from records()[:300]
        raise KeyboardInterrupt

    options: dict[str, Any] = {"embeddings": rows(), "on_commit": committed.append}
    with pytest.raises(KeyboardInterrupt):
        ShardedIndex.build(tmp_path / "parts.jv5s", interrupted(), **options)
    assert committed == []
    with pytest.raises(IndexNotFoundError):
        ShardedIndex.open(tmp_path / "parts.jv5s")
    ShardedIndex.build(tmp_path / "parts.jv5s", records(), **options)
    assert committed == [COUNT]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    _, parts = both(tmp_path)
    with ShardedWriter(tmp_path / "parts.jv5s"), pytest.raises(IndexLockedError, match="is being written by process"):
        parts.delete(["d1"])
    assert parts.delete(["d1"]) == 1


@pytest.mark.parametrize(
    "name", ["000001/00001", "000001/00001/segments/000001.safetensors", "000001/00001/index.sqlite"]
)
def test_a_missing_part_is_named(tmp_path: Path, name: str) -> None:
    both(tmp_path)
    missing = tmp_path / "parts.jv5s" / name
    shutil.move(missing, tmp_path / "elsewhere")
    with pytest.raises(
        IndexDamagedError, match=r"00001.*(is missing).*restore it from a copy, or build the index again"
    ):
        ShardedIndex.open(tmp_path / "parts.jv5s")


def test_damage_is_named(tmp_path: Path) -> None:
    _, parts = both(tmp_path)
    state = tmp_path / "parts.jv5s" / "shards.json"
    before = state.read_bytes()
    for damaged, problem in [
        (before.replace(b'"version": 1', b'"version": 2'), "does not match its checksum"),
        (b"{", "is not JSON"),
        (b"[]", "is not JSON, or lacks its checksum"),
    ]:
        state.write_bytes(damaged)
        with pytest.raises(IndexDamagedError, match=problem):
            parts.search(rows(1))
    state.write_bytes(before)
    # An older copy of a shard is another state, however sound it is.
    old = tmp_path / "old"
    shutil.copytree(tmp_path / "parts.jv5s" / "000001" / "00000", old)
    parts.delete(["d1"])
    shutil.rmtree(tmp_path / "parts.jv5s" / "000002" / "00000")
    shutil.copytree(old, tmp_path / "parts.jv5s" / "000002" / "00000")
    with pytest.raises(IndexDamagedError, match="shard 0 is in another state than the one that was published"):
        ShardedIndex.open(tmp_path / "parts.jv5s")
    state.unlink()
    with pytest.raises(IndexNotFoundError, match=r"holds no index in shards: shards.json: No such file"):
        ShardedIndex.open(tmp_path / "parts.jv5s")


def test_what_shards_cannot_have_is_refused_by_name(tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"lexical": True}, r"shards have no lexical index: .*leave --lexical \(lexical=True\) out"),
        ({"hnsw": True, "precision": "float32"}, r"shards have no graph: .*leave --hnsw \(hnsw=True\) out"),
        ({"shards": 0}, "shards=0; it must be at least 1"),
    ]
    for options, message in refused:
        with pytest.raises(InputError, match=message):
            ShardedIndex.build(tmp_path / "parts.jv5s", embeddings=rows(), **options)
    assert not (tmp_path / "parts.jv5s").exists()
    _, parts = both(tmp_path)
    with pytest.raises(
        InputError, match=r"parts.jv5s is in shards, .* for hybrid search build one index, with --lexical"
    ):
        parts.search(rows(1), hybrid=True, words="x")
    with pytest.raises(IndexExistsError, match=r"parts.jv5s is an index already \(400 documents\); .*--force"):
        ShardedIndex.build(tmp_path / "parts.jv5s", embeddings=rows())
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    with pytest.raises(IndexExistsError, match="precious exists and is no index in shards"):
        ShardedIndex.build(tmp_path / "precious", embeddings=rows(), force=True)


def test_it_is_known_by_its_suffix_or_by_what_is_in_it(tmp_path: Path) -> None:
    both(tmp_path)
    assert store_class(tmp_path / "none.jv5s") is ShardedIndex
    assert store_class(tmp_path / "whole.jv5") is Index
    (tmp_path / "parts.jv5s").rename(tmp_path / "other")
    assert store_class(str(tmp_path / "other")) is ShardedIndex
