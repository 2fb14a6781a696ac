"""The URL of an index: what libpq takes, and the name of the index among those of the database.

``postgresql://USER@HOST:PORT/DATABASE?index=NAME``. ``index`` is ours, by default ``jv5kit``; everything else is
libpq's and goes there as it is: several hosts (``HOST1,HOST2``) with ``target_session_attrs=read-write``, ``sslmode``,
``passfile``, ``options``, and what is left out comes from libpq's variables (``PGHOST``, ``PGPASSWORD`` …). A password
is best left to ``PGPASSWORD`` or a passfile: other users of the machine see a command's arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from jv5kit.errors import InputError
from jv5kit.stores import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_INDEX = "jv5kit"

PORT = 5432

_INDEX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,62}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where an index is.

    Attributes:
        index: its name in the database.
        name: the URL as messages have it: user, host, port, database and index, no password.
        conninfo: what libpq takes.
    """

    index: str
    name: str
    conninfo: str = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """The address that a URL names.

        Raises:
            InputError: it is no URL that PostgreSQL takes, or the name of the index will not do.
        """
        scheme, _, rest = url.partition("://")
        # To libpq it is one in small letters only.
        conninfo, names = _without_index(f"{scheme.lower()}://{rest}")
        if len(names) > 1:
            raise InputError(f"{shown(url)} names an index more than once; leave one index=NAME")
        index = names[0] if names else DEFAULT_INDEX
        if not _INDEX.fullmatch(index):
            raise InputError(
                f"index={index!r:.80} is no name of an index: it has letters, digits, '_', '.' and '-', 63 at most"
            )
        _check_ports(conninfo)
        try:
            parameters = conninfo_to_dict(conninfo)
        except psycopg.Error as error:
            reason = _scrubbed(" ".join(str(error).split()), conninfo)
            raise InputError(f"{shown(url)} is no URL that PostgreSQL takes: {reason}") from None
        return cls(index, _name(parameters, index), conninfo)


def _split(url: str) -> tuple[str, str]:
    """A URL up to the host, user and password among it, and the rest: as libpq finds them."""
    found = re.match(r"[a-z]+://(?:[^@/]*@)?", url, re.IGNORECASE)
    end = found.end() if found else 0
    return url[:end], url[end:]


def _without_index(url: str) -> tuple[str, list[str]]:
    """The URL without our own parameter, and the values of that."""
    before, rest = _split(url)
    place, _, query = rest.partition("?")
    parameters = query.split("&") if query else []
    names = [unquote(one.partition("=")[2]) for one in parameters if one.partition("=")[0] == "index"]
    kept = "&".join(one for one in parameters if one.partition("=")[0] != "index")
    return before + place + (f"?{kept}" if kept else ""), names


def _check_ports(url: str) -> None:
    """Refuse what libpq would take for a port and name in its error: mostly the rest of a password."""
    rest = _split(url)[1]
    hosts = re.split(r"[/?]", rest, maxsplit=1)[0]
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",")]
    # An @ behind the host, too, is mostly one of a password.
    if "@" in rest.partition("?")[0] or not all(port == "" or port.isdecimal() for port in ports):
        raise InputError(
            f"{shown(url)} has no number as its port; in a password write @ as %40, : as %3A, / as %2F, ? as %3F"
        )


def _scrubbed(text: str, url: str) -> str:
    """What libpq says of a URL, without the passwords in it."""
    user = _split(url)[0].partition("://")[2].removesuffix("@")
    secrets = [user.partition(":")[2], *re.findall(r"[a-z]*password=([^&]*)", url, re.IGNORECASE)]
    for secret in secrets:
        for form in (secret, unquote(secret)):
            text = text.replace(form, "…") if form else text
    return text


def _name(parameters: Mapping[str, object], index: str) -> str:
    """The URL of an address, with libpq's own values for what was left out."""
    known = {option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()}
    known |= {name: str(value) for name, value in parameters.items()}
    hosts = (known["host"] or known["hostaddr"] or "localhost").split(",")
    ports = [port or str(PORT) for port in known["port"].split(",")]
    # One port may be that of all hosts.
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(
        f"{quote(host, safe=':[]')}:{port}" if ":" not in host else f"[{host.strip('[]')}]:{port}"
        for host, port in zip(hosts, ports, strict=False)
    )
    user, database = quote(known["user"], safe=""), quote(known["dbname"] or known["user"], safe="")
    return f"postgresql://{user}@{places}/{database}?index={index}"
