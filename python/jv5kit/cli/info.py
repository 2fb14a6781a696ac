"""``jv5kit info``: versions, this machine, the default model, an index."""

from __future__ import annotations

import json as json_lines
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jv5kit.cli.options import Json, Model, folder_of


def info(
    index: Annotated[
        str | None, typer.Argument(metavar="INDEX", help="An index: a folder or a URL.", show_default=False)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every byte of the index, and that its parts belong together.")
    ] = False,
    model: Model = None,
    json: Json = False,
) -> None:
    """Say what is installed, which kernels run on this machine and why, and what an index holds.

    With --verify, say what is damaged on standard error; the exit status is then 1.
    """
    from jv5kit.errors import InputError

    if verify and index is None:
        raise InputError("--verify checks an index: name one")
    facts = _machine(model)
    problems = _problems(folder_of(index, "info --verify"), json=json) if verify and index is not None else []
    if problems:
        facts |= {"index": index, "damaged": problems}
    elif index is not None:
        facts |= _index(index) | ({"verified": "every block, document and id"} if verify else {})
    for problem in problems:
        print(f"jv5kit: {problem}", file=sys.stderr)
    if json:
        print(json_lines.dumps(facts))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:{width}}  {_shown(name, value)}")
    if problems:
        raise typer.Exit(1)


def _problems(index: Path, *, json: bool) -> list[str]:
    from jv5kit.errors import InputError, Jv5kitError
    from jv5kit.index import Index
    from jv5kit.logs import log_to_stderr
    from jv5kit.progress import ProgressBar
    from jv5kit.sharding.published import verify_shards
    from jv5kit.storage.verify import verify
    from jv5kit.stores import store_class

    log_to_stderr()
    kind = store_class(index)

    def rows() -> int | None:
        try:
            with kind.open(index) as opened:
                return opened.row_count
        except Jv5kitError as error:
            if isinstance(error, InputError):
                raise
            return None

    with ProgressBar("Verifying", rows, "rows", show=False if json else None) as progress:
        return (verify if kind is Index else verify_shards)(index, progress)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name} ({' and '.join(kinds)})" for name, kinds in value.items()) or "none"
    if isinstance(value, list):
        return f"{len(value):,} problems" if name == "damaged" else ", ".join(value) or "none"
    return str(value)


def _license(stated: str) -> str:
    """A license by its name, and what is asked about it most."""
    if not stated.startswith("cc-by"):
        return stated
    *terms, number = stated.removeprefix("cc-").upper().split("-")
    return f"CC {'-'.join(terms)} {number}" + (": non-commercial use only" if "NC" in terms else "")


def _machine(model: str | None) -> dict[str, Any]:
    from importlib.metadata import version

    from jv5kit import _native
    from jv5kit.backends import choose_backend
    from jv5kit.errors import MissingExtraError, ModelNotFoundError
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
    try:
        chosen: tuple[str, str] = choose_backend(checkpoint)
    except MissingExtraError as error:
        chosen = "none", str(error)
    known = {"model_license": _license(checkpoint.license)} if checkpoint.license else {}
    return facts | {
        "model": checkpoint.name,
        "backend": chosen[0],
        "backend_why": chosen[1],
        "dtype": {"native": _native.default_dtype(), "torch": "float32"}.get(chosen[0], "none"),
        "model_dim": checkpoint.dim,
        "model_max_tokens": checkpoint.max_tokens,
        "model_pooling": checkpoint.pooling,
        "model_tasks": list(checkpoint.adapters),
        "model_fingerprint": checkpoint.fingerprint(),
        **known,
    }


def _index(name: str) -> dict[str, Any]:
    from jv5kit.index import Index
    from jv5kit.stores import store_class

    with store_class(name).open(name) as index:
        settings = index.settings
        segments = {"segments": index.segment_count, "deleted": index.deleted_count} if isinstance(index, Index) else {}
        return {
            "index": index.name,
            "documents": len(index),
            "passages": "none" if settings.passages is None else f"{settings.passages} tokens",
            "rows": index.row_count,
            "precision": settings.precision,
            "dim": settings.dim,
            "source_dim": settings.source_dim,
            "rescore": settings.rescore,
            "rotated": settings.rotation is not None,
            "lexical": settings.lexical,
            "hnsw": settings.hnsw,
            "index_model": settings.model or "none: the embeddings were given",
            "index_fingerprint": settings.fingerprint or "none",
            "fields": index.fields,
            **segments,
            "bytes": index.bytes_on_disk,
            "bytes_a_document": round(index.bytes_on_disk / max(1, len(index)), 1),
        }


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
