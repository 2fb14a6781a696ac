"""The files of a sentence-transformers folder beside its weights, as every version of that library reads them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jv5kit.pretrained import Pooling

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)

_FLAGS: dict[Pooling, str] = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}


def write_layout(
    folder: Path,
    config: Mapping[str, Any],
    *,
    dim: int,
    pooling: Pooling,
    prompts: Mapping[str, str],
    default_prompt_name: str | None,
    max_tokens: int,
    lower_case: bool,
) -> None:
    """Write ``config.json``, and the modules Transformer, Pooling and Normalize.

    Args:
        folder: where the weights are.
        config: content of ``config.json``.
        dim: values of an embedding.
        pooling: how token states become one embedding.
        prompts: by name.
        default_prompt_name: the prompt of texts for which none is named.
        max_tokens: context, special tokens included.
        lower_case: whether texts are lower-cased before they are tokenized.

    Raises:
        OSError: a file cannot be written.
    """
    modules = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    for _, path in modules:
        (folder / path).mkdir(parents=True, exist_ok=True)
    flags = {f"pooling_mode_{flag}": mode == pooling for mode, flag in _FLAGS.items()}
    _write(folder / "config.json", config)
    _write(
        folder / "modules.json",
        [
            {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for idx, (kind, path) in enumerate(modules)
        ],
    )
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim} | flags | {"include_prompt": True})
    _write(folder / "2_Normalize" / "config.json", {})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": lower_case})
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": dict(prompts), "default_prompt_name": default_prompt_name, "similarity_fn_name": "cosine"},
    )


def copy_tokenizer(source: Path, folder: Path, max_tokens: int) -> None:
    """Copy the files of a tokenizer, and let it be no reason to cut texts shorter than ``max_tokens``.

    Raises:
        OSError: a file cannot be read or written.
    """
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and (source / name).resolve() != (folder / name).resolve():
            shutil.copyfile(source / name, folder / name)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if config.get("model_max_length", max_tokens) < max_tokens:
        _write(path, config | {"model_max_length": max_tokens})


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
