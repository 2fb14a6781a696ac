"""Shards of an index as actors of a Ray cluster, which live on when the process that published them has ended.

A shard has one actor or several, its replicas, by preference on different machines. A question goes to one of them; if
it fails or is slow, to the next one as well. Ray starts an actor again that has died, elsewhere if its machine has, and
a shard that has no other one is waited for: an answer is never without a shard.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jv5kit.errors import IndexNotFoundError, InputError, Jv5kitError
from jv5kit.sharding.processes import limit_threads
from jv5kit.sharding.published import read_published
from jv5kit.sharding.ray_cluster import processors
from jv5kit.sharding.shard import ReshapedError, Shard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jv5kit.sharding.searcher import Question

NAMESPACE = "jv5kit"
"""Of the actors' names, ``NAME/SHARD-of-SHARDS/REPLICA``: one that is missing is seen to be."""

WAIT_SECONDS = 120.0
"""How long a shard is waited for that has no actor alive."""

SLOW_SECONDS = 2.0
"""After which another replica is asked as well."""

RETRY_SECONDS = 0.1
"""From one attempt to the next, where a shard has no actor alive."""

REPUBLISH_SECONDS = 10.0
"""How long a name is looked for whose actors have ended: others are about to have it, where it is published again."""

_ACTOR = re.compile(r"(.+)/(\d+)-of-(\d+)/(\d+)")


class ShardActor:
    """An actor: one shard, and how many there are of what."""

    def __init__(self, folder: str, number: int, count: int, threads: int) -> None:
        limit_threads(threads)
        self._folder = folder
        self._shard = Shard(Path(folder), number, count)

    def folder(self) -> str:
        """Where the index is."""
        return self._folder

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """The answer of the shard, or an error of ours."""
        try:
            return getattr(self._shard, method)(*arguments)
        except Jv5kitError as error:
            return error


def publish(ray: Any, folder: Path, name: str, replicas: int = 1) -> None:
    """Make actors of the shards of an index, in the place of those that have the name.

    Args:
        ray: the package, connected.
        folder: of the index, by a path that all machines have.
        name: of what is published.
        replicas: actors of each shard.

    Raises:
        IndexNotFoundError: the folder holds no index in shards.
        InputError: the name is none, or the number of replicas is none.
        Jv5kitError: a shard cannot be opened where its actor is.
    """
    if not name or not name.isprintable():
        raise InputError(f"{name!r} is no name to publish by")
    if replicas < 1:
        raise InputError(f"--replicas {replicas}: it must be at least 1")
    count = len(read_published(folder).shards)
    unpublish(ray, name)
    threads = max(1, processors(ray) // (count * replicas))
    nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    remote = ray.remote(max_restarts=-1, namespace=NAMESPACE, lifetime="detached")(ShardActor)
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    actors = [
        remote.options(
            name=_name(name, number, count, replica),
            # Its machine by preference: elsewhere, where that is lost.
            scheduling_strategy=affinity(nodes[(number + replica) % len(nodes)], soft=True),
        ).remote(str(folder), number, count, threads)
        for number in range(count)
        for replica in range(replicas)
    ]
    try:
        answers = ray.get([actor.ask.remote("describe", ()) for actor in actors], timeout=WAIT_SECONDS)
    except ray.exceptions.RayError as error:
        unpublish(ray, name)
        raise Jv5kitError(f"{folder} cannot be published: {str(error).splitlines()[0]}; see 'ray status'") from None
    for answer in answers:
        if isinstance(answer, Jv5kitError):
            unpublish(ray, name)
            raise answer


def unpublish(ray: Any, name: str) -> int:
    """End the actors of a name; returns how many there were."""
    actors = _actors(ray, name)
    for actor in actors:
        # It may have ended since.
        with suppress(ValueError):
            ray.kill(ray.get_actor(_name(name, *actor), NAMESPACE))
    # A name is free when its actor is gone.
    deadline = time.monotonic() + WAIT_SECONDS
    while _actors(ray, name) and time.monotonic() < deadline:
        time.sleep(RETRY_SECONDS)
    return len(actors)


class RayShards:
    """The shards that are published by a name; see :class:`~jv5kit.sharding.searcher.Shards`.

    Raises:
        IndexNotFoundError: nothing is published by it.
    """

    def __init__(self, ray: Any, address: str, name: str) -> None:
        self._ray = ray
        self._address = address
        self._name = name
        self._look_up()

    def __len__(self) -> int:
        """See :class:`~jv5kit.sharding.searcher.Shards`."""
        return len(self._replicas)

    @property
    def folder(self) -> Path:
        """Where the index is, on the machines of the cluster."""
        ((_, reply),) = self._ask({0: ("folder", ())}).items()
        return Path(reply)

    def ask(self, questions: Mapping[int, Question]) -> dict[int, tuple[int, Any]]:
        """See :class:`~jv5kit.sharding.searcher.Shards`."""
        try:
            return self._ask({shard: ("ask", question) for shard, question in questions.items()})
        except ReshapedError:
            # Perhaps it was published anew as well.
            self._look_up()
            raise

    def close(self) -> None:
        """See :class:`~jv5kit.sharding.searcher.Shards`: the actors stay."""

    def _ask(self, calls: Mapping[int, tuple[str, tuple[Any, ...]]]) -> dict[int, Any]:
        """What some shards return of a call of their actor each."""
        answers: dict[int, Any] = {}
        flying: dict[Any, tuple[int, int]] = {}
        deadline = time.monotonic() + WAIT_SECONDS
        for shard in calls:
            self._call(flying, shard, self._preferred.get(shard, 0), calls[shard])
        while len(answers) < len(calls):
            if time.monotonic() > deadline:
                late = min(calls.keys() - answers.keys())
                raise Jv5kitError(
                    f"no actor of shard {late} of {self._name!r} has answered for {WAIT_SECONDS:.0f} seconds: see with "
                    f"'ray status --address {self._address}' whether the cluster has a machine for it"
                )
            ready, _ = self._ray.wait(list(flying), timeout=SLOW_SECONDS)
            if not ready:
                for shard in calls.keys() - answers.keys():
                    busy = {replica for other, replica in flying.values() if other == shard}
                    for replica in sorted(self._replicas.get(shard, {}).keys() - busy)[:1]:
                        self._call(flying, shard, replica, calls[shard])
            for reference in ready:
                shard, replica = flying.pop(reference)
                try:
                    answer = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError:
                    raise
                except self._ray.exceptions.RayError:
                    if shard not in answers and shard not in {other for other, _ in flying.values()}:
                        self._call(flying, shard, self._after_failure(shard, replica), calls[shard])
                    continue
                if isinstance(answer, Jv5kitError):
                    raise answer
                answers[shard] = answer
                # What was looked up meanwhile may have no such actor.
                if replica in self._replicas.get(shard, {}):
                    self._preferred[shard] = replica
        return answers

    def _call(self, flying: dict[Any, tuple[int, int]], shard: int, replica: int, call: tuple[str, Any]) -> None:
        method, arguments = call
        # Another thread may have looked up others, or an index of fewer shards.
        replicas = self._replicas.get(shard)
        if replicas is None:
            raise self._reshaped()
        replica = replica if replica in replicas else min(replicas)
        flying[getattr(replicas[replica], method).remote(*arguments)] = shard, replica

    def _after_failure(self, shard: int, replica: int) -> int:
        """The replica to ask after one that failed: the next one, or the same one a little later."""
        later = [one for one in self._replicas.get(shard, {}) if one > replica]
        if later:
            return min(later)
        # All were asked. They may be other ones by now.
        time.sleep(RETRY_SECONDS)
        self._look_up(patience=REPUBLISH_SECONDS)
        return min(self._replicas.get(shard, {0: None}))

    def _reshaped(self) -> ReshapedError:
        return ReshapedError(f"{self._name!r} at {self._address} has {len(self._replicas)} shards by now")

    def _look_up(self, patience: float = 0.0) -> None:
        deadline = time.monotonic() + patience
        while True:
            replicas: dict[int, dict[int, Any]] = {}
            counts = set()
            for number, count, replica in _actors(self._ray, self._name):
                # It may have ended since.
                with suppress(ValueError):
                    actor = self._ray.get_actor(_name(self._name, number, count, replica), NAMESPACE)
                    replicas.setdefault(number, {})[replica] = actor
                    counts.add(count)
            whole = len(counts) == 1 and len(replicas) == max(counts)
            if whole or time.monotonic() > deadline:
                break
            time.sleep(RETRY_SECONDS)
        if not whole:
            there = ", ".join(sorted(published(self._ray))) or "nothing"
            raise IndexNotFoundError(
                f"no index is published as {self._name!r} at {self._address} (there is: {there}): publish one in "
                f"shards with 'jv5kit publish FOLDER --ray {self._address}'"
            )
        self._preferred = {shard: min(replicas[shard]) for shard in replicas}
        self._replicas = replicas


def published(ray: Any) -> set[str]:
    """The names that indexes are published by on the cluster."""
    return {name for name, *_ in _all_actors(ray)}


def _name(name: str, number: int, count: int, replica: int) -> str:
    return f"{name}/{number}-of-{count}/{replica}"


def _actors(ray: Any, name: str) -> list[tuple[int, int, int]]:
    """The shard, the number of shards and the replica of each actor of a name."""
    return sorted((number, count, replica) for found, number, count, replica in _all_actors(ray) if found == name)


def _all_actors(ray: Any) -> list[tuple[str, int, int, int]]:
    found = []
    for actor in ray.util.list_named_actors(all_namespaces=True):
        match = _ACTOR.fullmatch(actor["name"]) if actor["namespace"] == NAMESPACE else None
        if match is not None:
            found.append((match[1], int(match[2]), int(match[3]), int(match[4])))
    return found
