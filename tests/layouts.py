"""Folders of sentence-transformers' and transformers' layouts, by name."""

from collections.abc import Callable
from pathlib import Path

import models

FOLDERS: dict[str, Callable[[Path], Path]] = {
    "mean, flags": lambda folder: models.as_sentence_transformers(models.bert(folder), layout="flags"),
    "mean, paths": lambda folder: models.as_sentence_transformers(models.bert(folder)),
    "cls, flags": lambda folder: models.as_sentence_transformers(models.bert(folder), pooling="cls", layout="flags"),
    "cls, paths": lambda folder: models.as_sentence_transformers(models.bert(folder), pooling="cls", normalize=False),
    "lasttoken, flags": lambda folder: models.as_sentence_transformers(
        models.bert(folder), pooling="lasttoken", layout="flags"
    ),
    "lower case": lambda folder: models.as_sentence_transformers(
        models.bert(folder, lower_case=False), do_lower_case=True, prompts={"query": "QUERY: "}
    ),
    "short context": lambda folder: models.as_sentence_transformers(models.bert(folder), max_seq_length=12),
    "plain bert": models.bert,
    "qwen3, paths": lambda folder: models.as_sentence_transformers(models.qwen3(folder), pooling="lasttoken"),
    "qwen3, mean": lambda folder: models.as_sentence_transformers(models.qwen3(folder), layout="flags"),
}
