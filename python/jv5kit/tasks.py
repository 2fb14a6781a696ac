"""The four tasks, and which prompt a text gets for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

Task = Literal["retrieval", "text-matching", "clustering", "classification"]
TASKS: tuple[Task, ...] = get_args(Task)

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which models keep the prompt of a document, ours and v5's first."""


def query_prompt(prompts: Mapping[str, str], task: str) -> str:
    """The prompt of a query: the query prompt for retrieval, the document prompt for every other task."""
    return prompts.get("query", "") if task == "retrieval" else document_prompt(prompts)


def document_prompt(prompts: Mapping[str, str]) -> str:
    """The prompt of a document; a model without prompts gets none."""
    return next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), "")


def named_prompt(prompts: Mapping[str, str], name: str | None, default: str | None) -> str:
    """The prompt that a caller names, else the model's default; a model without prompts gets none.

    Raises:
        InputError: the model has prompts, but none of that name.
    """
    name = name if name is not None else default
    if name is None or not any(prompts.values()):
        return ""
    if name not in prompts:
        raise InputError(f"prompt_name={name!r} is not a prompt of this model; it has {', '.join(map(repr, prompts))}")
    return prompts[name]
