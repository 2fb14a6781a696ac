"""The forward pass in torch: token ids in, pooled embeddings out, through any architecture that transformers knows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.errors import InputError, MissingExtraError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from jv5kit.pretrained import Checkpoint, Pooling

BATCH_TOKENS = {"cpu": 8192, "cuda": 131072}
"""Padded tokens of a batch: enough to keep the matrix units busy, little enough to stay near the cache."""


class TorchBackend:
    """A model in torch, float32, on a CPU or a GPU.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        InputError: the device does not exist.
        ModelNotFoundError: transformers cannot load the folder; remote code is never run.
    """

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, device: str | None = None) -> None:
        torch, auto_model = _import_torch()
        self._torch = torch
        self._checkpoint = checkpoint
        try:
            self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.empty(0, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device={device!r} cannot be used: {str(error).splitlines()[0]}") from None
        self.batch_tokens = BATCH_TOKENS.get(self._device.type, BATCH_TOKENS["cpu"])
        # transformers draws a bar over the tensors that it loads; ours shows what the user waits for.
        logging.getLogger("transformers").setLevel(logging.ERROR)
        _silence_loading_bar()
        try:
            model, loaded = auto_model.from_pretrained(
                checkpoint.folder,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        # A damaged file, a config that does not fit, an architecture that needs a package: each has a class of its own.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelNotFoundError(f"model {checkpoint.name!r} cannot be loaded: {reason}") from error
        _check_complete(checkpoint.name, loaded)
        self._model = model.to(self._device).eval()
        self._vocabulary = int(model.get_input_embeddings().num_embeddings)

    @property
    def device(self) -> str:
        """Where the model runs, as torch names it."""
        return str(self._device)

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embed a batch of token sequences, none of them empty: float32 ``(len(batch), dim)``, not normalized."""
        torch = self._torch
        longest = max(map(len, batch))
        ids = np.full((len(batch), longest), self._checkpoint.pad_token_id, np.int64)
        mask = np.zeros((len(batch), longest), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        if ids.max() >= self._vocabulary:
            raise ModelNotFoundError(
                f"model {self._checkpoint.name!r}: its tokenizer gives the token {ids.max()}, but its vocabulary ends "
                f"at {self._vocabulary - 1}; the two do not belong together"
            )
        with torch.inference_mode():
            attention_mask = torch.from_numpy(mask).to(self._device)
            states = self._model(
                input_ids=torch.from_numpy(ids).to(self._device), attention_mask=attention_mask
            ).last_hidden_state
            pooled = pool(states, attention_mask, self._checkpoint.pooling)
            embeddings: NDArray[np.float32] = pooled.float().cpu().numpy()
            return embeddings


def pool(states: torch.Tensor, attention_mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One embedding of the token states ``(n, tokens, dim)`` of each text, padded on the right: ``(n, dim)``."""
    if pooling == "cls":
        return states[:, 0]
    lengths = attention_mask.sum(1)
    if pooling == "lasttoken":
        rows = range(len(states))
        return states[list(rows), lengths - 1]
    return (states * attention_mask.unsqueeze(-1)).sum(1) / lengths.unsqueeze(-1)


def _import_torch() -> tuple[Any, Any]:
    try:
        import torch
        from transformers import AutoModel
    except ImportError as error:
        raise MissingExtraError(
            f"encoding needs torch and transformers ({error.name} is missing): pip install 'jv5kit[torch]'"
        ) from None
    return torch, AutoModel


def _check_complete(name: str, loaded: dict[str, Any]) -> None:
    """Refuse weights that transformers would draw at random. The pooler is: its output is not used."""
    missing = sorted(key for key in loaded["missing_keys"] if "pooler" not in key.split("."))
    # With the name come the two shapes.
    mismatched = sorted(key if isinstance(key, str) else key[0] for key in loaded["mismatched_keys"])
    for keys, problem in ((missing, "lack"), (mismatched, "have another shape than config.json says for")):
        if keys:
            others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ModelNotFoundError(f"model {name!r} cannot be loaded: its weights {problem} {keys[0]}{others}")


def _silence_loading_bar() -> None:
    from transformers.utils import logging as transformers_logging

    disable: Any = transformers_logging.disable_progress_bar
    disable()
