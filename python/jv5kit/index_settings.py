"""The settings of an index: what a new one may have, and what fits one that is there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jv5kit.embeddings import whole_number
from jv5kit.errors import InputError
from jv5kit.passages import LEAST_TOKENS
from jv5kit.storage.state import Settings
from jv5kit.types import PRECISIONS, RESCORES

if TYPE_CHECKING:
    from jv5kit.sources import Source
    from jv5kit.types import Precision, Rescore


def check_fits(source: Source, settings: Settings) -> None:
    """Refuse embeddings that an index does not take.

    Raises:
        InputError: they have other dimensions, or are codes where the index stores more, or the index has passages.
    """
    if settings.passages is not None and source.embeddings is not None:
        raise InputError(
            f"this index splits documents into passages of {settings.passages} tokens, which needs their texts and its "
            "model: add documents without embeddings"
        )
    if source.dim != settings.source_dim:
        raise InputError(f"the embeddings have {source.dim} dimensions; those of this index had {settings.source_dim}")
    stores_codes = settings.precision == "ubinary" and settings.rescore != "int8"
    if source.holds_codes and (not stores_codes or settings.rotation is not None or settings.dim != source.dim):
        raise InputError("the embeddings are uint8 codes; this index takes real numbers, of which it stores more")


def check_settings(
    precision: Precision = "ubinary",
    rescore: Rescore | None = None,
    *,
    passages: int | None = None,
) -> None:
    """Refuse settings that are not known or do not go together in any index, before anything else is done.

    Raises:
        InputError: such a setting.
    """
    for name, value, known in (("precision", precision, PRECISIONS), ("rescore", rescore or "none", RESCORES)):
        if value not in known:
            raise InputError(f"{name}={value!r} is not known; choose one of {', '.join(known)}")
    if precision != "ubinary" and rescore not in (None, "none"):
        raise InputError(
            f"rescore={rescore!r} is for precision 'ubinary'; with {precision!r} there is nothing to rescore"
        )
    if passages is not None and whole_number("passages", passages) < LEAST_TOKENS:
        raise InputError(f"passages={passages}: a passage has at least {LEAST_TOKENS} tokens")


def settings_of(
    source: Source,
    dim: int | None = None,
    precision: Precision = "ubinary",
    rescore: Rescore | None = None,
    *,
    lexical: bool = False,
    hnsw: bool = False,
    passages: int | None = None,
) -> Settings:
    """The settings of a new index.

    Raises:
        InputError: an argument is not known, or does not fit the others or the embeddings.
    """
    check_settings(precision, rescore, passages=passages)
    if passages is not None and source.encoder is None:
        raise InputError(
            f"passages={passages} takes a model, which splits texts and encodes them; beside embeddings, give each "
            "passage as a document of its own"
        )
    passages = None if passages is None else whole_number("passages", passages)
    dim = source.dim if dim is None else whole_number("dim", dim)
    if not 1 <= dim <= source.dim:
        raise InputError(f"dim={dim} is outside 1..{source.dim}, the dimensions of the embeddings")
    if precision == "ubinary" and dim % 8:
        raise InputError(f"dim={dim} is not a multiple of 8, which one bit a dimension needs")
    if source.holds_codes:
        if precision != "ubinary" or dim != source.dim:
            raise InputError(f"codes of {source.dim} bits make a ubinary index of that dimension, nothing else")
        if rescore == "int8":
            raise InputError("codes have no int8 rows to rescore with; give rescore='codes' or 'none'")
    if rescore is None:
        rescore = "int8" if precision == "ubinary" and not source.holds_codes else "none"
    settings = Settings(dim, precision, source.dim, rescore=rescore, lexical=lexical, hnsw=hnsw, passages=passages)
    if source.encoder is None:
        return settings
    return replace(
        settings,
        model=source.encoder.checkpoint.name,
        fingerprint=source.encoder.checkpoint.fingerprint(),
        query_prompt=source.encoder.query_prompt(),
        document_prompt=source.encoder.document_prompt(),
    )
