"""The package's log: one logger, which warns on stderr unless the application says otherwise."""

from __future__ import annotations

import logging
import os

from jv5kit.errors import InputError

LEVELS = ("debug", "info", "warning", "error")

logger = logging.getLogger("jv5kit")


def log_to_stderr(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send the log to stderr, as the command line does.

    ``JV5KIT_LOG`` names the least level shown; ``quiet`` (errors only) and ``verbose`` (everything) beat it.

    Raises:
        InputError: ``JV5KIT_LOG`` names no level.
    """
    level = os.environ.get("JV5KIT_LOG", "").lower() or "warning"
    if level not in LEVELS:
        raise InputError(f"JV5KIT_LOG={level} is not a level; choose one of {', '.join(LEVELS)}")
    if quiet or verbose:
        level = "error" if quiet else "debug"
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("jv5kit: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
