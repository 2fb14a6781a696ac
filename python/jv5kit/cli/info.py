"""``jv5kit info``: versions, this machine, the default model, an index."""

from __future__ import annotations

import json as json_lines
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from jv5kit.cli.options import Json, Model


def info(
    index: Annotated[Path | None, typer.Argument(metavar="INDEX", help="An index.", show_default=False)] = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Say what is installed, which kernels run on this machine and why, and what an index holds."""
    facts = _machine(model) | (_index(index) if index is not None else {})
    if json:
        print(json_lines.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value:,}" if isinstance(value, int) else f"{name:{width}}  {value}")


def _machine(model: str | None) -> dict[str, Any]:
    from jv5kit import _native
    from jv5kit.errors import ModelNotFoundError
    from jv5kit.pretrained import load_checkpoint
    from jv5kit.storage.connection import FORMAT

    tier, forced, tiers = _native.simd_tier()
    why = "forced by JV5KIT_SIMD" if forced else "the fastest that this processor has"
    facts = {
        "jv5kit": version("jv5kit"),
        "format": FORMAT,
        "simd": tier,
        "simd_why": f"{why}, of {', '.join(tiers)}",
        "torch": _version_of("torch"),
        "transformers": _version_of("transformers"),
    }
    try:
        checkpoint = load_checkpoint(model)
    except ModelNotFoundError as error:
        if model is not None:
            raise
        return facts | {"model": f"none: {error}"}
    return facts | {
        "model": checkpoint.name,
        "model_dim": checkpoint.dim,
        "model_max_tokens": checkpoint.max_tokens,
        "model_pooling": checkpoint.pooling,
        "model_fingerprint": checkpoint.fingerprint(),
    }


def _index(path: Path) -> dict[str, Any]:
    from jv5kit.index import Index
    from jv5kit.storage.size import bytes_a_document, bytes_on_disk

    with Index.open(path) as index:
        settings = index.settings
        return {
            "index": str(path),
            "documents": len(index),
            "precision": settings.precision,
            "dim": settings.dim,
            "source_dim": settings.source_dim,
            "index_model": settings.model or "none: the embeddings were given",
            "index_fingerprint": settings.fingerprint or "none",
            "segments": index.segment_count,
            "bytes": bytes_on_disk(index),
            "bytes_a_document": round(bytes_a_document(index), 1),
        }


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
