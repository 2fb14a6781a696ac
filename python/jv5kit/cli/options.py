"""Options that several commands share, and what they mean together."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit.filters import Filter
    from jv5kit.sharding.engines import Engine
    from jv5kit.types import Precision, Rescore

_RAY_ADDRESS = re.compile(r"auto|local|[^\s/:]+:\d+|\[[0-9a-fA-F:]+\]:\d+")

Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="A folder or a hub id (default: JV5KIT_MODEL, else the default model)."
    ),
]
Dim = Annotated[int | None, typer.Option("--dim", metavar="N", help="Keep the first N dimensions (default: all).")]
Binary = Annotated[bool, typer.Option("--binary", help="Short for --precision ubinary.")]
InIndex = Annotated[
    str | None,
    typer.Option("--index", "-i", metavar="INDEX", help="A folder or a URL (default: the only *.jv5 in this folder)."),
]
AnIndex = Annotated[
    str | None,
    typer.Argument(metavar="INDEX", help="An index (default: the only *.jv5 in this folder).", show_default=False),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="EXPR", help="""Conditions on metadata: 'year >= 2020 and lang in ("en", "de")'."""
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Pass over documents that cannot be used; log and count them.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", help="Processes that share the work (default: 1; with --ray one for each machine)."
    ),
]
OnRay = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Work on a Ray cluster: HOST:PORT, local for one of this process, or auto (without an ADDRESS).",
    ),
]
Replicas = Annotated[int, typer.Option("--replicas", metavar="N", help="Actors of each shard that Ray keeps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no warnings.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Everything that is logged.")]
Documents = Annotated[
    Path | None,
    typer.Argument(metavar="DOCUMENTS", help="JSON Lines, .gz or not; - is standard input.", show_default=False),
]


class RayCommand(TyperCommand):
    """A command with ``--ray [ADDRESS]``: typer has no option whose value can be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say ``auto`` where no address follows."""
        for i, arg in enumerate(args):
            if arg == "--ray" and not (args[i + 1 :] and _RAY_ADDRESS.fullmatch(args[i + 1])):
                args[i] = "--ray=auto"
        return super().parse_args(ctx, args)


def engine_of(workers: int | None, ray: str | None) -> Engine:
    """What ``--workers`` and ``--ray`` ask to do the work.

    Raises:
        InputError: the number of workers is none.
        MissingExtraError: Ray is not installed.
        Jv5kitError: there is no cluster at the address.
    """
    from jv5kit.errors import InputError
    from jv5kit.sharding.engines import ThisProcess

    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: it must be at least 1")
    if ray is not None:
        from jv5kit.sharding.ray_cluster import RayWorkers, attach

        # Before anything is begun.
        attach(ray)
        return RayWorkers(ray, workers)
    if workers is None or workers == 1:
        return ThisProcess()
    from jv5kit.sharding.processes import Processes

    return Processes(workers)


def wanted_precision(
    precision: str | None, *, binary: bool, known: Sequence[Precision] | None = None
) -> Precision | None:
    """The precision that ``--precision`` and ``--binary`` ask for, None if neither does.

    Args:
        precision: the value of the option.
        binary: whether the flag is there.
        known: what may be asked for, by default everything that an index can have.

    Raises:
        InputError: they contradict each other, or the precision is not known.
    """
    from jv5kit.errors import InputError
    from jv5kit.types import PRECISIONS

    if binary and precision not in (None, "ubinary"):
        raise InputError(f"--binary is --precision ubinary; it contradicts --precision {precision}")
    if binary:
        return "ubinary"
    known = known or PRECISIONS
    for name in known:
        if precision == name:
            return name
    if precision is not None:
        raise InputError(f"--precision {precision} is not known; choose one of {', '.join(known)}")
    return None


def condition_of(where: str | None) -> Filter | None:
    """The filter that ``--where`` asks for.

    Raises:
        InputError: it is none.
    """
    from jv5kit.errors import InputError
    from jv5kit.where import parse_filter

    if where is None:
        return None
    try:
        return parse_filter(where)
    except InputError as error:
        raise InputError(f"--where: {error}") from None


def folder_of(index: str, command: str) -> Path:
    """The folder of an index, for a command that needs one.

    Raises:
        InputError: it is a URL.
    """
    from jv5kit.errors import InputError
    from jv5kit.stores import is_url, shown

    if is_url(index):
        raise InputError(f"'jv5kit {command}' is for an index in a folder, which {shown(index)} is not")
    return Path(index)


def print_json(value: Any) -> None:
    """Print one line of JSON, in what characters standard output has."""
    print(json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"))


def wanted_rescore(rescore: str | None) -> Rescore | None:
    """What ``--rescore`` asks for, None if it is not there.

    Raises:
        InputError: it is not known.
    """
    from jv5kit.errors import InputError
    from jv5kit.types import RESCORES

    for name in RESCORES:
        if rescore == name:
            return name
    if rescore is not None:
        raise InputError(f"--rescore {rescore} is not known; choose one of {', '.join(RESCORES)}")
    return None
