"""A Ray cluster: how it is reached, and its actors as an engine."""

from __future__ import annotations

import importlib
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from jv5kit.errors import InputError, Jv5kitError, MissingExtraError
from jv5kit.logs import logger
from jv5kit.sharding.engines import DiedError, share_out
from jv5kit.sharding.processes import limit_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

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


_attached: list[str] = []
"""The address that this process is connected with, if it did that here."""


def attach(address: str) -> Any:
    """The package ``ray``, connected to a cluster until the process ends; a connection that there is already is used.

    Args:
        address: ``HOST:PORT``, ``auto`` for that of ``RAY_ADDRESS`` or of this machine, or ``local`` for a new one that
            ends with the process.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: the address is none.
        Jv5kitError: there is no cluster at it, or the process is connected with another one, and can be with one only.
    """
    ray = load_ray()
    if not ray.is_initialized():
        _connect(ray, address)
        _attached[:] = [address]
    elif address != "auto" and _attached and _attached != [address]:
        raise Jv5kitError(
            f"this process is connected with the Ray cluster at {_attached[0]}, and cannot be with that at {address} "
            "as well: ask that from another process"
        )
    return ray


def processors(ray: Any) -> int:
    """Processors of a cluster.

    Raises:
        Jv5kitError: it has none.
    """
    found = int(ray.cluster_resources().get("CPU", 0))
    if not found:
        raise Jv5kitError("the Ray cluster has no processor to work with: add a machine to it")
    return found


def _connect(ray: Any, address: str) -> None:
    wanted = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    endpoint = _ADDRESS.fullmatch(wanted)
    if endpoint is None and wanted not in ("auto", "local"):
        raise InputError(f"{wanted!r} is no address of a Ray cluster: give HOST:PORT, auto or local")
    try:
        if endpoint is not None:
            # Ray itself would try for a minute.
            socket.create_connection((endpoint[1], int(endpoint[2])), CONNECT_SECONDS).close()
        # Ray says on standard output, which is for data, that a worker died.
        vars(importlib.import_module("ray._private.worker"))["print_to_stdstream"] = _log
        ray.init(address=wanted, logging_level="error", log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        problem = str(error).splitlines()[0].rstrip(".")
        raise Jv5kitError(
            f"there is no Ray cluster at {wanted}, or none for this process: {problem}; start one with 'ray start "
            "--head' and name its address, or take --ray local; for one that asks for a token set RAY_AUTH_MODE=token"
        ) from None


def _log(data: Mapping[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001  # as Ray calls it
    for line in data["lines"]:
        logger.debug("Ray: %s", line)


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Actors of a cluster, by default one for each machine, with the threads of all machines divided among them."""

    address: str
    workers: int | None = None

    def run(self, load: Callable[[], Callable[[T], R]], pieces: Sequence[T]) -> Generator[R]:
        """See :class:`~jv5kit.sharding.engines.Engine`."""
        ray = attach(self.address)
        machines = sum(node["Alive"] and bool(node["Resources"].get("CPU")) for node in ray.nodes())
        workers = self.workers or max(1, machines)
        actor = ray.remote(scheduling_strategy="SPREAD")(_Actor)
        threads = max(1, processors(ray) // workers)
        yield from share_out(
            pieces,
            workers,
            lambda: _RayWorker(ray, actor.remote(load, threads)),
            lambda references: ray.wait(references)[0],
        )


class _RayWorker:
    """An actor that does one piece at a time; see :class:`~jv5kit.sharding.engines.Worker`."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor
        self._reference: Any = None

    def begin(self, piece: Any) -> Any:
        """Give it a piece."""
        self._reference = self._actor.work.remote(piece)
        return self._reference

    def result(self) -> Any:
        """The result of the piece."""
        try:
            result = self._ray.get(self._reference)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            raise DiedError(f"with {type(error).__name__}") from None
        if isinstance(result, Jv5kitError):
            raise result
        return result

    def kill(self) -> None:
        """End it."""
        self._ray.kill(self._actor)


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
