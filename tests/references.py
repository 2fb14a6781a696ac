"""What embeddings must be: those of sentence-transformers and transformers, run by torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jv5kit.backends import Backend, DType, Output
from jv5kit.pretrained import Pooling


def sentence_transformer(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def token_states(folder: Path, texts: list[list[int]]) -> list[NDArray[np.float32]]:
    """What transformers makes of the tokens of each text, each alone: ``(tokens, dim)``."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [model(torch.tensor([tokens])).last_hidden_state[0].numpy() for tokens in texts]


def pooled(states: list[NDArray[np.float32]], pooling: Pooling) -> NDArray[np.float32]:
    """An embedding of each text's token states."""
    match pooling:
        case "mean":
            return np.stack([state.mean(axis=0) for state in states])
        case "cls":
            return np.stack([state[0] for state in states])
        case "lasttoken":
            return np.stack([state[-1] for state in states])


def embed(backend: Backend, texts: list[list[int]], dim: int, adapter: str | None = None) -> NDArray[Any]:
    """Whole embeddings of tokens, their length the model's own."""
    return backend.embed(texts, adapter, Output(dim, unit=False, normalize=False, binary=False))


def unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def cosines(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.float64]:
    """Of each row of the one with that of the other."""
    assert ours.shape == theirs.shape
    return np.asarray((unit(ours) * unit(theirs)).sum(axis=-1))


def assert_same_direction(ours: NDArray[Any], theirs: NDArray[Any], dtype: DType = "float32") -> None:
    found = cosines(ours, theirs)
    if dtype == "float32":
        assert found.min() >= 0.99999, found
    else:
        assert found.min() >= 0.999, found
        assert found.mean() >= 0.9999, found
