"""The manifest of a job: what its folder is made of, so that the same job is gone on with, and no other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jv5kit.errors import InputError
from jv5kit.storage.folder import new_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST = "manifest.json"

FORMAT = 1

_WHEREVER = "model"
"""What may differ: a model that was moved has its fingerprint still."""


def write_manifest(path: Path, facts: Mapping[str, Any]) -> None:
    """Write what a job is made of."""
    with new_file(path) as file:
        file.write(json.dumps({"format": FORMAT} | dict(facts), indent=1, ensure_ascii=False).encode() + b"\n")


def read_manifest(path: Path) -> dict[str, Any]:
    """What a job is made of.

    Raises:
        InputError: there is no manifest, or it cannot be read.
    """
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path.parent} has no {path.name} of jv5kit: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; begin again with --force") from None
    if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
        raise InputError(f"{path} has a format that this jv5kit does not read: pip install --upgrade jv5kit")
    return facts


def goes_on(path: Path, facts: Mapping[str, Any], *, force: bool) -> bool:
    """Whether what is there was begun with the same facts; with ``force``, what is of others may be replaced.

    Raises:
        InputError: it was begun with others; the message names the first.
    """
    if not path.exists():
        return False
    try:
        there = read_manifest(path)
    except InputError:
        if force:
            return False
        raise
    differing = [name for name in facts if name != _WHEREVER and there.get(name) != facts[name]]
    if differing and not force:
        name = differing[0]
        raise InputError(
            f"{path.parent} was begun with {name} {there.get(name)!r}, not {facts[name]!r}: go on with the same, name "
            "another folder, or replace it with --force"
        )
    return not differing
