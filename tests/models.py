"""Tiny models with random weights, in every layout that a checkpoint may have; made without any network."""

import json
import string
from pathlib import Path
from typing import Any, Literal

TEXTS = [
    "the penguin swims in the cold sea",
    "",
    "a",
    "  leading spaces and trailing ones   ",
    "two\nlines\tand a tab\r\n",
    "   ",
    "Ünïcode: 漢字, Ελληνικά, עברית, e\u0301, 🐧 and \u200b",
    "a warm bird flies " * 12,
    "beyond the context " * 200,
    "UPPER and lower",
    "[SEP] a special token as text [CLS]",
    "search " * 30,
]
"""Short and long in no order, so that batches by length move every one of them."""


DIM = 64
CONTEXT = 96
"""Tokens that the tiny models read, special tokens included."""

WORDS = [
    "the",
    "a",
    "penguin",
    "bird",
    "swims",
    "flies",
    "warm",
    "cold",
    "ice",
    "sea",
    "query",
    "document",
    "passage",
    "search",
    "index",
    "of",
    "in",
    "and",
]

Layout = Literal["flags", "paths"]
"""``flags``: ``pooling_mode_*`` and the old type paths; ``paths``: ``pooling_mode`` and the type paths of 6.x."""

TYPES: dict[Layout, dict[str, str]] = {
    "flags": {name: f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")},
    "paths": {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    },
}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def bert(folder: Path, *, lower_case: bool = True, seed: int = 0) -> Path:
    """A plain transformers folder: BERT, its tokenizer, and nothing that says how to pool."""
    import torch
    from transformers import BertConfig, BertModel

    vocabulary = write_tokenizer(folder, template="[CLS] $A [SEP]", lower_case=lower_case)
    torch.manual_seed(seed)
    # Weights this large set the embeddings of different texts well apart.
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,
    )
    _save(BertModel(config), folder)
    return folder


def qwen3(folder: Path, *, end: str = " [SEP]") -> Path:
    """A plain transformers folder: Qwen3, a causal model; ``end`` closes each text, as in Qwen3-Embedding."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    vocabulary = write_tokenizer(folder, template=f"$A{end}", padding_side="left")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=128,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    _save(Qwen3Model(config), folder)
    return folder


def as_sentence_transformers(
    folder: Path,
    *,
    pooling: str = "mean",
    layout: Layout = "paths",
    normalize: bool = True,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    max_seq_length: int | None = None,
    do_lower_case: bool = False,
) -> Path:
    """Add to a transformers folder what makes it one of sentence-transformers."""
    parts = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    write_json(
        folder / "modules.json",
        [
            {"idx": idx, "name": str(idx), "path": path, "type": TYPES[layout][kind]}
            for idx, (kind, path) in enumerate(parts[: 3 if normalize else 2])
        ],
    )
    if layout == "flags":
        flags = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken", "max": "max_tokens"}
        config: dict[str, Any] = {f"pooling_mode_{flag}": mode == pooling for mode, flag in flags.items()}
        config["word_embedding_dimension"] = DIM
    else:
        config = {"embedding_dimension": DIM, "pooling_mode": pooling, "include_prompt": True}
    write_json(folder / "1_Pooling/config.json", config)
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts or {}, "default_prompt_name": default_prompt_name, "similarity_fn_name": "cosine"},
    )
    sentence_bert: dict[str, Any] = {"do_lower_case": do_lower_case}
    if max_seq_length is not None:
        sentence_bert["max_seq_length"] = max_seq_length
    write_json(folder / "sentence_bert_config.json", sentence_bert)
    return folder


def in_hub_cache(cache: Path, folder: Path, name: str) -> Path:
    """Put a model into a cache as the hub's client lays it out; returns the snapshot."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(folder, target_is_directory=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def write_tokenizer(folder: Path, *, template: str, lower_case: bool = True, padding_side: str = "right") -> int:
    """Write a WordPiece tokenizer of a few words and all ASCII characters; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    characters = string.ascii_letters + string.digits + string.punctuation
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *characters, *(f"##{character}" for character in characters)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]") if token in template]
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(single=template, pair=None, special_tokens=special)
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "padding_side": padding_side,
            "model_max_length": CONTEXT,
        },
    )
    return len(vocabulary)


def _save(model: Any, folder: Path) -> None:
    from transformers.utils import logging

    disable: Any = logging.disable_progress_bar
    disable()
    model.eval().save_pretrained(folder)
