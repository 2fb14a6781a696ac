"""What a finished run becomes: a folder to load, of the backbone with its adapters, or of one task merged into it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jv5kit.errors import InputError
from jv5kit.pretrained import PACKAGED, load_checkpoint, read_config
from jv5kit.quantize import quantize_rows
from jv5kit.tasks import document_prompt
from jv5kit.training.architectures import ARCHITECTURES, own_names
from jv5kit.training.card import Facts, read_run, write_card
from jv5kit.training.layout import TOKENIZER_FILES, copy_tokenizer, write_layout
from jv5kit.weights import float_matrix, float_tensor, merge_adapter, read_weights, write_weights

if TYPE_CHECKING:
    from jv5kit.pretrained import Checkpoint
    from jv5kit.weights import Tensor

WEIGHTS = "model.safetensors"
INT8_WEIGHTS = "model.int8.safetensors"
"""Not the name that transformers looks for: it would take the int8 rows for the weights, without their scales."""

ENTRIES = (
    WEIGHTS,
    INT8_WEIGHTS,
    "config.json",
    "modules.json",
    "1_Pooling",
    "2_Normalize",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    *TOKENIZER_FILES,
    "adapters",
    "onnx",
    "train.png",
    "README.md",
)
"""What an export may consist of."""


def is_model(source: Path) -> bool:
    """Whether it is a run of training, a model's folder, or the name of a model in a package."""
    if not source.exists() and str(source) in PACKAGED:
        return True
    return any((source / name).is_file() for name in ("run.toml", "config.json", "modules.json"))


def export_model(
    source: Path, output: Path, *, merge: str | None = None, int8: bool = False, onnx: bool = False, force: bool = False
) -> list[Path]:
    """Write a model as a folder that this package loads, and sentence-transformers too unless it has int8 rows.

    Without ``merge`` the folder has the backbone and ``adapters/TASK``, one of which an encoder uses in each call. All
    files are written aside, and get their names when all are there.

    Args:
        source: the folder of a run, or any model's, or the name of a model in a package.
        output: the folder to write.
        merge: the task whose adapter is added to the weights; the others are left out.
        int8: matrices as int8 rows with a scale each, adapters in float16: a quarter of the size, for this package
            alone.
        onnx: write ``onnx/model.onnx`` as well: float32, pooled, of unit length.
        force: replace an export that is there.

    Returns:
        The files.

    Raises:
        InputError: the source is none, has no such adapter, or the output is there already or cannot be written.
        MissingExtraError: ``onnx`` asks for a library that is not installed.
    """
    checkpoint = load_checkpoint(_student_of(source))
    if merge is not None and merge not in checkpoint.adapters:
        known = ", ".join(checkpoint.adapters) or "none"
        raise InputError(f"--merge {merge} is no adapter of {source}; it has {known}")
    if onnx:
        _check_onnx(checkpoint, merge)
    if output.resolve().is_relative_to(checkpoint.folder.resolve()):
        raise InputError(f"{output} is the model itself, or within it; export to another folder")
    old = [output / name for name in ENTRIES if (output / name).exists()]
    if old and not force:
        raise InputError(f"{old[0]} exists; replace the export with --force (force=True), or name another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as name:
            aside = Path(name)
            _write(checkpoint, source, aside, merge=merge, int8=int8, onnx=onnx)
            for path in old:
                (shutil.rmtree if path.is_dir() else Path.unlink)(path)
            written = sorted(path.relative_to(aside) for path in aside.rglob("*") if path.is_file())
            for path in sorted(aside.iterdir()):
                path.replace(output / path.name)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}") from None
    return [output / path for path in written]


def _student_of(source: Path) -> Path:
    """The folder of the model."""
    if (source / "student").is_dir():
        return source / "student"
    if (source / "run.toml").is_file():
        raise InputError(f"{source} is a run of which no phase is done; go on with it: jv5kit train --resume")
    return source


def _check_onnx(checkpoint: Checkpoint, merge: str | None) -> None:
    from jv5kit.training.onnx_file import check_onnx

    if checkpoint.adapters and merge is None:
        tasks = ", ".join(checkpoint.adapters)
        raise InputError(f"an ONNX file is of one task; choose it with --merge, one of {tasks}")
    check_onnx()


def _write(checkpoint: Checkpoint, source: Path, folder: Path, *, merge: str | None, int8: bool, onnx: bool) -> None:
    config = read_config(checkpoint)
    tensors = _tensors(checkpoint, config)
    if merge is not None:
        merge_adapter(tensors, checkpoint.adapters[merge])
    if int8:
        # No library that would miss it loads the rows.
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
        _to_rows(tensors)
    else:
        _to_floats(tensors)
    write_weights(folder / (INT8_WEIGHTS if int8 else WEIGHTS), tensors)
    copy_tokenizer(checkpoint.folder, folder, checkpoint.max_tokens)
    write_layout(
        folder,
        config,
        dim=checkpoint.dim,
        pooling=checkpoint.pooling,
        prompts=_prompts(checkpoint, merge),
        default_prompt_name=checkpoint.default_prompt_name,
        max_tokens=checkpoint.max_tokens,
        lower_case=checkpoint.lower_case,
    )
    if merge is None:
        for task, adapter in checkpoint.adapters.items():
            place = folder / "adapters" / task
            place.mkdir(parents=True)
            shutil.copyfile(adapter / "adapter_config.json", place / "adapter_config.json")
            if int8:
                halves = read_weights([adapter / "adapter_model.safetensors"])
                write_weights(place / "adapter_model.safetensors", {name: _half(one) for name, one in halves.items()})
            else:
                shutil.copyfile(adapter / "adapter_model.safetensors", place / "adapter_model.safetensors")
    if onnx:
        from jv5kit.training.onnx_file import write_onnx
        from jv5kit.training.student import Student, StudentStart

        # Of what was written, int8 rows included: its embeddings are those of the folder.
        write_onnx(Student.load(StudentStart(model=str(folder))), folder / "onnx" / "model.onnx")
    facts = Facts(
        checkpoint=load_checkpoint(folder),
        config=config,
        merged=merge,
        int8=int8,
        onnx=onnx,
        license=checkpoint.license,
    )
    write_card(folder, facts, read_run(source))


def _tensors(checkpoint: Checkpoint, config: dict[str, Any]) -> dict[str, Tensor]:
    """A model's tensors, under the names of transformers' model without a head."""
    tensors = read_weights(sorted(checkpoint.folder.glob("*.safetensors")))
    row = ARCHITECTURES.get(str(config.get("model_type")))
    if row is None:
        return tensors
    heads = tuple(start for start in row.ignored if start != "pooler.")
    own = own_names(row, tensors)
    return {own[name]: tensor for name, tensor in tensors.items() if not own[name].startswith(heads)}


def _to_rows(tensors: dict[str, Tensor]) -> None:
    """Turn matrices into int8 rows with a scale each; vectors stay."""
    for name, tensor in list(tensors.items()):
        dtype, shape, _ = tensor
        if len(shape) == 2 and dtype in ("F64", "F32", "F16", "BF16"):
            rows, scales = quantize_rows(float_matrix(tensor))
            tensors[name] = "I8", shape, rows.reshape(-1).view("uint8")
            tensors[f"{name}_scale"] = float_tensor(scales)


def _to_floats(tensors: dict[str, Tensor]) -> None:
    """Turn int8 rows into the floats that they stand for: other libraries would take them for the weights."""
    for name, tensor in list(tensors.items()):
        if tensor[0] == "I8":
            tensors[name] = float_tensor(float_matrix(tensor, tensors.pop(f"{name}_scale", None)))


def _half(tensor: Tensor) -> Tensor:
    """A tensor in float16: what an adapter adds is small, and so is what rounding it costs."""
    values = float_matrix(tensor).astype("float16")
    return "F16", list(values.shape), values.reshape(-1).view("uint8")


def _prompts(checkpoint: Checkpoint, merge: str | None) -> dict[str, str]:
    """A model of one task other than retrieval has one prompt, that of documents, whatever asks for it."""
    if merge in (None, "retrieval"):
        return checkpoint.prompts
    return dict.fromkeys(checkpoint.prompts, document_prompt(checkpoint.prompts))
