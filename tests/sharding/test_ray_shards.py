"""Which actors are asked, where they end and others take their names: on a cluster that is only told of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jv5kit.errors import IndexNotFoundError
from jv5kit.sharding import ray_shards
from jv5kit.sharding.ray_shards import NAMESPACE, RayShards, unpublish
from jv5kit.sharding.shard import ReshapedError

ASK: tuple[str, tuple[Any, ...]] = ("version", ())


def ask(shards: RayShards, *numbers: int) -> Any:
    """The actors that answer for some shards."""
    return shards.ask(dict.fromkeys(numbers, ASK))


class Died(Exception):
    """What Ray raises of an actor that has."""


class Told:
    """A cluster: the actors that it lists, and those of them that are alive."""

    def __init__(self, *names: str) -> None:
        self.listed = list(names)
        self.alive = set(names)
        self.asked: list[str] = []
        self.on_get: list[Any] = []
        self.exceptions = SimpleNamespace(RayError=Died, RayTaskError=NotADirectoryError)
        self.util = SimpleNamespace(
            list_named_actors=lambda all_namespaces: [
                {"name": name, "namespace": NAMESPACE} for name in self.listed if all_namespaces
            ]
        )

    def become(self, *names: str) -> None:
        self.listed, self.alive = list(names), set(names)

    def get_actor(self, name: str, _: str) -> Any:
        if name not in self.alive:
            raise ValueError(name)
        return SimpleNamespace(ask=SimpleNamespace(remote=lambda *_: name))

    def kill(self, actor: Any) -> None:
        self.become(*(self.alive - {actor.ask.remote()}))

    def wait(self, references: list[str], timeout: float) -> tuple[list[str], list[str]]:
        return (references[:1], references[1:]) if timeout else ([], references)

    def get(self, reference: str) -> Any:
        self.asked.append(reference)
        if self.on_get:
            self.on_get.pop(0)()
        if reference not in self.alive:
            raise Died
        return reference


def names(shards: int, replicas: int = 1, name: str = "docs") -> list[str]:
    return [f"{name}/{shard}-of-{shards}/{replica}" for shard in range(shards) for replica in range(replicas)]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_shards, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(ray_shards, "REPUBLISH_SECONDS", 0.05)
    monkeypatch.setattr(ray_shards, "WAIT_SECONDS", 1.0)


def test_published_again_with_fewer_replicas() -> None:
    ray = Told(*names(2, 3))
    shards = RayShards(ray, "here", "docs")
    # All end while the first of them is asked, and others have their names.
    ray.on_get = [lambda: ray.become(*names(2))]
    shards._preferred = {0: 2, 1: 2}
    assert ask(shards, 0, 1) == {0: "docs/0-of-2/0", 1: "docs/1-of-2/0"}
    assert ask(shards, 1) == {1: "docs/1-of-2/0"}


def test_published_again_in_fewer_shards() -> None:
    ray = Told(*names(3))
    shards = RayShards(ray, "here", "docs")
    ray.become(*names(1))
    with pytest.raises(ReshapedError, match="'docs' at here has 1 shards by now"):
        ask(shards, 2)
    assert len(shards) == 1
    with pytest.raises(ReshapedError):
        ask(shards, 0, 1)
    assert ask(shards, 0) == {0: "docs/0-of-1/0"}


def test_a_name_that_is_free_for_a_moment() -> None:
    ray = Told(*names(2))
    shards = RayShards(ray, "here", "docs")
    ray.become()
    looked = iter(range(100))
    listing = ray.util.list_named_actors

    def later(all_namespaces: bool) -> Any:
        if next(looked) == 3:
            ray.become(*names(2))
        return listing(all_namespaces)

    ray.util.list_named_actors = later
    assert ask(shards, 0, 1) == {0: "docs/0-of-2/0", 1: "docs/1-of-2/0"}
    ray.become()
    with pytest.raises(IndexNotFoundError, match="no index is published as 'docs'"):
        ask(shards, 0)


def test_some_of_the_actors_are_no_index() -> None:
    """As if another process were about to make the others."""
    for there in (names(3)[:2], names(3)[1:], [*names(2), *names(3)]):
        with pytest.raises(IndexNotFoundError):
            RayShards(Told(*there), "here", "docs")


def test_an_actor_that_ends_after_it_was_listed() -> None:
    ray = Told(*names(2, 2))
    ray.alive.discard("docs/0-of-2/0")
    assert ask(RayShards(ray, "here", "docs"), 0) == {0: "docs/0-of-2/1"}
    assert unpublish(ray, "docs") == 4
    assert ray.listed == []
