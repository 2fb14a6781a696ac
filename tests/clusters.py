"""A Ray cluster of several raylets on this machine."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jv5kit.sharding.ray_cluster import attach, load_ray

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cluster:
    """Two raylets, with which this process is connected."""

    def __init__(self) -> None:
        self.ray = load_ray()
        from ray.cluster_utils import Cluster as Raylets

        make: Any = Raylets
        self._raylets = make(initialize_head=True, head_node_args=self._node() | {"include_dashboard": False})
        self._other = self._raylets.add_node(**self._node())
        self.address: str = self._raylets.address
        attach(self.address)

    def kill_node(self) -> None:
        """Kill the raylet that is not the head, with all that runs on it, as a machine that fails does."""
        self._raylets.remove_node(self._other, allow_graceful=False)

    def add_node(self) -> None:
        """Put another one in its place."""
        self._other = self._raylets.add_node(**self._node())

    def close(self) -> None:
        """End all of it."""
        self.ray.shutdown()
        self._raylets.shutdown()

    @staticmethod
    def _node() -> dict[str, Any]:
        return {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One for the tests of a file: it takes long to start, and takes the time of those that need none."""
    pytest.importorskip("ray")
    made = Cluster()
    yield made
    made.close()


def actors(name: str) -> list[int]:
    """The processes of the actors of a class on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # A process may end while it is looked at.
        with suppress(OSError):
            if path.read_bytes().startswith(f"ray::{name}".encode()):
                found.append(int(path.parent.name))
    return found


def kill(process: int) -> None:
    """As the system does when memory is short."""
    os.kill(process, signal.SIGKILL)
