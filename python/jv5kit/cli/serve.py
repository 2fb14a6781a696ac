"""``jv5kit serve``: embeddings and search over HTTP."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from jv5kit.cli.options import Model, Quiet, Verbose

_PACKAGES = ("prometheus_client", "starlette", "uvicorn")


def serve(
    model: Model = None,
    index: Annotated[
        str | None,
        typer.Option("--index", "-i", metavar="INDEX", help="A folder or a URL, to search (default: none)."),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="The port; 0 takes a free one.")] = 8000,
    deadline: Annotated[
        float, typer.Option("--deadline", metavar="SECONDS", help="What takes longer is dropped, with status 504.")
    ] = 30,
    queue_tokens: Annotated[
        int, typer.Option("--queue-tokens", metavar="N", help="Tokens that may wait; beyond them comes status 429.")
    ] = 262_144,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", metavar="N", help="Tokens that are encoded together.")
    ] = 4096,
    max_body: Annotated[int, typer.Option("--max-body", metavar="BYTES", help="The longest body.")] = 16 << 20,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve embeddings in OpenAI's shape, and searches of an index, over HTTP.

    POST /v1/embeddings, /v1/search and /v1/map, GET /v1/models, /v1/index, /v1/map, /health, /ready, /metrics and
    /openapi.json; at / is a page to search with. With JV5KIT_API_KEY set, requests must have that key; without it only
    this machine is served.
    """
    from jv5kit.errors import InputError, MissingExtraError
    from jv5kit.logs import log_to_stderr

    log_to_stderr(quiet=quiet, verbose=verbose)
    least = {
        "--deadline": deadline,
        "--queue-tokens": queue_tokens,
        "--batch-tokens": batch_tokens,
        "--max-body": max_body,
    }
    for name, value in least.items():
        if not 0 < value < 1 << 40:
            raise InputError(f"{name} {value}: it must be above 0 and below {1 << 40}")
    if not 0 <= port < 1 << 16:
        raise InputError(f"--port {port} is outside 0..65535")
    key = os.environ.get("JV5KIT_API_KEY")
    if key is not None and not key.strip():
        raise InputError("JV5KIT_API_KEY is empty; put a key into it, or unset it")
    try:
        from jv5kit.server.limits import Limits
        from jv5kit.server.running import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise MissingExtraError(f"serving needs {error.name}: pip install 'jv5kit[server]'") from None
    limits = Limits(queue_tokens, batch_tokens, deadline, max_body)
    run(model, index, host, port, key=key, limits=limits)
