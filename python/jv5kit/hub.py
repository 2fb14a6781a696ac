"""Models of the hub: their names, the files that are fetched, and what to do where that fails."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from jv5kit.errors import ModelNotFoundError

_HUB_ID = re.compile(r"([\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@([\w-][\w./-]*))?")

# Settings, the tokenizer and weights: no code, no pickle, and not the same weights again for another program.
_FILES = ["*config.json", "*modules.json", "*config_sentence_transformers.json", "*tokenizer.json", "*.safetensors"]
_FILES += ["*.safetensors.index.json"]
_OTHERS = ["onnx/*", "openvino/*"]

_LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"


def fetch(name: str) -> Path:
    """The folder of a model of the hub, its files fetched if they are not in the cache yet.

    Args:
        name: ``ORGANIZATION/NAME``, or ``ORGANIZATION/NAME@REVISION`` for a branch, a tag or a commit.

    Raises:
        ModelNotFoundError: it is no such name, or the files are not to be had; the message says why.
    """
    matched = _HUB_ID.fullmatch(name)
    if matched is None:
        raise ModelNotFoundError(
            f"model {name!r} is neither a folder nor a hub id (ORGANIZATION/NAME or ORGANIZATION/NAME@REVISION)"
        )
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository, revision = matched.groups()
    cache = os.environ.get("JV5KIT_CACHE") or None
    try:
        folder = Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=_FILES, ignore_patterns=_OTHERS, cache_dir=cache
            )
        )
    except HFValidationError as error:
        raise ModelNotFoundError(f"model {name!r} is neither a folder nor a hub id: {error}") from None
    # Offline, unknown, private, no permission: the hub library raises many classes, and each is a model not to be had.
    except Exception as error:
        raise ModelNotFoundError(
            f"model {name!r} is no folder here and could not be fetched from the hub: {_why(error, repository)}"
        ) from error
    # The card has the license. A model runs without: there may be none, or no network to fetch it.
    with suppress(Exception):
        hf_hub_download(repository, "README.md", revision=folder.name, cache_dir=cache)
    return folder


def _why(error: Exception, repository: str) -> str:
    """What went wrong, and what to do."""
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            return f"it is gated; accept its terms on its page of the hub, then {_LOG_IN}"
        case RevisionNotFoundError():
            return "it has no such revision; name a branch, a tag or a commit of it"
        case RepositoryNotFoundError():
            return f"the hub has no such model; check the name, or if it is private {_LOG_IN}"
        case LocalEntryNotFoundError() if HF_HUB_OFFLINE:
            return "not all of it is in the cache, and HF_HUB_OFFLINE forbids to fetch it; unset that, or name a folder"
        case LocalEntryNotFoundError():
            return (
                "the hub cannot be reached; check the network, or fetch it elsewhere "
                f"(hf download {repository} --local-dir FOLDER) and name that folder"
            )
    return str(error).strip().partition("\n")[0] or type(error).__name__
