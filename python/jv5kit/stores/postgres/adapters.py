"""How values go to the server and come back: codes as ``bit(n)`` in binary, and metadata as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

if TYPE_CHECKING:
    from psycopg.abc import Buffer


class Code(bytes):
    """A code as a parameter: ``bit(n)`` in binary."""


class CodeDumper(Dumper):
    """Codes for PostgreSQL, which wants the number of bits first."""

    oid = 1560
    format = Format.BINARY

    def dump(self, obj: Code) -> bytes:
        """The value in binary."""
        return (8 * len(obj)).to_bytes(4, "big") + obj


class JsonLoader(Loader):
    """``json``; psycopg's own loader finds out the encoding of each value first, which takes four times as long."""

    format = Format.BINARY
    _decode = staticmethod(json.JSONDecoder().decode)

    def load(self, data: Buffer) -> Any:
        """The value."""
        return self._decode(bytes(data).decode())
