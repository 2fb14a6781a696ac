"""The page at ``/``: one static file, under a policy that lets it run nothing but what is in it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).with_name("page.html")


@cache
def content() -> bytes:
    """The page."""
    return PAGE.read_bytes()


@cache
def headers() -> dict[str, str]:
    """The headers that it is sent with."""
    policy = {
        "default-src": "'none'",
        "script-src": _hashes("script"),
        "style-src": _hashes("style"),
        "connect-src": "'self'",
        # Its icon, which is in it too.
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def _hashes(tag: str) -> str:
    """What the policy allows of the page's own elements of a kind: those with just these contents."""
    texts = re.findall(rb"<%s>(.*?)</%s>" % (tag.encode(), tag.encode()), content(), re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
