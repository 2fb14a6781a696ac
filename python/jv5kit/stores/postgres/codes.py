"""Codes as PostgreSQL has them: ``bit(n)``, in binary."""

from __future__ import annotations

from psycopg.adapt import Dumper
from psycopg.pq import Format


class Code(bytes):
    """A code as a parameter: ``bit(n)`` in binary."""


class CodeDumper(Dumper):
    """Codes for PostgreSQL, which wants the number of bits first."""

    oid = 1560
    format = Format.BINARY

    def dump(self, obj: Code) -> bytes:
        """The value in binary."""
        return (8 * len(obj)).to_bytes(4, "big") + obj
