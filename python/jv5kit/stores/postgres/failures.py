"""What PostgreSQL and libpq report, as our errors: what was wrong, where, and what to do. No password is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import errors

from jv5kit.errors import InputError, Jv5kitError

if TYPE_CHECKING:
    import psycopg

_ADVICE: dict[type[psycopg.Error], tuple[type[Jv5kitError], str]] = {
    errors.DiskFull: (Jv5kitError, "make room on the server's disk; nothing of this batch is there"),
    errors.InsufficientPrivilege: (InputError, "let an owner of the database grant it, or name another user"),
    errors.ReadOnlySqlTransaction: (
        InputError,
        "this server only reads, as a standby does: name the primary, or several hosts and "
        "target_session_attrs=read-write",
    ),
    errors.QueryCanceled: (Jv5kitError, "raise the server's statement_timeout, or try again"),
    errors.TooManyConnections: (Jv5kitError, "raise the server's max_connections, or try again later"),
    errors.OutOfMemory: (Jv5kitError, "give the server more memory, or try again later"),
}

# Connecting fails without a code, only with a text.
_REFUSED = {
    "authentication failed": "check the user and the password (PGPASSWORD, a passfile, or the URL)",
    "no password supplied": "give the password (PGPASSWORD, a passfile, or the URL)",
    "no pg_hba.conf entry": "the server's pg_hba.conf must let this user in from here",
    'database "': "make it with 'createdb', or name another one",
    'role "': "name a user that the server has",
}

_AWAY = ("57P01", "57P02", "57P03")
"""The server is shutting down, has crashed, or is starting."""


class LostError(Jv5kitError):
    """The server cannot be reached, though it could be before."""


def is_lost(error: psycopg.Error, connection: psycopg.Connection | None) -> bool:
    """Whether it was not the question that failed, but the server or the way to it."""
    if not isinstance(error, errors.OperationalError | errors.InterfaceError):
        return False
    return connection is None or connection.closed or error.sqlstate in _AWAY


def is_refused(error: psycopg.Error) -> bool:
    """Whether a server was there and would not let this user in, however often it tries."""
    return any(sign in str(error) for sign in _REFUSED)


def cannot_connect(error: psycopg.Error, name: str) -> Jv5kitError:
    """The error of a connection that could not be made."""
    text = " ".join(str(error).split())
    if is_refused(error):
        advice = next(advice for sign, advice in _REFUSED.items() if sign in text)
        return InputError(f"cannot open {name}: {text}; {advice}")
    return LostError(
        f"cannot reach {name}: {text}; check the host and the port, and that the server runs and listens there"
    )


def failure(error: psycopg.Error, name: str) -> Jv5kitError:
    """The error of a statement that failed."""
    text = error.diag.message_primary or " ".join(str(error).split())
    for kind, (ours, advice) in _ADVICE.items():
        if isinstance(error, kind):
            return ours(f"{name}: {text}; {advice}")
    return Jv5kitError(f"{name}: {text}" + (f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""))
