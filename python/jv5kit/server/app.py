"""The routes: what is refused, how long an answer may take, and what becomes of a client that went away."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from jv5kit.errors import IndexNotFoundError, InputError, Jv5kitError, ModelNotFoundError
from jv5kit.logs import logger
from jv5kit.server import page
from jv5kit.server.errors import ApiError, bad_request, shown, too_late
from jv5kit.server.limits import check_key
from jv5kit.server.metrics import CONTENT_TYPE
from jv5kit.server.openapi import description
from jv5kit.server.service import to_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from jv5kit.server.service import Service

    Endpoint = Callable[[Request], Awaitable[Response]]
    Answer = Callable[[bytes, float], Awaitable[bytes]]

CLIENT_GONE = 499
"""What is counted for a client that went away; nobody gets it."""


def create_app(service: Service, key: str | None = None) -> Counted:
    """The server as an ASGI application.

    Args:
        service: answers.
        key: the API key that requests must have, or None if they need none.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    def open_to_all(endpoint: Endpoint) -> Endpoint:
        return _told(endpoint)

    def with_key(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            check_key(request, key)
            return await endpoint(request)

        return _told(checked)

    async def health(_: Request) -> Response:
        return _json(to_json({"status": "ok"}))

    async def ready(_: Request) -> Response:
        if service.draining:
            return _json(to_json({"status": "draining"}), 503)
        return _json(to_json({"status": "ready"}))

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def models(_: Request) -> Response:
        return _json(to_json({"object": "list", "data": [service.about_model()]}))

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name != service.model:
            message = f"the model {shown(name)} is not here; this server has {service.model!r}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return _json(to_json(service.about_model()))

    async def index(_: Request) -> Response:
        return _json(await service.about_index())

    async def where_sampled(_: Request) -> Response:
        return _json(to_json(await service.map.facts()))

    async def where_placed(body: bytes, _: float) -> bytes:
        return to_json(await service.map.place(body))

    async def points(request: Request) -> Response:
        return await (placing if request.method == "POST" else where_sampled)(request)

    placing = _worked(service, where_placed)

    openapi = to_json(description(service.model, key is not None))

    async def describe(_: Request) -> Response:
        return _json(openapi)

    async def home(_: Request) -> Response:
        return Response(page.content(), headers=page.headers())

    routes = [
        Route("/", open_to_all(home)),
        Route("/health", open_to_all(health)),
        Route("/ready", open_to_all(ready)),
        Route("/metrics", with_key(metrics)),
        Route("/openapi.json", open_to_all(describe)),
        Route("/v1/models", with_key(models)),
        Route("/v1/models/{name:path}", with_key(model)),
        Route("/v1/index", with_key(index)),
        Route("/v1/map", with_key(points), methods=["GET", "POST"]),
        Route("/v1/embeddings", with_key(_worked(service, service.embeddings)), methods=["POST"]),
        Route("/v1/search", with_key(_worked(service, service.search)), methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_route})
    return Counted(app, service, {route.path for route in routes})


def _worked(service: Service, answer: Answer) -> Endpoint:
    """An endpoint that reads a body and answers it by the deadline, unless its client goes away."""

    async def endpoint(request: Request) -> Response:
        deadline = time.monotonic() + service.limits.deadline
        with service.admission.enter() as admitted:
            body = await admitted.read_body(request)
            answering = asyncio.ensure_future(answer(body, deadline))
            leaving = asyncio.ensure_future(_left(request))
            try:
                await asyncio.wait(
                    {answering, leaving}, timeout=deadline - time.monotonic(), return_when=asyncio.FIRST_COMPLETED
                )
                if answering.done():
                    return _json(answering.result())
                if leaving.done():
                    return Response(status_code=CLIENT_GONE)
                raise too_late(service.limits.deadline)
            finally:
                # Cancelling drops what waits in the queue.
                for task in (answering, leaving):
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task

    return endpoint


async def _left(request: Request) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


def _told(endpoint: Endpoint) -> Endpoint:
    """An endpoint whose client is told what was wrong, whatever it is, in the shape of OpenAI's errors."""

    async def told(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        except Exception as error:
            return _error(error)

    return told


def _error(error: Exception) -> Response:
    known = _as_api_error(error)
    response = _json(to_json(known.body()), known.status)
    response.headers.update(known.headers)
    return response


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError) and not isinstance(error, ModelNotFoundError | IndexNotFoundError):
        return bad_request(str(error))
    if isinstance(error, RecursionError):
        return bad_request("the body is nested too deeply")
    if isinstance(error, Jv5kitError):
        # The model or the index went bad under the server; what to do is in the message.
        logger.error("%s", error)
        return ApiError(503, str(error), code="unavailable")
    logger.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed; its log says why", code="internal_error")


async def _no_route(request: Request, error: Exception) -> Response:
    """The answer where there is no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        message = (
            f"{request.method} {path[:80]} is not possible; use {(error.headers or {}).get('Allow', 'another method')}"
        )
    else:
        message = f"there is nothing at {path[:80]}; GET /openapi.json has what there is"
    return _error(ApiError(error.status_code, message, headers=dict(error.headers or {})))


class Counted:
    """An application whose requests are counted by route and code, with how long they took.

    Attributes:
        paths: of its routes.
    """

    def __init__(self, app: ASGIApp, service: Service, paths: set[str]) -> None:
        self._app = app
        self._service = service
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        code = CLIENT_GONE

        async def counted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            # Paths that are no routes are one: a client could make up any number of them.
            route = scope["path"] if scope["path"] in self.paths else "other"
            self._service.metrics.requests.labels(route, str(code)).inc()
            self._service.metrics.seconds.labels(route).observe(time.perf_counter() - began)
