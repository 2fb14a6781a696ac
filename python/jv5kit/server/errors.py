"""What a client is told when something is wrong, in the shape of OpenAI's errors."""

from __future__ import annotations

import math
from typing import Any


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        message: what was wrong, with the value, and what to do.
        param: the field of the request that it is about.
        code: a word for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}

    @property
    def kind(self) -> str:
        """The type, as OpenAI names it."""
        if self.status == 401:
            return "authentication_error"
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> dict[str, Any]:
        """The answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, *, code: str | None = None, status: int = 400) -> ApiError:
    """The error of a request that the client can mend."""
    return ApiError(status, message, param=param, code=code)


def overloaded(message: str, seconds: float) -> ApiError:
    """The error of a request that finds the server busy, with the seconds after which it may come again."""
    wait = max(1, math.ceil(seconds))
    return ApiError(
        429,
        f"{message}; try again in {wait} s",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(wait)},
    )


def too_late(seconds: float) -> ApiError:
    """The error of a request that was not done by its deadline."""
    return ApiError(
        504,
        f"the request was not done within {seconds:g} s and was dropped; send fewer texts at a time",
        code="deadline_exceeded",
    )


def shown(value: Any) -> str:
    """A value as a message shows it: not longer than a few words."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested too deeply to show"
    return text if len(text) <= 80 else text[:79] + "…"
