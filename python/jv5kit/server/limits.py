"""What a client may do: bytes of a body, requests and bytes at a time, and only with the key."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from jv5kit.server.errors import ApiError, overloaded

if TYPE_CHECKING:
    from starlette.requests import Request

BODIES_HELD = 4
"""Bodies of the largest size that are held in memory together, before more are refused."""

BODIES_READ = 4
"""Bodies of the largest size that are read of one that is longer, before the connection is closed on its sender."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes on.

    Attributes:
        queue_tokens: tokens that may wait to be encoded.
        batch_tokens: tokens that are encoded together.
        deadline: seconds from the first byte of a request to its answer.
        body_bytes: of a request.
        requests: being answered at a time.
    """

    queue_tokens: int = 262_144
    batch_tokens: int = 4096
    deadline: float = 30
    body_bytes: int = 16 << 20
    requests: int = 256


class Admission:
    """Counts the requests that are being answered, and the bytes of their bodies; what is too much is refused.

    It is used by one thread, that of the loop.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        self.body_bytes = 0

    def enter(self) -> Admitted:
        """Let a request in; use what this gives as a context manager.

        Raises:
            ApiError: 429, there are too many.
        """
        if self.requests >= self._limits.requests:
            raise overloaded(f"{self.requests} requests are being answered, which is as many as this server takes", 1)
        return Admitted(self, self._limits)


class Admitted:
    """One request that was let in."""

    def __init__(self, admission: Admission, limits: Limits) -> None:
        self._admission = admission
        self._limits = limits
        self._bytes = 0

    def __enter__(self) -> Self:
        """It counts from here."""
        self._admission.requests += 1
        return self

    def __exit__(self, *_: object) -> None:
        """It is answered."""
        self._admission.requests -= 1
        self._admission.body_bytes -= self._bytes

    async def read_body(self, request: Request) -> bytes:
        """The body, its bytes counted while they come.

        Raises:
            ApiError: 413, it is too long; 429, those of all requests are; 408, it did not come in time.
        """
        most = self._limits.body_bytes
        declared = request.headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
        problem = _too_long(most) if length > most else None
        if length > BODIES_READ * most:
            raise _too_long(most)
        try:
            async with asyncio.timeout(self._limits.deadline):
                return await self._read(request, problem)
        except TimeoutError:
            raise ApiError(
                408, f"the body did not come within {self._limits.deadline:g} s", code="request_timeout"
            ) from None

    async def _read(self, request: Request, problem: ApiError | None) -> bytes:
        """The body; of one that is refused the rest is read too, for else its sender might not see the answer."""
        most, chunks, seen = self._limits.body_bytes, [], 0
        async for chunk in request.stream():
            seen += len(chunk)
            if problem is None:
                chunks.append(chunk)
                self._bytes += len(chunk)
                self._admission.body_bytes += len(chunk)
                if self._bytes > most:
                    problem = _too_long(most)
                elif self._admission.body_bytes > BODIES_HELD * most:
                    problem = overloaded(f"requests of {self._admission.body_bytes:,} bytes are being answered", 1)
            if problem is not None:
                chunks.clear()
                if seen > BODIES_READ * most:
                    break
        if problem is not None:
            raise problem
        return b"".join(chunks)


def _too_long(most: int) -> ApiError:
    return ApiError(
        413,
        f"the body is longer than {most:,} bytes, the most that this server takes; send fewer texts at a time",
        code="request_too_large",
    )


def check_key(request: Request, key: str | None) -> None:
    """Refuse a request that does not have the key of the server, if there is one.

    Raises:
        ApiError: 401.
    """
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # In constant time, so that how long a refusal takes does not tell how much of a guess was right.
    # The bytes of a header are read as Latin-1, whatever they are.
    right = hmac.compare_digest(given.strip().encode("latin-1"), key.encode())
    if scheme.lower() != "bearer" or not right:
        problem = "the API key is not that of this server" if given else "there is no API key"
        raise ApiError(
            401,
            f"{problem}; send the header 'Authorization: Bearer KEY'",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def is_loopback(host: str) -> bool:
    """Whether what listens at a host can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
