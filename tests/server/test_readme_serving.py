"""What the README shows of the server is what it answers."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import httpx
from serving import running
from test_readme import BIRDS, README

from jv5kit import Encoder, Index
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def shown() -> Iterator[tuple[str, str, str]]:
    """The path, the body and the answer of each request."""
    block = README.split("<!-- serve -->")[1].split("```")[1]
    parts = re.split(r"^> curl http://localhost:8000(.*)\n", block, flags=re.MULTILINE)
    for command, answer in zip(parts[1::2], parts[2::2], strict=True):
        path, *rest = shlex.split(command)
        yield path, rest[1] if rest else "", answer.strip()


def test_its_requests_are_answered_as_it_shows(tmp_path: Path) -> None:
    """But for the digits of numbers, which are not the same everywhere."""
    encoder = Encoder.from_pretrained("pico", device="cpu")
    index = Index.build(tmp_path / "birds.jv5", BIRDS, encoder, lexical=True)
    number = re.compile(r"-?\d[\d.e-]*")
    paths = []
    with running(Service(encoder, index)) as url:
        for path, body, answer in shown():
            response = httpx.post(url + path, content=body) if body else httpx.get(url + path)
            assert number.sub("#", response.text) == number.sub("#", answer), path
            paths.append(path)
    assert set(paths) == {"/v1/embeddings", "/v1/search", "/v1/index"}
