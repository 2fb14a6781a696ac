"""What the encoder's benchmark encodes: real texts, and models of the sizes that are in use with random weights."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from jv5kit.documents import read_documents
from jv5kit.pretrained import Checkpoint, load_checkpoint

MINILM = "all-MiniLM-L6-v2"
"""What the peers are compared on: a model that each of them can load."""

LEAST_TOKENS, MOST_TOKENS = 5, 400
SEED = 5

STDLIB_DOCS = Path(__file__).parents[1] / "examples" / "stdlib_docs.py"

VOCABULARY = 30_522
"""Of the default model's tokenizer, which the models with random weights take: looking tokens up costs nothing."""


def gather(paths: Iterable[Path], output: Path) -> None:
    """Write the documents of JSONL files and BEIR folders into one file; of none, Python's documentation."""
    files = [path / "corpus.jsonl" if path.is_dir() else path for path in paths]
    if not files:
        subprocess.run([sys.executable, str(STDLIB_DOCS), str(output)], check=True, stderr=subprocess.DEVNULL)
        return
    with output.open("w", encoding="utf-8") as file:
        # Numbered: documents of two collections may have one id.
        documents = (document for path in files for document in read_documents(path, skip=lambda _: None))
        for number, document in enumerate(documents):
            file.write(json.dumps({"id": str(number), "title": document.title, "text": document.text}) + "\n")


def contents(documents: Path) -> list[str]:
    """The texts of all documents, as an index encodes them."""
    return [document.content for document in read_documents(documents)]


def choose(texts: list[str], count: int) -> list[str]:
    """Some of the texts, in no order, whose length is within the limits."""
    texts = list(dict.fromkeys(texts))
    random.Random(SEED).shuffle(texts)
    encodings = _tokenizer(None).encode_batch_fast(texts)
    fitting = [
        text
        for text, encoding in zip(texts, encodings, strict=True)
        if LEAST_TOKENS <= len(encoding.ids) <= MOST_TOKENS
    ]
    if len(fitting) < count:
        raise SystemExit(f"{len(fitting)} texts of {LEAST_TOKENS}-{MOST_TOKENS} tokens were found; {count} are needed")
    return fitting[:count]


def count_tokens(texts: list[str], checkpoint: Checkpoint) -> int:
    """Tokens of the texts that the model reads."""
    encodings = _tokenizer(checkpoint.tokenizer_file).encode_batch_fast(texts)
    return sum(min(len(encoding.ids), checkpoint.max_tokens) for encoding in encodings)


@cache
def _tokenizer(file: Path | None) -> Tokenizer:
    """A tokenizer that cuts nothing, by default that of the default model."""
    tokenizer: Tokenizer = Tokenizer.from_file(str(file or load_checkpoint(MINILM).tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def eurobert() -> Any:
    """EuroBERT-210m but for its vocabulary."""
    return _untrained("eurobert", hidden=768, layers=12, heads=12, kv_heads=12, width=64)


def qwen3() -> Any:
    """Qwen3-0.6B but for its vocabulary."""
    return _untrained("qwen3", hidden=1024, layers=28, heads=16, kv_heads=8, width=128)


def _untrained(kind: str, *, hidden: int, layers: int, heads: int, kv_heads: int, width: int) -> Any:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        kind,
        vocab_size=VOCABULARY,
        pad_token_id=0,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=width,
        intermediate_size=3072,
    )
    from_config: Any = AutoModel.from_config
    return from_config(config)


def random_model(make: Callable[[], Any], folder: Path) -> Path:
    """A folder of sentence-transformers: random weights, the tokenizer of MiniLM, last-token pooling."""
    import torch

    torch.manual_seed(SEED)
    model = make().eval()
    model.save_pretrained(folder)
    shutil.copy(load_checkpoint(MINILM).tokenizer_file, folder)
    types = {
        "": "sentence_transformers.models.Transformer",
        "1_Pooling": "sentence_transformers.models.Pooling",
        "2_Normalize": "sentence_transformers.models.Normalize",
    }
    files: dict[str, Any] = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "model_max_length": 512,
        },
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": kind}
            for number, (path, kind) in enumerate(types.items())
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": model.config.hidden_size,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_lasttoken": True,
        },
    }
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    return folder
