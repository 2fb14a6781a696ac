"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
