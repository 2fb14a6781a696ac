"""A Ray cluster: how it is reached, and its actors as an engine."""

from __future__ import annotations

import importlib
import os
import re
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from jv5kit.errors import InputError, Jv5kitError, MissingExtraError
from jv5kit.sharding.engines import ATTEMPTS, died
from jv5kit.sharding.processes import limit_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")

CONNECT_SECONDS = 5.0
"""How long an address may take to accept a connection."""

_ADDRESS = re.compile(r"\[?(.+?)\]?:(\d+)")


def load_ray() -> Any:
    """The package ``ray``.

    Raises:
        MissingExtraError: it is not installed.
    """
    # It calls home and prints unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError("a Ray cluster needs ray: pip install 'jv5kit[ray]'") from None


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The package ``ray``, connected to a cluster; a connection that this process has already is used, and kept.

    Args:
        address: ``HOST:PORT``, ``auto`` for that of ``RAY_ADDRESS`` or of this machine, or ``local`` for a new one that
            ends with the block.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: the address is none.
        Jv5kitError: there is no cluster at it.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    connect(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


def connect(ray: Any, address: str) -> None:
    """Connect this process to a cluster; see :func:`connected`."""
    wanted = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    endpoint = _ADDRESS.fullmatch(wanted)
    if endpoint is None and wanted not in ("auto", "local"):
        raise InputError(f"{wanted!r} is no address of a Ray cluster: give HOST:PORT, auto or local")
    try:
        if endpoint is not None:
            # Ray itself would try for a minute.
            socket.create_connection((endpoint[1], int(endpoint[2])), CONNECT_SECONDS).close()
        ray.init(address=wanted, logging_level="error", log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        start = "start one with 'ray start --head' and name its address, or take --ray local"
        raise Jv5kitError(f"there is no Ray cluster at {wanted}: {str(error).splitlines()[0]}; {start}") from None


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Actors of a cluster, by default one for each machine, with the threads of all machines divided among them."""

    address: str
    workers: int | None = None

    def run(self, load: Callable[[], Callable[[T], R]], pieces: Sequence[T]) -> Generator[R]:
        """See :class:`~jv5kit.sharding.engines.Engine`."""
        with connected(self.address) as ray:
            processors = int(ray.cluster_resources().get("CPU", 0))
            if not processors:
                raise Jv5kitError(f"the Ray cluster at {self.address} has no processor to work with: add a machine")
            machines = sum(node["Alive"] and bool(node["Resources"].get("CPU")) for node in ray.nodes())
            workers = self.workers or machines
            # Ray does a piece again, on another machine if need be, whose actor has died.
            actor = ray.remote(max_restarts=-1, max_task_retries=ATTEMPTS - 1, scheduling_strategy="SPREAD")(_Actor)
            threads = max(1, processors // workers)
            actors = [actor.remote(load, threads) for _ in range(min(workers, len(pieces)))]
            waiting = iter(pieces)
            working = {actor.work.remote(piece): (actor, piece) for actor, piece in zip(actors, waiting, strict=False)}
            while working:
                (ready, *_), _ = ray.wait(list(working), num_returns=1)
                actor, piece = working.pop(ready)
                try:
                    result = ray.get(ready)
                except ray.exceptions.RayTaskError:
                    raise
                except ray.exceptions.RayError as error:
                    raise died(piece, str(error).splitlines()[0]) from None
                if isinstance(result, BaseException):
                    raise result
                for following in waiting:
                    working[actor.work.remote(following)] = actor, following
                    break
                yield result


class _Actor:
    """A process that does one piece at a time."""

    def __init__(self, load: Callable[[], Callable[[Any], Any]], threads: int) -> None:
        limit_threads(threads)
        self._load = load
        self._call: Callable[[Any], Any] | None = None

    def work(self, piece: Any) -> Any:
        """The result of a piece, or the error of ours that it ended in."""
        try:
            self._call = self._call or self._load()
            return self._call(piece)
        except Jv5kitError as error:
            return error
