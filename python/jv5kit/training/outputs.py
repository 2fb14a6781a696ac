"""The folder of a run: whose it is, what in it is done, and files that are there whole or not at all."""

from __future__ import annotations

import json
import shutil
import time
import tomllib
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from jv5kit.errors import InputError
from jv5kit.storage.folder import fsync_path
from jv5kit.training.config import overlay, to_toml
from jv5kit.training.sizes import RunSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from jv5kit.training.rows import Source
    from jv5kit.training.sizes import DataSettings

_SEEN_TRIES, _SEEN_PAUSE = 300, 0.1
"""How often a file that another process has written is looked for, and the seconds from one time to the next."""


def check_folder(settings: RunSettings, folder: Path, *, resume: bool, begin: bool = False) -> None:
    """Find that a run may write to a folder.

    Args:
        settings: of the run.
        folder: the run's.
        resume: go on with the run that is there.
        begin: with ``resume``, begin one where there is none.

    Raises:
        InputError: it has a run and is not to be resumed, or one with other settings; the message names the first that
            differs.
    """
    path = folder / "run.toml"
    if not path.exists():
        if resume and not begin:
            raise InputError(f"{folder} has no run to go on with: leave out --resume")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there already, and holds no run: name another with --output")
        return
    if not resume:
        raise InputError(f"{folder} has a run: go on with it by --resume, or name another folder with --output")
    try:
        before = overlay(RunSettings(), tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if before != settings:
        name, was, now = _first_difference(before, settings)
        raise InputError(
            f"{folder} was begun with {name} = {was!r}, and now it is {now!r}: go on with the same settings "
            f"(--config {path}), or name another folder with --output"
        )


def check_seen(folder: Path) -> None:
    """Refuse a folder that is not on a disk that all processes see, after the first one has described the run in it.

    Raises:
        InputError: this process does not see that.
    """
    # A network may show a new file late.
    for _ in range(_SEEN_TRIES):
        if (folder / "run.toml").exists():
            return
        time.sleep(_SEEN_PAUSE)
    raise InputError(
        f"{folder} has nothing here of what the first process wrote there: name a folder on a disk that all see"
    )


def write_description(settings: RunSettings, sources: Sequence[tuple[DataSettings, Source]], folder: Path) -> None:
    """Write what a run is made of, ``run.toml`` and ``data.json``.

    Raises:
        InputError: it was begun with other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "run.toml", to_toml(settings))
    data = [
        {
            "name": one.name,
            "rows": len(one),
            "fingerprint": one.fingerprint(),
            "licence": given.licence,
            "sets": list(given.sets),
        }
        for given, one in sources
    ]
    before = folder / "data.json"
    if before.exists() and json.loads(before.read_text(encoding="utf-8")) != data:
        raise InputError(f"the data are not those of {before}: a run goes on with what it began with")
    write_text(before, json.dumps(data, indent=1))


def done_phases(folder: Path) -> list[str]:
    """Names of the phases that are done."""
    path = folder / "progress.json"
    if not path.exists():
        return []
    try:
        done: list[str] = json.loads(path.read_text(encoding="utf-8"))["done"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}; remove it to train all phases again") from None
    return done


def put_in_place(run: Path, name: str, write: Callable[[Path], object]) -> None:
    """Write a folder aside, and put it in the place of the one that may be there.

    Args:
        run: the run's folder.
        name: of the folder in it, with slashes.
        write: is given the folder to fill.
    """
    folder, (aside, old) = run / name, _beside(run, name)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    for path in sorted(aside.rglob("*")):
        fsync_path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    aside.rename(folder)
    fsync_path(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def take_back(run: Path, name: str) -> None:
    """Bring back a folder whose replacement was cut off between the two renames."""
    folder, (_, old) = run / name, _beside(run, name)
    if old.exists() and not folder.exists():
        old.rename(folder)


def _beside(run: Path, name: str) -> tuple[Path, Path]:
    """Where the new folder of that name is made, and where the old one is put."""
    plain = name.replace("/", "-")
    return run / f".{plain}.new", run / f".{plain}.old"


def write_text(path: Path, text: str) -> None:
    """Write a file, there whole or not at all."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, encoding="utf-8")
    fsync_path(aside)
    aside.replace(path)
    fsync_path(path.parent)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, there whole or not at all."""
    aside = path.with_name(f".{path.name}")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside)
    fsync_path(aside)
    aside.replace(path)


def _first_difference(before: Any, now: Any, place: str = "") -> tuple[str, object, object]:
    for name in before.__dataclass_fields__:
        was, own = getattr(before, name), getattr(now, name)
        if was != own:
            path = f"{place}.{name}" if place else name
            return _first_difference(was, own, path) if hasattr(was, "__dataclass_fields__") else (path, was, own)
    raise AssertionError("the settings are equal")
