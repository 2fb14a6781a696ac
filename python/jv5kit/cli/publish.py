"""``jv5kit publish``: an index in shards, for a Ray cluster to answer from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jv5kit.cli.options import Json, OnRay, Replicas, print_json


def publish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An index in shards (*.jv5s).")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to publish it by (default: the folder's name).")
    ] = None,
    replicas: Replicas = 1,
    ray: OnRay = None,
    stop: Annotated[bool, typer.Option("--stop", help="End what is published by the name.")] = False,
    json: Json = False,
) -> None:
    """Publish an index in shards on a Ray cluster, as jv5+ray://ADDRESS/NAME, in the place of what has the name.

    Each shard becomes an actor, or several (--replicas), which stay when this command has ended and are started again
    when they die, until --stop. All machines have to see FOLDER by the same path.
    """
    address = ray or "auto"
    if stop:
        name = name or name_of(folder)
        ended = end(address, name)
        if json:
            print_json({"stopped": name, "actors": ended})
        else:
            print(f"{name}: {ended} actors ended", file=sys.stderr)
        return
    url = start(folder, address, name, replicas)
    if json:
        print_json({"published": url, "replicas": replicas})
    else:
        print(f"{folder}: published as {url}", file=sys.stderr)


def name_of(folder: Path) -> str:
    """What an index is published by, unless another name is given."""
    return folder.absolute().name.removesuffix(".jv5s")


def start(folder: Path, address: str, name: str | None, replicas: int) -> str:
    """Publish an index; returns its URL.

    Raises:
        InputError: the address is that of a cluster which ends with this command.
    """
    from jv5kit.errors import InputError
    from jv5kit.sharding.ray_cluster import attach
    from jv5kit.sharding.ray_shards import publish as publish_shards

    if address == "local":
        raise InputError(
            "--ray local ends with this command, and what it publishes too: search jv5+ray://local/NAME, which "
            "publishes NAME.jv5s by itself, or start a cluster with 'ray start --head'"
        )
    name = name or name_of(folder)
    publish_shards(attach(address), folder.absolute(), name, replicas)
    return f"jv5+ray://{address}/{name}"


def end(address: str, name: str) -> int:
    """End what is published; returns how many actors that were.

    Raises:
        IndexNotFoundError: nothing is published by the name.
    """
    from jv5kit.errors import IndexNotFoundError
    from jv5kit.sharding.ray_cluster import attach
    from jv5kit.sharding.ray_shards import published, unpublish

    ray = attach(address)
    ended = unpublish(ray, name)
    if not ended:
        there = ", ".join(sorted(published(ray))) or "nothing"
        raise IndexNotFoundError(f"no index is published as {name!r} at {address}; there is: {there}")
    return ended


def is_lasting(ray: str | None, replicas: int) -> bool:
    """Whether a cluster answers for the shards: one that ends with this command has nobody to ask it."""
    from jv5kit.errors import InputError

    lasting = ray is not None and ray != "local"
    if replicas < 1 or (replicas > 1 and not lasting):
        raise InputError(
            f"--replicas {replicas}: how many actors of a cluster answer for each shard, at least 1; name the cluster "
            "with --ray ADDRESS"
        )
    return lasting
