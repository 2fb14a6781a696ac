"""What embeddings must be: those of sentence-transformers and transformers, run by torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jv5kit.backends import Backend, DType, Output
from jv5kit.pretrained import Pooling


def sentence_transformer(folder: Path) -> Any:
    """The model of sentence-transformers, in float32 whatever type its weights are kept in."""
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def released_backbone(folder: Path) -> tuple[Any, Any]:
    """What transformers makes of a folder without its code: the backbone, and the tokenizer."""
    import torch
    import transformers

    settings = json.loads((folder / "config.json").read_text())
    for name in ("auto_map", "model_type", "task_names", "architectures"):
        settings.pop(name, None)
    library: Any = transformers
    if "head_dim" in settings:
        config, architecture = library.Qwen3Config(**settings), library.Qwen3Model
        tokenizer = library.Qwen2Tokenizer.from_pretrained(folder)
    else:
        config, architecture = library.EuroBertConfig(**settings), library.EuroBertModel
        tokenizer = library.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<|pad|>")
    model, loaded = architecture.from_pretrained(
        folder, config=config, dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    assert not loaded["missing_keys"]
    assert not loaded["mismatched_keys"]
    return model.eval(), tokenizer


def released_embeddings(
    folder: Path, texts: list[str], task: str | None, dim: int | None = None
) -> NDArray[np.float32]:
    """What the code of the repository does with texts that have their prompt: peft, right padding, the last token."""
    import torch
    from peft import PeftModel

    model, tokenizer = released_backbone(folder)
    if task is not None:
        model = PeftModel.from_pretrained(model, str(folder / "adapters" / task), adapter_name=task).eval()
    batch = tokenizer(
        texts,
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=model.config.max_position_embeddings,
        return_tensors="pt",
    )
    with torch.no_grad():
        hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    pooled = hidden[torch.arange(len(texts)), batch["attention_mask"].sum(1) - 1][:, :dim]
    rows: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return rows


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
