"""The fields of a request: their names and aliases, and the values that they take.

One table serves the parser and the OpenAPI description, so that neither says what the other does not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jv5kit.server.errors import bad_request, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
"""The types of JSON, as Python reads them."""

ARTICLES = {"integer": "a whole number", "array": "a list", "object": "an object"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request.

    Attributes:
        name: of the field.
        types: that a value may have; null, which is as if it were not there, comes on top.
        description: for the OpenAPI document.
        aliases: other names.
        values: that it takes, if it does not take all.
        items: the schema of a list's items.
    """

    name: str
    types: tuple[str, ...]
    description: str
    aliases: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    items: Mapping[str, Any] = field(default_factory=dict)

    def check(self, given: str, value: Any) -> None:
        """Refuse a value of another type, or another value, under the name that it was given.

        Raises:
            ApiError: 400.
        """
        # To Python true is a number; to a client it is not.
        kind = bool if isinstance(value, bool) else type(value)
        if not any(kind in TYPES[name] for name in self.types):
            wanted = " or ".join(ARTICLES.get(name, f"a {name}") for name in self.types)
            raise bad_request(f"{given} is {shown(value)}; it must be {wanted}", given)
        if self.values and isinstance(value, str) and value not in self.values:
            raise bad_request(f"{given} is {shown(value)}; choose one of {', '.join(self.values)}", given)

    def schema(self) -> dict[str, Any]:
        """The field in the OpenAPI document."""
        kinds: list[dict[str, Any]] = []
        for name in self.types:
            kind: dict[str, Any] = {"type": name}
            if name == "array" and self.items:
                kind["items"] = dict(self.items)
            if name == "string" and self.values:
                kind["enum"] = list(self.values)
            kinds.append(kind)
        description = self.description + (f" Also called {', '.join(self.aliases)}." if self.aliases else "")
        return (kinds[0] if len(kinds) == 1 else {"anyOf": kinds}) | {"description": description}


def read_json(body: bytes) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        ApiError: 400, it holds none.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8, from byte {error.start} on", code="invalid_json") from None
    except RecursionError:
        raise bad_request("the body is not usable: its JSON is nested too deeply", code="invalid_json") from None
    except ValueError as error:
        raise bad_request(f"the body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise bad_request(f"the body is {shown(value)}; it must be a JSON object", code="invalid_json")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def read_fields(given: Mapping[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    """The values of the fields that are there and not null, by the fields' own names.

    Raises:
        ApiError: 400, a field is not known, is there under two names, or has a wrong value.
    """
    of_name = {name: one for one in fields for name in (one.name, *one.aliases)}
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in given.items():
        if name not in of_name:
            raise bad_request(
                f"the field {shown(name)} is not known; there are {', '.join(one.name for one in fields)}", name[:80]
            )
        if value is None:
            continue
        one = of_name[name]
        if one.name in names:
            raise bad_request(f"{names[one.name]} and {name} are two names of one field; send one of them", name)
        one.check(name, value)
        names[one.name] = name
        values[one.name] = value
    return values


def check_text(name: str, value: Any) -> str:
    """A text that can be encoded.

    Raises:
        ApiError: 400, it is something else, empty, or not Unicode.
    """
    if not isinstance(value, str):
        raise bad_request(f"{name} is {shown(value)}; it must be a string", name)
    if not value.strip():
        raise bad_request(f"{name} is empty; it must have a character that is no space", name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad_request(f"{name} has half of a surrogate pair, which is no character", name) from None
    return value
