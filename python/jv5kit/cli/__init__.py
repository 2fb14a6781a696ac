"""The command line: one command a file, each loading what it needs when it runs.

Data goes to stdout, talk and progress to stderr. Exit status: 0 done, 1 failed, 2 wrong usage or bad input, 130
interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from jv5kit.cli import compact, delete, encode, eval, export, get, index, info, mine, publish, search, serve, train
from jv5kit.cli.options import RayCommand
from jv5kit.errors import InputError, Jv5kitError

app = typer.Typer(
    name="jv5kit",
    help="Text embeddings all the way into a fast index.",
    no_args_is_help=True,
    add_completion=False,
    # Plain text: brackets in a help text would be taken for markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=RayCommand)(index.index)
app.command()(search.search)
app.command()(get.get)
app.command()(delete.delete)
app.command()(compact.compact)
app.command()(export.export)
app.command()(mine.mine)
app.command(cls=RayCommand)(encode.encode)
app.command("eval")(eval.evaluate)
app.command()(train.train)
app.command()(serve.serve)
app.command(cls=RayCommand)(publish.publish)
app.command()(info.info)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        import jv5kit

        print(f"jv5kit {jv5kit.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; every error of ours is one line on stderr."""
    _prepare_streams()
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Jv5kitError as error:
        _fail(str(error), 2 if isinstance(error, InputError) else 1)
    except OSError as error:
        # What no command foresaw: a name too long for a file, a folder without permission, a full disk.
        _fail(str(error), 1)


def _prepare_streams() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Python has None for what the caller closed; no file of ours may take its number. The stand-in stays open as
        # long as the process runs, as the stream itself would.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a character shows its number instead.
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail(message: str, status: int) -> None:
    print(f"jv5kit: {message}", file=sys.stderr)
    sys.exit(status)
