"""Options that several commands share, and what they mean together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jv5kit.types import Precision

Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="A folder or a hub id (default: JV5KIT_MODEL, else the default model)."
    ),
]
Dim = Annotated[int | None, typer.Option("--dim", metavar="N", help="Keep the first N dimensions (default: all).")]
Binary = Annotated[bool, typer.Option("--binary", help="Short for --precision ubinary.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no warnings.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Everything that is logged.")]
Documents = Annotated[
    Path | None,
    typer.Argument(metavar="DOCUMENTS", help="JSON Lines, .gz or not; - is standard input.", show_default=False),
]


def wanted_precision(precision: str | None, *, binary: bool) -> Precision | None:
    """The precision that ``--precision`` and ``--binary`` ask for, None if neither does.

    Raises:
        InputError: they contradict each other, or the precision is not known.
    """
    from jv5kit.errors import InputError
    from jv5kit.types import PRECISIONS

    if binary and precision not in (None, "ubinary"):
        raise InputError(f"--binary is --precision ubinary; it contradicts --precision {precision}")
    if binary:
        return "ubinary"
    for known in PRECISIONS:
        if precision == known:
            return known
    if precision is not None:
        raise InputError(f"--precision {precision} is not known; choose one of {', '.join(PRECISIONS)}")
    return None
