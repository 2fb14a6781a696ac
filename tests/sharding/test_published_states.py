"""States of an index in shards: what is published stays, what was never published is in nobody's way."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from alike import assert_same, both, records, rows

from jv5kit.errors import InputError
from jv5kit.sharding import published
from jv5kit.sharding.searcher import LocalShards
from jv5kit.sharding.shard import ReshapedError, Shard
from jv5kit.storage.verify import verify
from jv5kit.stores.sharded import ShardedIndex


def test_an_interruption_behind_the_publication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has its name stays, whatever happens to the process then."""
    whole, parts = both(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jv5kit.sharding.published.sweep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            parts.delete(["d3", "d390"])
    whole.delete(["d3", "d390"])
    with ShardedIndex.open(tmp_path / "parts.jv5s") as again:
        assert_same(whole, again)
        for index in (whole, again):
            index.delete(["d4"])
        assert_same(whole, again)


def test_what_a_build_that_died_left(tmp_path: Path) -> None:
    whole, _ = both(tmp_path)
    left = tmp_path / "again.jv5s" / "building"
    shutil.copytree(tmp_path / "parts.jv5s" / "000001", left)
    with ShardedIndex.build(tmp_path / "again.jv5s", records(), embeddings=rows()) as parts:
        assert_same(whole, parts, sizes=[9])
    # What a command has made that can be gone on with is not thrown away.
    left = tmp_path / "job.jv5s" / "building"
    shutil.copytree(tmp_path / "parts.jv5s" / "000001", left)
    (left / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="go on with that command, or replace them with --force"):
        ShardedIndex.build(tmp_path / "job.jv5s", records(), embeddings=rows())
    assert (left / "00002").exists()
    ShardedIndex.build(tmp_path / "job.jv5s", records(), embeddings=rows(), force=True).close()


def test_a_reader_of_more_shards_than_there_are(tmp_path: Path) -> None:
    both(tmp_path)
    shards = LocalShards(tmp_path / "parts.jv5s")
    with pytest.raises(ReshapedError, match="has 3 shards by now"):
        shards.ask({0: ("version", ()), 3: ("version", ())})


def test_nothing_is_described_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = both(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Shard, "describe", None)
        assert not parts.refresh()
    for index in (whole, ShardedIndex.open(tmp_path / "parts.jv5s")):
        index.delete(["d4"])
    assert parts.refresh()
    assert len(parts) == len(whole)


def test_what_is_changed_while_it_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a state go with the second one after it."""
    _, parts = both(tmp_path)
    changes = [["d1"], ["d2"]]

    def changing(*arguments: Any, **options: Any) -> list[str]:
        while changes:
            parts.delete(changes.pop())
        return verify(*arguments, **options)

    monkeypatch.setattr(published, "verify", changing)
    assert published.verify_shards(tmp_path / "parts.jv5s") == []
    shutil.rmtree(tmp_path / "parts.jv5s" / "000001" / "00001")
    (problem,) = published.verify_shards(tmp_path / "parts.jv5s")
    assert "shard 1 of 3 is missing" in problem
