"""The forward pass in torch: token ids in, pooled embeddings out, through any architecture that transformers knows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from jv5kit.embeddings import truncate_embeddings
from jv5kit.errors import InputError, MissingExtraError, ModelNotFoundError
from jv5kit.pretrained import read_config
from jv5kit.quantize import quantize_embeddings
from jv5kit.weights import read_adapter, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from jv5kit.backends import BackendName, DType, Output
    from jv5kit.pretrained import Checkpoint, Pooling

BATCH_TOKENS = {"cpu": 8192, "cuda": 131072}
"""Padded tokens of a batch: enough to keep the matrix units busy, little enough to stay near the cache."""


class TorchBackend:
    """A model in torch, on a CPU or a GPU.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        InputError: the device does not exist.
        ModelNotFoundError: transformers cannot load the folder; remote code is never run.
    """

    name: BackendName = "torch"
    pads = True

    def __init__(self, checkpoint: Checkpoint, device: str | None = None, dtype: DType | None = None) -> None:
        torch, transformers = _import_torch()
        self._torch = torch
        self._checkpoint = checkpoint
        self.dtype: DType = dtype or "float32"
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
            config = _transformers_config(transformers, checkpoint)
            loader, source = _dequantized(transformers.AutoModel, config, checkpoint)
            model, loaded = loader.from_pretrained(
                **source,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except ModelNotFoundError:
            raise
        # A damaged file, a config that does not fit, an architecture that needs a package: each has a class of its own.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelNotFoundError(f"model {checkpoint.name!r} cannot be loaded: {reason}") from error
        _check_complete(checkpoint.name, loaded)
        if self.dtype == "bfloat16":
            # The weights that are multiplied; norms, sums and what goes from layer to layer stay in float32.
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.to(torch.bfloat16)
        self._model = model.to(self._device).eval()
        self._adapter: str | None = None
        for name, folder in checkpoint.adapters.items():
            self._add_adapter(name, folder)
        self._vocabulary = int(model.get_input_embeddings().num_embeddings)

    @property
    def device(self) -> str:
        """Where the model runs, as torch names it."""
        return str(self._device)

    def embed(self, batch: Sequence[Sequence[int]], adapter: str | None, output: Output) -> NDArray[Any]:
        """Embed a batch of token sequences, none of them empty: ``(len(batch), dim)`` float32, or uint8 codes.

        Raises:
            ModelNotFoundError: a token is beyond the vocabulary, or the weights are no numbers.
        """
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
        self._adapter = adapter
        with torch.inference_mode(), self._autocast():
            attention_mask = torch.from_numpy(mask).to(self._device)
            states = self._model(
                input_ids=torch.from_numpy(ids).to(self._device), attention_mask=attention_mask
            ).last_hidden_state
            pooled = pool(states.float(), attention_mask, self._checkpoint.pooling)
            embeddings: NDArray[np.float32] = pooled.cpu().numpy()
        if not np.isfinite(embeddings).all():
            raise ModelNotFoundError(
                f"model {self._checkpoint.name!r}: the embedding of a text has values that are no numbers; "
                "so have its weights"
            )
        return finish(embeddings, output)

    def _autocast(self) -> Any:
        torch = self._torch
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def _add_adapter(self, name: str, folder: Path) -> None:
        """Let an adapter add to its linear layers, while it is the one in use."""
        torch = self._torch
        from safetensors.torch import load_file

        _, scale = read_adapter(folder)
        tensors = load_file(folder / "adapter_model.safetensors", device=str(self._device))
        tensors = {key.removeprefix("base_model.model."): tensor for key, tensor in tensors.items()}
        linears = {key: layer for key, layer in self._model.named_modules() if isinstance(layer, torch.nn.Linear)}
        for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
            layer = key.removesuffix(".lora_A.weight")
            down, up = tensors.pop(key), tensors.pop(f"{layer}.lora_B.weight", None)
            if layer not in linears or up is None:
                raise ModelNotFoundError(f"adapter {name}: {key} belongs to no layer of the model, or has no lora_B")
            if (up.shape[0], down.shape[1]) != tuple(linears[layer].weight.shape) or up.shape[1] != down.shape[0]:
                shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
                raise ModelNotFoundError(f"adapter {name}: lora_A and lora_B of {layer} have the shapes {shapes}")
            down, up = (matrix.to(getattr(torch, self.dtype)) for matrix in (down, up))

            def add(_: Any, inputs: Any, result: Any, down: Any = down, up: Any = up) -> Any:
                if self._adapter != name:
                    return result
                linear = torch.nn.functional.linear
                return result + scale * linear(linear(inputs[0], down), up)

            linears[layer].register_forward_hook(add)
        if tensors:
            raise ModelNotFoundError(f"adapter {name} has the tensor {min(tensors)}, which belongs to no layer")


def finish(embeddings: NDArray[np.float32], output: Output) -> NDArray[Any]:
    """What becomes of pooled embeddings ``(n, dim)``: the array that a backend returns."""
    if output.unit and not output.normalize:
        embeddings = truncate_embeddings(embeddings, embeddings.shape[1])
    if output.binary:
        # The sign of a value does not depend on the length of its row.
        return quantize_embeddings(embeddings[:, : output.dim])
    if output.normalize:
        return truncate_embeddings(embeddings, output.dim)
    return np.ascontiguousarray(embeddings[:, : output.dim])


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
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"the torch backend needs torch and transformers ({error.name} is missing): pip install 'jv5kit[torch]'"
        ) from None
    return torch, transformers


def _transformers_config(transformers: Any, checkpoint: Checkpoint) -> Any:
    """The configuration of one of transformers' own architectures.

    Raises:
        ModelNotFoundError: it is none that this version has.
    """
    settings = read_config(checkpoint)
    kind = settings.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise ModelNotFoundError(
            f"model {checkpoint.name!r} has the model_type {kind!r}, which transformers {transformers.__version__} "
            "does not know, and remote code is never run; a newer one may know it: pip install -U transformers"
        )
    return transformers.CONFIG_MAPPING[kind].from_dict(settings)


def _dequantized(auto_model: Any, config: Any, checkpoint: Checkpoint) -> tuple[Any, dict[str, Any]]:
    """The class that loads a folder, and what it loads: the folder, or its int8 rows times their scales in float32."""
    files = sorted(checkpoint.folder.glob("*.safetensors"))
    if not any(kind == "I8" for path in files for kind, _, _ in read_weights([path]).values()):
        return auto_model, {"pretrained_model_name_or_path": checkpoint.folder}
    import torch
    from safetensors.torch import load_file

    tensors = {name: tensor for path in files for name, tensor in load_file(path).items()}
    for name in [name for name in tensors if f"{name}_scale" in tensors]:
        tensors[name] = tensors[name].float() * tensors.pop(f"{name}_scale").unsqueeze(-1)
    with torch.device("meta"):
        architecture = type(auto_model.from_config(config, trust_remote_code=False))
    return architecture, {"pretrained_model_name_or_path": None, "state_dict": tensors}


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
