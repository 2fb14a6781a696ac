"""Any architecture that transformers knows, padded: the same interface as the packed forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from jv5kit.errors import InputError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

_NO_PART_OF_IT = ("pooler", "lm_head", "cls")


class PaddedModel(nn.Module):
    """A backbone of transformers, its weights drawn at random; see :meth:`initialize` and ``load_state_dict``.

    Raises:
        ModelNotFoundError: transformers does not know the architecture; remote code is never run.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        settings = dict(config)
        kind = settings.pop("model_type", None)
        try:
            auto_model: Any = AutoModel
            self._model = auto_model.from_config(AutoConfig.for_model(kind, **settings), trust_remote_code=False)
        # An unknown architecture, settings that contradict each other: each has a class of its own.
        except Exception as error:
            raise ModelNotFoundError(f"transformers cannot make a model of model_type {kind!r}: {error}") from error
        self._model.float().eval()
        embeddings = self._model.get_input_embeddings()
        self.vocabulary = int(embeddings.num_embeddings)
        self.dim = int(self._model.config.hidden_size)
        self._padding = self._model.config.pad_token_id or 0

    @property
    def named(self) -> nn.Module:
        """The module whose tensors have transformers' own names."""
        named: nn.Module = self._model
        return named

    def linears(self) -> dict[str, nn.Linear]:
        """The linear layers of the layers, by name: what an adapter adapts."""
        return {
            name: module
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Linear) and not set(name.split(".")) & set(_NO_PART_OF_IT)
        }

    def layer_modules(self) -> list[nn.Module]:
        """The layers, which are called one after the other: the longest list of modules."""
        lists = [list(module) for module in self._model.modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len, default=[])

    def set_rope_theta(self, theta: float) -> None:
        """Refuse: where rotary positions are in a model that is not known here is not known either."""
        raise InputError(
            f"rope theta {theta:g} is set for a {self._model.config.model_type}, whose base stays as it is"
        )

    def initialize(self, seed: int) -> None:
        """Draw the weights as transformers does."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = type(self._model)(self._model.config).float().eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the backbone's own dropout stays out of it, as in the packed forward pass."""
        super().train(mode)
        self._model.eval()
        return self

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """The states of tokens; see :meth:`jv5kit.training.packed.PackedModel.forward`."""
        mask = torch.arange(max(lengths), device=tokens.device) < torch.tensor(lengths, device=tokens.device)[:, None]
        ids = torch.full(mask.shape, self._padding, dtype=torch.int64, device=tokens.device)
        ids[mask] = tokens
        states: Tensor = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states[mask]
