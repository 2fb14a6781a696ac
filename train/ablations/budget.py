"""How many steps a phase is to have for its tokens."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from jv5kit.encoder import load_tokenizer
from jv5kit.pretrained import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SAMPLE = 512
"""Rows whose tokens are counted."""

MARGIN = 1.06
"""Over the tokens wanted: the rows that a run draws may be shorter than those that were counted."""


def tokens_of_a_row(path: Path, model: str, length: int, names: Sequence[str]) -> float:
    """Tokens that the rows of a file have on average.

    Args:
        path: of the file, JSONL.
        model: whose tokenizer counts.
        length: tokens that a text is cut to.
        names: of the fields that are texts; a row need not have all.
    """
    tokenizer = load_tokenizer(load_checkpoint(model))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    # From all over the file, which may have one source after the other.
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:: max(1, len(lines) // SAMPLE)]]
    texts = [row[name] for row in rows for name in names if name in row]
    return sum(len(one.ids) for one in tokenizer.encode_batch(texts)) / len(rows)


def steps_for(tokens: int, of_row: float, batch: int) -> int:
    """Steps that take at least so many tokens."""
    return math.ceil(MARGIN * tokens / (of_row * batch))
