"""Adapters of a model, one a task, beside weights into which they were merged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from models import TEXTS, Array, tensors_of, write_tensors

from jv5kit import Encoder
from jv5kit.backends import BackendName
from jv5kit.errors import InputError, ModelNotFoundError

BERT_LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
QWEN3_LINEARS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
TASKS: dict[str, dict[str, dict[str, int]]] = {
    "bert": {
        "retrieval": {f"encoder.layer.{i}.{name}": 4 for i in range(2) for name in BERT_LINEARS},
        # Of queries alone, of values without keys, of one layer; ranks that fill no vector.
        "clustering": {"encoder.layer.1.attention.self.query": 3, "encoder.layer.1.intermediate.dense": 3},
        "text-matching": {"encoder.layer.0.attention.self.value": 33, "encoder.layer.1.output.dense": 33},
    },
    "qwen3": {
        "retrieval": {f"layers.{i}.{name}": 4 for i in range(2) for name in QWEN3_LINEARS},
        "clustering": {"layers.0.mlp.up_proj": 1, "layers.1.self_attn.v_proj": 1},
        "text-matching": {"layers.0.mlp.gate_proj": 40, "layers.1.self_attn.k_proj": 40},
    },
}


@pytest.fixture(autouse=True, params=["merged", "apart"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the native backend keeps adapters: in the weights of a small model, beside those of a large one."""
    if request.param == "apart":
        monkeypatch.setattr("jv5kit.native.MERGED_VALUES", 0)
    return str(request.param)


@pytest.fixture(scope="module", params=list(TASKS))
def adapted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A model with adapters; and by task a model without, into whose weights its adapter was merged."""
    root = tmp_path_factory.mktemp("adapters")
    plain = models.bert(root / "plain") if request.param == "bert" else models.qwen3(root / "plain")
    folder = Path(shutil.copytree(plain, root / "model"))
    merged = {}
    for seed, (task, linears) in enumerate(TASKS[request.param].items()):
        added = models.add_adapter(folder, task, linears, alpha=6, seed=seed)
        merged[task] = Path(shutil.copytree(plain, root / task))
        weights = tensors_of(plain)
        write_tensors(merged[task] / "model.safetensors", {n: w + added.get(n, 0) for n, w in weights.items()})
    return folder, merged


def direction(ours: Array, theirs: Array) -> float:
    return float((ours.astype(np.float64) * theirs).sum(axis=1).min())


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_task_is_its_adapter_merged(adapted: tuple[Path, dict[str, Path]], backend: BackendName) -> None:
    """Switched from call to call, and back."""
    folder, merged = adapted
    encoder = Encoder.from_pretrained(folder, backend=backend, dtype="float32")
    first = encoder.encode(TEXTS)
    embeddings = {task: encoder.encode(TEXTS, task=task) for task in merged}
    np.testing.assert_array_equal(embeddings["retrieval"], first)
    np.testing.assert_array_equal(encoder.encode_query(TEXTS, task="clustering"), embeddings["clustering"])
    for task, other in merged.items():
        expected = Encoder.from_pretrained(other, backend=backend, dtype="float32").encode(TEXTS)
        assert direction(embeddings[task], expected) > 0.99999, task
    for task in ("clustering", "text-matching"):
        assert direction(embeddings[task], first) < 0.999, "the tasks are well apart"


def test_a_task_in_bfloat16_is_near(adapted: tuple[Path, dict[str, Path]]) -> None:
    folder, merged = adapted
    encoder = Encoder.from_pretrained(folder, backend="native", dtype="bfloat16")
    for task, other in merged.items():
        expected = Encoder.from_pretrained(other, backend="native", dtype="float32").encode(TEXTS)
        assert direction(encoder.encode(TEXTS, task=task), expected) > 0.998, task


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_the_root_of_the_rank_may_be_the_scale(model_copy: Path, backend: BackendName) -> None:
    """``use_rslora``: alpha 8 over the root of 16 is alpha 32 over 16."""
    linears = {"encoder.layer.0.output.dense": 16}
    models.add_adapter(model_copy, "retrieval", linears, alpha=8, use_rslora=True)
    models.add_adapter(model_copy, "clustering", linears, alpha=32)
    encoder = Encoder.from_pretrained(model_copy, backend=backend, dtype="float32")
    ours, same = (encoder.encode(TEXTS, task=task, prompt="") for task in ("retrieval", "clustering"))
    np.testing.assert_allclose(ours, same, atol=1e-6)


def test_an_unknown_task_is_an_error_that_names_them(adapted: tuple[Path, dict[str, Path]]) -> None:
    encoder = Encoder.from_pretrained(adapted[0])
    with pytest.raises(InputError, match=r"task='poem' .*'clustering', 'retrieval', 'text-matching'"):
        encoder.encode("a penguin", task="poem")


def test_adapters_decide_the_fingerprint(model_copy: Path) -> None:
    """An index is not searched with other adapters than its own."""
    prints = [Encoder.from_pretrained(model_copy).checkpoint.fingerprint()]
    for seed in range(2):
        models.add_adapter(model_copy, "retrieval", {"encoder.layer.0.output.dense": 4}, seed=seed)
        prints.append(Encoder.from_pretrained(model_copy).checkpoint.fingerprint())
    assert len(set(prints)) == 3


# Adapters that cannot be read

LAYER = "encoder.layer.0.output.dense"
LORA = f"base_model.model.{LAYER}.lora_"


def setting(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        models.add_adapter(folder.parent.parent, "retrieval", {LAYER: 4}, **values)

    return change


def put(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def tensors(change: Callable[[dict[str, Array]], dict[str, Array]]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        from safetensors.numpy import load_file

        path = folder / "adapter_model.safetensors"
        write_tensors(path, change({name: tensor.copy() for name, tensor in load_file(path).items()}))

    return write


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (put("adapter_config.json", "{"), r"adapter_config\.json cannot be loaded"),
        (put("adapter_config.json", "[]"), r"adapter_config\.json cannot be loaded"),
        (put("adapter_config.json", "{}"), r"adapter_config\.json cannot be loaded: 'r' is missing"),
        (setting(r=0), "no peft_type LORA with a rank r and a lora_alpha"),
        (setting(r="4"), "no peft_type LORA with a rank r"),
        (setting(lora_alpha="16"), "no peft_type LORA with a rank r and a lora_alpha"),
        (setting(peft_type="IA3"), "no peft_type LORA"),
        (setting(use_dora=True), "it has use_dora True, which is not known"),
        (setting(rank_pattern={"query": 8}), "it has rank_pattern"),
        (setting(alpha_pattern={"query": 8}), "it has alpha_pattern"),
        (setting(modules_to_save=["pooler"]), "it has modules_to_save"),
        (setting(bias="all"), "it has bias 'all', which is not known"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (put("adapter_model.safetensors", "x"), "adapter_model.safetensors cannot be loaded: it has 1 bytes"),
        (tensors(lambda t: {LORA + "A.weight": t[LORA + "A.weight"]}), rf"retrieval.*{LAYER}"),
        (tensors(lambda t: {LORA + "B.weight": t[LORA + "B.weight"]}), rf"retrieval.*{LAYER}"),
        (tensors(lambda t: t | {LORA + "A.weight": t[LORA + "A.weight"][:, :-1].copy()}), rf"retrieval.*{LAYER}"),
        (tensors(lambda t: t | {LORA + "B.weight": t[LORA + "B.weight"][:-1].copy()}), rf"retrieval.*{LAYER}"),
        (tensors(lambda t: {name.replace("layer.0", "layer.7"): x for name, x in t.items()}), r"retrieval.*layer\.7"),
        (tensors(lambda t: {name.replace("lora_", "moon_"): x for name, x in t.items()}), "retrieval.*moon_"),
    ],
)
def test_a_broken_adapter_is_named(
    model_copy: Path, backend: BackendName, damage: Callable[[Path], object], message: str
) -> None:
    models.add_adapter(model_copy, "retrieval", {LAYER: 4})
    damage(model_copy / "adapters" / "retrieval")
    with pytest.raises(ModelNotFoundError, match=message):
        Encoder.from_pretrained(model_copy, backend=backend)


@pytest.mark.parametrize("half", ["A", "B"])
def test_a_value_that_is_no_number_is_named(model_copy: Path, half: str) -> None:
    models.add_adapter(model_copy, "retrieval", {LAYER: 4})
    name = f"{LORA}{half}.weight"
    tensors(lambda t: t | {name: t[name] * np.float32(np.nan)})(model_copy / "adapters" / "retrieval")
    message = f"adapter retrieval: {LAYER}.lora_{half}.weight has the value NaN in row 0"
    with pytest.raises(ModelNotFoundError, match=message):
        Encoder.from_pretrained(model_copy, backend="native")
