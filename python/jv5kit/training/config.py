"""Settings as TOML: defaults of a size, then a file, then flags; and the resolved settings back as a file."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from jv5kit.errors import InputError
from jv5kit.training.sizes import BY_NAME, ONLY_SMALL, PAPER, SIZES, RunSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")

_ABOVE_ZERO = {"batch", "length", "learning_rate", "temperature", "cosent_temperature", "rank", "alpha", "weight"}
_COUNTED = {"pass_tokens", "checkpoint_steps", "evaluate_steps", "log_steps", "sign_dim"}
_SHARES = {"dropout", "warmup", "final"}


def read_toml(path: Path, defaults: RunSettings) -> RunSettings:
    """Settings of a file over others.

    Raises:
        InputError: it cannot be read, or a key or a value in it is wrong; the message has the key and what is allowed.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: the settings cannot be read: {error}") from None
    size = table.get("size", "")
    if size and size != defaults.size and not defaults.size:
        # A file that names its size begins with it.
        defaults = size_named(size, f"{path}: size")
    try:
        return check(overlay(defaults, table))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def size_named(name: object, what: str = "--size") -> RunSettings:
    """The settings of a size.

    Raises:
        InputError: there is no such size.
    """
    if not isinstance(name, str) or name not in BY_NAME:
        raise InputError(f"{what} {name!r} is not known; choose one of {', '.join(SIZES)}")
    return BY_NAME[name]


def overlay(settings: Settings, table: Mapping[str, Any], place: str = "") -> Settings:
    """Settings with those of a table in their place, table in table.

    Raises:
        InputError: a key is not known, or a value is of another type.
    """
    known = {field.name: field for field in fields(settings)}
    changed: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            where = f"in [{place}]" if place else "at the top"
            allowed = ", ".join(_shown(settings, field) for field in known)
            raise InputError(f"the key {key!r} {where} is not known; there are {allowed}")
        path = f"{place}.{name}" if place else name
        changed[name] = _value(_types(type(settings))[name], value, getattr(settings, name), path)
    return replace(settings, **changed)


def check(settings: RunSettings) -> RunSettings:
    """The same settings, found to be possible.

    Raises:
        InputError: a number is out of its range, or settings contradict each other.
    """
    _check_numbers(settings, "")
    student = settings.student
    for name in ("layers", "dims"):
        numbers = getattr(student, name)
        if len(set(numbers)) < len(numbers):
            raise InputError(f"student.{name} = {list(numbers)} has a number twice")
    if any(dim < 1 for dim in student.dims):
        raise InputError(f"student.dims = {list(student.dims)}; a dimension is at least 1")
    if student.dim_weights and len(student.dim_weights) != len(student.dims):
        raise InputError(
            f"student.dim_weights has {len(student.dim_weights)} weights for {len(student.dims)} dimensions in "
            "student.dims"
        )
    for name, phase in (("distill", settings.distill), ("long", settings.long)):
        if not 1 <= phase.cycles <= max(1, phase.steps):
            raise InputError(
                f"{name}.cycles = {phase.cycles}; of {phase.steps} steps there are 1 to {max(1, phase.steps)}"
            )
    if len(settings.optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in settings.optimizer.betas):
        raise InputError(f"optimizer.betas = {list(settings.optimizer.betas)}; AdamW has two, in [0, 1)")
    return settings


def to_toml(settings: RunSettings, *, marked: bool = False) -> str:
    """Settings as TOML, each with what it is.

    Args:
        settings: a run's.
        marked: say beside each value whether the paper states it or we chose it.
    """
    lines = _lines(settings, "", settings if marked else None)
    return "\n".join(lines) + "\n"


def _lines(settings: Any, place: str, marked: RunSettings | None) -> list[str]:
    lines: list[str] = []
    tables: list[tuple[str, Any]] = []
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if is_dataclass(value) or (entry.name == "data" and not place):
            tables.append((entry.name, value))
            continue
        path = f"{place}.{entry.name}" if place else entry.name
        note = entry.metadata.get("says", "")
        if marked is not None and place:
            source = "paper" if _in_paper(path, value, marked) else "chosen"
            note = f"{source}; {note}"
        lines.append(f"{f'{entry.name} = {_literal(value)}':<55} # {note}")
    for name, value in tables:
        shown = name.replace("_", "-")
        for one in value if isinstance(value, tuple) else [value]:
            heading = f"[[{shown}]]" if isinstance(value, tuple) else f"[{shown}]"
            lines += ["", heading, *_lines(one, name, marked)]
    return lines


def _in_paper(path: str, value: object, settings: RunSettings) -> bool:
    """Whether the paper states a value: of small and nano, as long as it is what their size has."""
    if settings.size not in ("small", "nano") or path not in PAPER or (settings.size != "small" and path in ONLY_SMALL):
        return False
    table, _, name = path.partition(".")
    return bool(getattr(getattr(BY_NAME[settings.size], table), name) == value)


def _literal(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case str():
            # What JSON escapes TOML does too.
            return json.dumps(value, ensure_ascii=False)
        case tuple():
            return f"[{', '.join(map(_literal, value))}]"
        case _:
            return str(value)


def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _shown(settings: object, name: str) -> str:
    return name.replace("_", "-") if is_dataclass(getattr(settings, name)) else name


def _value(kind: Any, value: object, before: Any, path: str) -> Any:
    """A value of TOML as one of a field."""
    if is_dataclass(before) and not isinstance(before, type):
        if not isinstance(value, dict):
            raise InputError(f"{path} = {value!r} must be a table: [{path.replace('_', '-')}]")
        return overlay(before, value, path)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if not isinstance(value, list):
            raise InputError(f"{path} = {value!r} must be a list")
        if is_dataclass(inner):
            return tuple(_made(inner, one, f"{path}[{i}]") for i, one in enumerate(value))
        return tuple(_value(inner, one, None, f"{path}[{i}]") for i, one in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{path} = {value!r} is not known; choose one of {', '.join(map(str, get_args(kind)))}")
        return value
    assert not isinstance(kind, UnionType)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
        raise InputError(f"{path} = {value!r} must be {names[kind]}")
    return value


def _made(kind: Any, table: object, path: str) -> Any:
    """A dataclass of a table that has at least what has no default."""
    if not isinstance(table, dict):
        raise InputError(f"{path} = {table!r} must be a table")
    needed = {entry.name for entry in fields(kind) if _is_needed(entry)}
    if missing := needed - table.keys():
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}")
    start = kind(**dict.fromkeys(needed, ""))
    return overlay(start, table, path)


def _is_needed(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _check_numbers(settings: Any, place: str) -> None:
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        path = f"{place}.{entry.name}" if place else entry.name
        for i, one in enumerate(value if isinstance(value, tuple) else (value,)):
            if is_dataclass(one):
                _check_numbers(one, f"{path}[{i}]" if isinstance(value, tuple) else path)
            elif isinstance(one, int | float):
                _check_number(entry.name, path, one, optional=place.startswith(("data", "teacher")))


def _check_number(name: str, path: str, value: float, *, optional: bool) -> None:
    if not math.isfinite(value):
        raise InputError(f"{path} = {value} must be a finite number")
    if value < 0:
        raise InputError(f"{path} = {value} must not be below 0")
    if name in _COUNTED | (_ABOVE_ZERO - ({"batch", "length"} if optional else set())) and value == 0:
        raise InputError(f"{path} = {value} must be above 0")
    if name in _SHARES and not 0 <= value <= 1 - (name == "dropout") * 1e-9:
        raise InputError(f"{path} = {value} must be in [0, 1{')' if name == 'dropout' else ']'}")


def with_data(settings: RunSettings, paths: Sequence[str]) -> RunSettings:
    """Settings with other data."""
    return check(overlay(settings, {"data": [{"path": path} for path in paths]}))
