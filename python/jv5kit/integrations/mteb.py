"""mteb: a model that it evaluates, ``mteb.evaluate(mteb_model("pico"), tasks)``, whose search is our index.

``jv5kit eval --mteb`` does that for several dimensions and precisions, and encodes each text once for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from jv5kit.embeddings import whole_number
from jv5kit.encoder import Encoder, shared_encoder
from jv5kit.errors import InputError, MissingExtraError
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.mteb_adapter import IndexBackend, MtebEncoder
from jv5kit.evaluation.quantized import StoredPrecision

try:
    from mteb.models import SearchEncoderWrapper
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"jv5kit.integrations.mteb needs mteb ({error.name} is missing): pip install 'jv5kit[eval]'"
    ) from None

if TYPE_CHECKING:
    import os


def mteb_model(
    model: str | os.PathLike[str] | Encoder | None = None,
    *,
    dim: int | None = None,
    precision: StoredPrecision = "float32",
) -> Any:
    """A model as ``mteb.evaluate`` takes it.

    The type of a task decides the adapter and the prompt. Texts that were encoded are kept, so that a model that is
    given to several tasks encodes none of them twice.

    Args:
        model: a folder, a hub id, an encoder, or None for the default model.
        dim: dimensions to keep (Matryoshka); by default all.
        precision: what embeddings are stored as, see :mod:`jv5kit.evaluation.quantized`; ``"ubinary+codes"`` and
            ``"ubinary+int8"`` rescore where something is searched, and elsewhere are as ``"ubinary"``.

    Raises:
        ModelNotFoundError: there is no such model.
        InputError: the precision is not known, or the dimensions are none of the model's.
    """
    if precision not in get_args(StoredPrecision):
        raise InputError(f"precision={precision!r} is not known; choose one of {', '.join(get_args(StoredPrecision))}")
    encoder = model if isinstance(model, Encoder) else shared_encoder(model)
    dim = encoder.dim if dim is None else whole_number("dim", dim)
    if not 1 <= dim <= encoder.dim:
        raise InputError(f"dim={dim} is outside 1..{encoder.dim}, the model's dimensions")
    if precision.startswith("ubinary") and dim % 8:
        raise InputError(f"dim={dim} is not a multiple of 8, which one bit a dimension needs")
    texts = TextEncoder(encoder, show_progress_bar=False)
    return SearchEncoderWrapper(MtebEncoder(texts, dim, precision), index_backend=IndexBackend(precision))
