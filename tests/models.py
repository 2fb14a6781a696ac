"""Tiny models with random weights, in every layout that a checkpoint may have; made without any network."""

import json
import string
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

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
    vocabulary = write_tokenizer(folder, template="[CLS] $A [SEP]", lower_case=lower_case)
    # Weights this large set the embeddings of different texts well apart.
    return random_model(folder, "bert", vocab_size=vocabulary, seed=seed, initializer_range=0.5)


def qwen3(folder: Path, *, end: str = " [SEP]") -> Path:
    """A plain transformers folder: Qwen3, a causal model; ``end`` closes each text, as in Qwen3-Embedding."""
    vocabulary = write_tokenizer(folder, template=f"$A{end}", padding_side="left")
    return random_model(
        folder, "qwen3", vocab_size=vocabulary, num_key_value_heads=2, head_dim=16, initializer_range=0.3
    )


def random_model(folder: Path, kind: str, *, seed: int = 0, **settings: Any) -> Path:
    """Write the configuration and the weights, drawn at random, of a model of any architecture.

    Args:
        folder: where the tokenizer is.
        kind: transformers' ``model_type``.
        seed: of the weights.
        **settings: of the configuration, in place of tiny ones.
    """
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    tiny: dict[str, Any] = {
        "hidden_size": DIM,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
    }
    torch.manual_seed(seed)
    from_config: Any = AutoModel.from_config
    model = from_config(AutoConfig.for_model(kind, **tiny | settings))
    with torch.no_grad():
        for parameter in model.parameters():
            # Drawn as 0 and 1, biases and the weights of norms would be missed by nobody.
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    disable: Any = logging.disable_progress_bar
    disable()
    model.eval().save_pretrained(folder)
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


def write_tokenizer(
    folder: Path, *, template: str, lower_case: bool = True, padding_side: str = "right", context: int = CONTEXT
) -> int:
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
            "model_max_length": context,
        },
    )
    return len(vocabulary)


def tensors_of(folder: Path) -> dict[str, Array]:
    """The tensors of a model in float32, to be changed and written again."""
    from safetensors.numpy import load_file

    return {name: tensor.copy() for name, tensor in load_file(folder / "model.safetensors").items()}


def write_tensors(path: Path, tensors: dict[str, Array]) -> None:
    """Write a weights file, in place of the one that may be there; uint16 are the bits of bfloat16."""
    kinds = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "int8": "I8"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        offsets = end, end + tensor.nbytes
        header[name] = {"dtype": kinds[tensor.dtype.name], "shape": tensor.shape, "data_offsets": offsets}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Another file under the old name: a model may map the old one.
    path.unlink(missing_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensor.tobytes() for tensor in tensors.values()))


def add_adapter(
    folder: Path, task: str, linears: dict[str, int], *, alpha: float = 16, seed: int = 0, **settings: Any
) -> dict[str, Array]:
    """Add an adapter in the layout of PEFT.

    Args:
        folder: the model's.
        task: name of the adapter.
        linears: linear layers, each with its rank; the first one's is the adapter's own.
        alpha: the scale, times the rank.
        seed: of the matrices.
        **settings: of ``adapter_config.json``.

    Returns:
        What it adds to the weights of each layer.
    """
    rng = np.random.default_rng(seed)
    weights = tensors_of(folder)
    tensors: dict[str, Array] = {}
    added: dict[str, Array] = {}
    rank = next(iter(linears.values()))
    for name, own in linears.items():
        outputs, inputs = weights[f"{name}.weight"].shape
        down, up = (0.3 * rng.standard_normal(shape).astype(np.float32) for shape in ((own, inputs), (outputs, own)))
        tensors |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
        added[f"{name}.weight"] = (up.astype(np.float64) @ down * (alpha / rank)).astype(np.float32)
    target = folder / "adapters" / task
    write_json(
        target / "adapter_config.json",
        {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": sorted(linears), "bias": "none"}
        | settings,
    )
    write_tensors(target / "adapter_model.safetensors", tensors)
    return added
