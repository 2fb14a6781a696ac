"""The server as a process: its socket, its signals, and its end."""

from __future__ import annotations

import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from jv5kit.encoder import Encoder
from jv5kit.errors import InputError, Jv5kitError
from jv5kit.retrieval import open_index
from jv5kit.server.app import create_app
from jv5kit.server.limits import is_loopback
from jv5kit.server.service import Service
from jv5kit.stores import is_url

if TYPE_CHECKING:
    from types import FrameType

    from jv5kit.server.limits import Limits

GRACE = 5
"""Seconds beyond the deadline that answers under way have when the server ends."""


class _Server(uvicorn.Server):
    """A server that says it is draining from the signal on."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.draining = True
        super().handle_exit(sig, frame)


def run(model: str | None, index: str | None, host: str, port: int, *, key: str | None = None, limits: Limits) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what was taken on.

    Args:
        model: a folder or a hub id; by default that of the index, else the default model.
        index: to search, if any.
        host: an address of this machine.
        port: of TCP; 0 takes a free one.
        key: the API key; beyond this machine's own loopback there must be one.
        limits: what is taken on.

    Raises:
        InputError: there is no key where one is needed, or nothing can listen there; or of the index or the model.
    """
    if key is None and not is_loopback(host):
        raise InputError(
            f"--host {host} can be reached from other machines, so there must be an API key: "
            "put one into JV5KIT_API_KEY, or serve on 127.0.0.1"
        )
    # Also while the model loads. What uvicorn does instead, it ends by raising the signal again, which comes here.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with listen(host, port) as listening:
        service = load(model, index, limits)
        config = uvicorn.Config(
            create_app(service, key),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(limits.deadline) + GRACE,
            lifespan="on",
        )
        searched = ""
        if index is not None and service.index is not None:
            name = service.index.name if is_url(index) else index
            searched = f", index {name}: {len(service.index):,} documents"
        named = f"[{host}]" if ":" in host else host
        print(
            f"serving {service.model} at http://{named}:{listening.getsockname()[1]}{searched}",
            file=sys.stderr,
            flush=True,
        )
        _Server(config, service).run([listening])


def load(model: str | None, index: str | None, limits: Limits) -> Service:
    """Load the model and open the index.

    Raises:
        ModelNotFoundError: the model is not to be had, or the index was built with another one.
        InputError: the index was built from given embeddings.
        IndexNotFoundError: there is no index at the path.
    """
    if index is None:
        return Service(Encoder.from_pretrained(model), None, limits)
    opened = open_index(index)
    if model is not None:
        opened.use_encoder(model)
    return Service(opened.encoder, opened, limits)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        Jv5kitError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # asyncio sends at once (TCP_NODELAY) where a socket says that it is one of TCP, and this one says 0. Else an
        # answer waits 40 ms, until the client has acknowledged its first part.
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, listening.detach())
    except OSError as error:
        raise Jv5kitError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another --host or --port"
        ) from None
