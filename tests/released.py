"""Folders of jina-embeddings-v5-text as they are released, their weights tiny and drawn at random.

Four kinds: small (Qwen3) and nano (EuroBERT), each with its adapters apart and with one of them merged. Settings, file
names, tensor names and types are those of the released files; sizes of the model and of the vocabulary are not. The
code in them is not theirs: it raises, and leaves a file behind, so that a test sees if it was ever run.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from models import Array, write_json, write_tensors

Size = Literal["small", "nano"]

TASKS = ("retrieval", "text-matching", "clustering", "classification")
PROMPTS = {"query": "Query: ", "document": "Document: "}
CONTEXT = 64
DIM = 64
RANK = 4
LINEARS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)

TEXTS = [
    "How fast does light travel in a vacuum?",
    "",
    "a",
    " ",
    "  spaces before, and after\n",
    "Ünïcode: 漢字, Ελληνικά, עברית, e\u0301, 🐧, 1234567 and \u200b",
    "UPPER, lower, don't and 3.14",
    "a text that is longer than the context " * 12,
    "Mars is the red planet.",
]
"""One, none and many tokens; what normalizers, splits at digits and cuts tell apart."""

CORPUS = [
    "Venus is often called the twin of Earth, because it is of its size.",
    "Mars, which looks red, is known as the red planet. How fast does light travel there?",
    "Query: which planet has rings? Document: Saturn has rings, and 146 moons in 2023.",
]

CODE = """# The code of the repository, which nobody may run.
with open({marker!r}, "w") as file:
    file.write(__file__)
raise RuntimeError("remote code was run")
"""

SPLITS: dict[Size, str] = {
    "small": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "nano": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""Where the tokenizers of Qwen2 and Llama 3 split a text."""

SPECIAL: dict[Size, tuple[str, ...]] = {
    "small": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "nano": ("<|begin_of_text|>", "<|end_of_text|>", "<|mask|>", "<|parallel_sep|>", "<|pad|>"),
}

MARKER = "remote-code-was-run"


def unified(folder: Path, size: Size, *, seed: int = 0, end: bool = False) -> Path:
    """A repository with an adapter a task; its tokenizer adds no token, or with ``end`` one at the end of a text."""
    ids = write_tokenizer(folder, size, end=end)
    settings = backbone_settings(size, ids) | {
        "architectures": ["JinaEmbeddingsV5Model"],
        "model_type": "jina_embeddings_v5",
        "task_names": list(TASKS),
        "auto_map": {
            "AutoConfig": "configuration_jina_embeddings_v5.JinaEmbeddingsV5Config",
            "AutoModel": "modeling_jina_embeddings_v5.JinaEmbeddingsV5Model",
        },
    }
    write_json(folder / "config.json", settings)
    weights = random_weights(settings, size, seed)
    write_tensors(folder / "model.safetensors", {name: rounded(tensor) for name, tensor in weights.items()})
    kwargs = {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer"}
    write_json(folder / "modules.json", [kwargs | {"kwargs": ["task", "truncate_dim"]}])
    write_prompts(folder, default="document")
    write_card(folder, f"jina-embeddings-v5-text-{size}")
    own = ("configuration_eurobert", "modeling_eurobert") if size == "nano" else ()
    for name in ("configuration_jina_embeddings_v5", "modeling_jina_embeddings_v5", "custom_st", *own):
        write_code(folder, name)
    for number, task in enumerate(TASKS):
        write_adapter(folder, task, weights, f"jinaai/jina-embeddings-v5-text-{size}", seed=1 + number)
    return folder


def merged(folder: Path, source: Path, task: str) -> Path:
    """A repository of one task: the backbone of ``source`` with that task's adapter in its weights."""
    settings = json.loads((source / "config.json").read_text())
    size: Size = "small" if "head_dim" in settings else "nano"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("adapters", "*.py", "modules.json", "config*.json"))
    del settings["task_names"], settings["auto_map"]
    settings |= {"model_type": "qwen3", "architectures": ["Qwen3Model"]}
    if size == "nano":
        settings |= {
            "model_type": "eurobert",
            "architectures": ["EuroBertModel"],
            "auto_map": {
                "AutoConfig": "configuration_eurobert.EuroBertConfig",
                "AutoModel": "modeling_eurobert.EuroBertModel",
            },
        }
        for name in ("configuration_eurobert", "modeling_eurobert"):
            write_code(folder, name)
    write_json(folder / "config.json", settings)
    weights = {name: widened(tensor) for name, tensor in bits_of(source / "model.safetensors").items()}
    adapter = bits_of(source / "adapters" / task / "adapter_model.safetensors")
    halves = {name.removeprefix("base_model.model."): widened(tensor) for name, tensor in adapter.items()}
    for layer in [name.removesuffix(".lora_A.weight") for name in halves if name.endswith(".lora_A.weight")]:
        weights[f"{layer}.weight"] += halves[f"{layer}.lora_B.weight"] @ halves[f"{layer}.lora_A.weight"]
    write_tensors(folder / "model.safetensors", {name: rounded(tensor) for name, tensor in weights.items()})
    parts = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [
        {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for idx, (kind, path) in enumerate(parts)
    ]
    write_json(folder / "modules.json", modules)
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    flags = {f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes}
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": DIM, **flags, "include_prompt": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": CONTEXT, "do_lower_case": False})
    write_prompts(folder, default=None)
    write_card(folder, f"jina-embeddings-v5-text-{size}-{task}")
    return folder


def backbone_settings(size: Size, ids: dict[str, int]) -> dict[str, Any]:
    """What ``config.json`` says of the backbone; ``ids`` are those of the tokens."""
    common = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": DIM,
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "max_position_embeddings": CONTEXT,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "rope_scaling": None,
        "vocab_size": len(ids),
    }
    if size == "small":
        return common | {
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|endoftext|>"],
            "head_dim": 24,
            "max_window_layers": 2,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06,
            "rope_theta": 3_500_000,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.57.0",
            "use_cache": True,
            "use_sliding_window": False,
        }
    # Padding is named as another token here than in the tokenizer; so it is in the released files.
    return common | {
        "bos_token": "<|begin_of_text|>",
        "bos_token_id": ids["<|begin_of_text|>"],
        "eos_token": "<|end_of_text|>",
        "eos_token_id": ids["<|end_of_text|>"],
        "pad_token": "<|end_of_text|>",
        "pad_token_id": ids["<|end_of_text|>"],
        "mask_token": "<|mask|>",
        "mask_token_id": ids["<|mask|>"],
        "hidden_dropout": 0.0,
        "is_decoder": False,
        "num_key_value_heads": 4,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1_000_000,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.40.0.dev0",
    }


def random_weights(settings: dict[str, Any], size: Size, seed: int) -> dict[str, Array]:
    """Tensors of a backbone, under the names and in the shapes of the released files."""
    rng = np.random.default_rng(seed)
    hidden, middle = settings["hidden_size"], settings["intermediate_size"]
    heads, kv = settings["num_attention_heads"], settings["num_key_value_heads"]
    head = settings.get("head_dim", hidden // heads)
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (settings["vocab_size"], hidden), "norm": (hidden,)}
    for number in range(settings["num_hidden_layers"]):
        layer = f"layers.{number}"
        shapes |= {
            f"{layer}.input_layernorm": (hidden,),
            f"{layer}.post_attention_layernorm": (hidden,),
            f"{layer}.self_attn.q_proj": (heads * head, hidden),
            f"{layer}.self_attn.k_proj": (kv * head, hidden),
            f"{layer}.self_attn.v_proj": (kv * head, hidden),
            f"{layer}.self_attn.o_proj": (hidden, heads * head),
            f"{layer}.mlp.gate_proj": (middle, hidden),
            f"{layer}.mlp.up_proj": (middle, hidden),
            f"{layer}.mlp.down_proj": (hidden, middle),
        }
        if size == "small":
            shapes |= {f"{layer}.self_attn.{name}_norm": (head,) for name in "qk"}
    return {
        f"{name}.weight": widened(
            rounded((0.3 if len(shape) == 2 else 0.1) * rng.standard_normal(shape) + (len(shape) == 1))
        )
        for name, shape in shapes.items()
    }


def write_adapter(folder: Path, task: str, weights: dict[str, Array], base: str, *, seed: int) -> None:
    """An adapter as PEFT has it, for all linear layers."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        if layer.partition(".")[2].partition(".")[2] in LINEARS:
            down, up = (0.3 * rng.standard_normal(shape) for shape in ((RANK, weight.shape[1]), (len(weight), RANK)))
            tensors |= {
                f"base_model.model.{layer}.lora_A.weight": rounded(down),
                f"base_model.model.{layer}.lora_B.weight": rounded(up),
            }
    target = folder / "adapters" / task
    write_json(
        target / "adapter_config.json",
        {
            "alpha_pattern": {},
            "auto_mapping": None,
            "base_model_name_or_path": base,
            "bias": "none",
            "corda_config": None,
            "eva_config": None,
            "exclude_modules": None,
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": "gaussian",
            "layer_replication": None,
            "layers_pattern": None,
            "layers_to_transform": None,
            "loftq_config": {},
            "lora_alpha": RANK,
            "lora_bias": False,
            "lora_dropout": 0.05 if task == "classification" else 0.1,
            "megatron_config": None,
            "megatron_core": "megatron.core",
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": RANK,
            "rank_pattern": {},
            "revision": None,
            "target_modules": ["gate_proj", "v_proj", "q_proj", "down_proj", "o_proj", "k_proj", "up_proj"],
            "task_type": "FEATURE_EXTRACTION",
            "trainable_token_indices": None,
            "use_dora": False,
            "use_rslora": False,
        },
    )
    write_tensors(target / "adapter_model.safetensors", tensors)


def write_tokenizer(folder: Path, size: Size, *, end: bool = False) -> dict[str, int]:
    """Train a byte-level BPE tokenizer on a few sentences, and write it as the size has it; returns its tokens' ids."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
    from tokenizers.models import BPE

    tokenizer = Tokenizer(BPE())
    if size == "small":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLITS[size]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL[size]])
    ids = tokenizer.get_vocab(with_added_tokens=True)
    last = "<|endoftext|>" if size == "small" else "<|end_of_text|>"
    tokenizer.post_processor = (
        processors.TemplateProcessing(single=f"$A {last}", pair=None, special_tokens=[(last, ids[last])])
        if end
        else processors.ByteLevel(trim_offsets=False)
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(ids[token]): {
            "content": token,
            "lstrip": token == "<|mask|>",
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in SPECIAL[size]
    }
    names: dict[str, str | None]
    if size == "small":
        tokenizer.model.save(str(folder))
        write_json(folder / "added_tokens.json", {token: ids[token] for token in SPECIAL[size]})
        names = {"bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": None}
        own: dict[str, Any] = {
            "add_bos_token": False,
            "add_prefix_space": False,
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "errors": "replace",
            "model_max_length": 131_072,
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
        }
    else:
        names = {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|end_of_text|>",
            "mask_token": "<|mask|>",
            "pad_token": "<|pad|>",
        }
        own = {
            "clean_up_tokenization_spaces": True,
            "extra_special_tokens": {},
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 1000000000000000019884624838656,
            "tokenizer_class": "PreTrainedTokenizer",
        }
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": added} | names | own)
    write_json(folder / "special_tokens_map.json", {name: token for name, token in names.items() if token})
    return ids


def write_prompts(folder: Path, *, default: str | None) -> None:
    versions = {"sentence_transformers": "5.1.2", "transformers": "4.57.0", "pytorch": "2.8.0"}
    settings = {"__version__": versions, "prompts": PROMPTS, "default_prompt_name": default}
    write_json(folder / "config_sentence_transformers.json", settings | {"similarity_fn_name": "cosine"})


def write_card(folder: Path, name: str) -> None:
    card = f"---\npipeline_tag: feature-extraction\ntags:\n- license:mit\nlicense: cc-by-nc-4.0\n---\n\n# {name}\n"
    (folder / "README.md").write_text(card)


def write_code(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text(CODE.format(marker=str(folder / MARKER)))


def rounded(values: Any) -> Array:
    """Bits of the nearest bfloat16 of each value, ties away from zero."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x8000) >> 16).astype(np.uint16)


def widened(bits: Array) -> Array:
    """The float32 that the bits of bfloat16 stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bits_of(path: Path) -> dict[str, Array]:
    """The tensors of a file in bfloat16, as their bits."""
    from jv5kit.weights import read_weights

    tensors = {}
    for name, (kind, shape, data) in read_weights([path]).items():
        assert kind == "BF16"
        tensors[name] = data.view(np.uint16).reshape(shape)
    return tensors
