"""Exports: the folder with adapters and the one of a single task, as this package and others load them; the card."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from command import environment
from models import TEXTS, write_json
from safetensors.numpy import load_file

from jv5kit import Encoder
from jv5kit.backends import BackendName
from jv5kit.errors import InputError, MissingExtraError
from jv5kit.evaluation.shares import shares, to_json
from jv5kit.training import export as export_module
from jv5kit.training import lora
from jv5kit.training.export import export_model
from jv5kit.training.student import Student, StudentStart

TASKS = ("classification", "clustering", "retrieval")
PROMPTS = {"query": "Query: ", "document": "Document: "}
PROSE = [text for text in TEXTS if text.strip()]

SETTINGS = """size = "pico"
[student]
model = "all-MiniLM-L6-v2"
layers = [1, 5]
[teacher]
model = "someone/a-teacher"
"""
DATA = [
    {"name": "pairs", "rows": 12345, "fingerprint": "00", "licence": "CC BY 4.0"},
    {"name": "scored", "rows": 7, "fingerprint": "01", "licence": ""},
]
METRICS = [
    {"phase": "distill", "step": 1, "source": "pairs", "loss": 0.9, "distill": 0.8, "tokens": 99, "learning_rate": 1.0},
    {"phase": "distill", "step": 50, "scores": {"graded spearman": 0.25}},
    {
        "phase": "distill",
        "step": 50,
        "source": "pairs",
        "loss": 0.4,
        "distill": 0.3,
        "tokens": 99,
        "learning_rate": 0.1,
    },
]
SCORES = {
    "sets": [
        {
            "name": "cranfield",
            "metric": "nDCG@10",
            "scores": [
                {"dim": 64, "precision": "float32", "bytes": 256, "nDCG@10": 0.39615},
                {"dim": 64, "precision": "ubinary", "bytes": 8, "nDCG@10": 0.295},
            ],
        },
        {"name": "empty", "metric": None, "scores": []},
    ]
}


def run_of(folder: Path, output: Path, pooling: Any) -> Path:
    """What a finished run leaves, its adapters drawn at random."""
    student = Student.load(StudentStart(model=str(folder), pooling=pooling, prompts=PROMPTS))
    student.save(output / "student")
    for seed, task in enumerate(TASKS):
        lora.add_adapter(student, rank=4, alpha=6, dropout=0.1, seed=seed)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for matrix in lora.adapter_parameters(student):
                matrix.copy_(0.2 * torch.randn(matrix.shape, generator=draw))
        lora.save_adapter(student, output / "student" / "adapters" / task)
        lora.remove_adapter(student)
    (output / "run.toml").write_text(SETTINGS)
    write_json(output / "data.json", DATA)
    (output / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    write_json(output / "scores.json", SCORES)
    (output / "train.png").write_bytes(b"\x89PNG")
    return output


@pytest.fixture(scope="module", params=["bert", "qwen3", "eurobert"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "bert":
        return run_of(models.bert(root / "model"), root / "run", "mean")
    if request.param == "qwen3":
        return run_of(models.qwen3(root / "model", end=""), root / "run", "lasttoken")
    vocabulary = models.write_tokenizer(root / "model", template="$A")
    models.random_model(root / "model", "eurobert", vocab_size=vocabulary, num_key_value_heads=4, pad_token_id=0)
    return run_of(root / "model", root / "run", "lasttoken")


@pytest.fixture(scope="module")
def bert_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    return run_of(models.bert(root / "model"), root / "run", "mean")


def load(folder: Path, backend: BackendName = "native") -> Encoder:
    return Encoder.from_pretrained(folder, backend=backend, dtype="float32")


def trained(run: Path, task: str, prompt: str) -> models.Array:
    """The embeddings of the student itself."""
    student = Student.load(StudentStart(model=str(run / "student"))).eval()
    lora.load_adapter(student, run / "student" / "adapters" / task)
    with torch.no_grad():
        embedded = student.embed(student.tokenize(TEXTS, prompt, student.max_tokens))
    unit: models.Array = torch.nn.functional.normalize(embedded, dim=1).numpy()
    return unit


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_with_adapters_the_task_is_chosen_in_each_call(run: Path, backend: BackendName, tmp_path: Path) -> None:
    files = export_model(run, tmp_path)
    assert sorted(files) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    encoder = load(tmp_path, backend)
    assert sorted(encoder.checkpoint.adapters) == sorted(TASKS)
    embeddings = {task: encoder.encode_query(TEXTS, task=task) for task in TASKS}
    for task in TASKS:
        prompt = PROMPTS["query" if task == "retrieval" else "document"]
        np.testing.assert_allclose(embeddings[task], trained(run, task, prompt), atol=1e-5)
    assert np.abs(embeddings["retrieval"] - embeddings["clustering"]).max() > 0.01


@pytest.mark.parametrize("task", ["retrieval", "clustering"])
def test_one_task_merged_is_the_same_everywhere(run: Path, task: str, tmp_path: Path) -> None:
    """In both backends, and in sentence-transformers without any code of ours."""
    from sentence_transformers import SentenceTransformer

    export_model(run, tmp_path, merge=task)
    assert not (tmp_path / "adapters").exists()
    expected = {"query": trained(run, task, PROMPTS["query" if task == "retrieval" else "document"])}
    expected["document"] = trained(run, task, PROMPTS["document"])
    for backend in ("native", "torch"):
        encoder = load(tmp_path, backend)
        np.testing.assert_allclose(encoder.encode_query(TEXTS), expected["query"], atol=1e-5)
        np.testing.assert_allclose(encoder.encode_document(TEXTS), expected["document"], atol=1e-5)
    model = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=False)
    rows = [i for i, text in enumerate(TEXTS) if text.strip()]
    for name, encode in (("query", model.encode_query), ("document", model.encode_document)):
        np.testing.assert_allclose(encode(PROSE), expected[name][rows], atol=1e-5)


@pytest.mark.parametrize("merge", ["retrieval", None])
def test_int8_rows(run: Path, merge: str | None, tmp_path: Path) -> None:
    from transformers import AutoModel

    files = export_model(run, tmp_path / "whole", merge=merge)
    small = export_model(run, tmp_path / "small", merge=merge, int8=True)
    sizes = [next(p.stat().st_size for p in paths if p.match("model*.safetensors")) for paths in (files, small)]
    assert sizes[1] < 0.35 * sizes[0]
    whole = load(tmp_path / "whole").encode(TEXTS)
    embeddings = load(tmp_path / "small").encode(TEXTS)
    assert (embeddings * whole).sum(axis=1).min() > 0.98
    assert not np.array_equal(embeddings, whole)
    np.testing.assert_allclose(load(tmp_path / "small", "torch").encode(TEXTS), embeddings, atol=1e-5)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(tmp_path / "small")


def test_any_model_may_be_exported(tiny_model: Path, tmp_path: Path) -> None:
    """As when another library is to read its weights; here in bfloat16, and under the prefix of a model with a head."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    models.add_adapter(folder, "retrieval", {"encoder.layer.0.output.dense": 4})
    own = models.tensors_of(folder)
    tensors = {name: (tensor.view(np.uint32) >> 16).astype(np.uint16) for name, tensor in own.items()}
    models.write_tensors(folder / "model.safetensors", tensors)
    before = load(folder)
    headed = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    models.write_tensors(folder / "model.safetensors", headed | {"cls.bias": np.zeros(3, np.float32)})
    export_model(folder, tmp_path / "out")
    export_model(folder, tmp_path / "merged", merge="retrieval")
    export_model(tmp_path / "out", tmp_path / "again", int8=True)
    export_model(tmp_path / "again", tmp_path / "small", merge="retrieval")
    expected = before.encode(TEXTS)
    np.testing.assert_array_equal(load(tmp_path / "out").encode(TEXTS), expected)
    np.testing.assert_allclose(load(tmp_path / "merged").encode(TEXTS), expected, atol=1e-5)
    assert (load(tmp_path / "small").encode(TEXTS) * expected).sum(axis=1).min() > 0.98
    for name in ("out", "merged", "again", "small"):
        assert load(tmp_path / name).checkpoint.prompts == before.checkpoint.prompts
    assert "## Training" not in (tmp_path / "out" / "README.md").read_text()


def test_no_torch_is_needed(bert_run: Path, tmp_path: Path) -> None:
    """But for ONNX."""
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from pathlib import Path
from jv5kit.training.export import export_model
export_model(Path({str(bert_run)!r}), Path({str(tmp_path)!r}), merge="retrieval", int8=True)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    assert load(tmp_path).encode("a penguin").shape == (models.DIM,)


# ONNX


@pytest.mark.parametrize(("run", "int8"), [("bert", False), ("qwen3", True)], indirect=["run"])
def test_an_onnx_file_gives_the_same_embeddings(run: Path, int8: bool, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_model(run, tmp_path, merge="retrieval", int8=int8, onnx=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    assert [one.name for one in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [one.name for one in session.get_outputs()] == ["sentence_embedding"]
    student = Student.load(StudentStart(model=str(tmp_path)))
    expected = load(tmp_path).encode(TEXTS, prompt="")
    tokens = student.tokenize(TEXTS, "", student.max_tokens)
    for texts in ([tokens[0]], tokens):
        longest = max(map(len, texts))
        for left in (False, True):
            ids, mask = np.zeros((2, len(texts), longest), np.int64)
            for row, text in enumerate(texts):
                place = slice(longest - len(text), longest) if left else slice(len(text))
                ids[row, place], mask[row, place] = text, 1
            (found,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
            np.testing.assert_allclose(found, expected[: len(texts)], atol=1e-5)


def test_an_onnx_file_is_of_one_task_and_needs_its_library(
    bert_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match="an ONNX file is of one task; choose it with --merge, one of classification, "
    ):
        export_model(bert_run, tmp_path / "out", onnx=True)
    monkeypatch.setattr("jv5kit.training.onnx_file.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"an ONNX file needs onnx: pip install 'jv5kit\[onnx\]'"):
        export_model(bert_run, tmp_path / "out", merge="retrieval", onnx=True)
    assert not (tmp_path / "out").exists()


def test_an_architecture_that_is_padded_has_no_onnx_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    vocabulary = models.write_tokenizer(tmp_path / "model", template="[CLS] $A [SEP]")
    models.random_model(tmp_path / "model", "electra", vocab_size=vocabulary, embedding_size=models.DIM)
    with pytest.raises(InputError, match="a electra has no ONNX file here"):
        export_model(tmp_path / "model", tmp_path / "out", onnx=True)
    assert list((tmp_path / "out").iterdir()) == []


# The folder


def test_nothing_is_overwritten_without_force(bert_run: Path, tmp_path: Path) -> None:
    export_model(bert_run, tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"model\.safetensors exists; replace the export with --force"):
        export_model(bert_run, tmp_path, merge="retrieval")
    assert (tmp_path / "adapters").exists()
    export_model(bert_run, tmp_path, merge="retrieval", int8=True, force=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"mine.txt", "model.int8.safetensors"} <= names
    assert not {"adapters", "model.safetensors"} & names, "what was exported before does not stay beside it"
    load(tmp_path)


def test_an_export_that_fails_leaves_what_was_there(
    bert_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(bert_run, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "write_card", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device"):
        export_model(bert_run, tmp_path, merge="retrieval", force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_cannot_be_exported_is_named(bert_run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"--merge poem is no adapter of .*; it has classification, clustering, retrieval"
    ):
        export_model(bert_run, tmp_path, merge="poem")
    with pytest.raises(InputError, match="is the model itself, or within it"):
        export_model(bert_run, bert_run / "student" / "out")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.toml").write_text(SETTINGS)
    with pytest.raises(InputError, match="is a run of which no phase is done; go on with it: jv5kit train --resume"):
        export_model(tmp_path / "begun", tmp_path / "out")
    broken = Path(shutil.copytree(bert_run, tmp_path / "broken"))
    (broken / "data.json").write_text("{")
    with pytest.raises(InputError, match=r"data\.json cannot be read: .*mend it or remove it"):
        export_model(broken, tmp_path / "out")


def test_an_adapter_of_another_model_is_not_merged(bert_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(bert_run, tmp_path / "run"))
    adapter = run / "student" / "adapters" / "retrieval" / "adapter_model.safetensors"
    tensors = {name: tensor.copy() for name, tensor in load_file(adapter).items()}
    first = min(tensors)
    models.write_tensors(adapter, {name.replace("layer.0", "layer.9"): tensor for name, tensor in tensors.items()})
    with pytest.raises(InputError, match=r"layer\.9.* belongs to no layer of the model"):
        export_model(run, tmp_path / "out", merge="retrieval")
    models.write_tensors(adapter, tensors | {first: tensors[first][:, :-1].copy()})
    with pytest.raises(InputError, match=r"lora_A and lora_B of .* have the shapes"):
        export_model(run, tmp_path / "out", merge="retrieval")


# The card


def test_the_card_says_whose_work_it_is(bert_run: Path, tmp_path: Path) -> None:
    export_model(bert_run, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: jv5kit\n")
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2\n" in card
    assert "| tasks | classification, clustering, retrieval: an adapter each |" in card
    assert "- Backbone: `all-MiniLM-L6-v2`; its weights were the start. Licence: Apache-2.0." in card
    assert "- Teacher: `someone/a-teacher`. Licence: not stated: find it out before you publish." in card
    assert "| pairs | 12,345 | CC BY 4.0 |" in card
    assert "| scored | 7 | not stated: find it out before you publish |" in card
    assert (
        "| set | metric | float32, 64 | ubinary, 64 |\n|---|---|---|---|\n| cranfield | nDCG@10 | 0.3962 | 0.2950 |"
        in card
    )
    assert "| distill | loss | 0.9000 | 0.4000 | 50 |" in card
    assert "| distill | distill | 0.8000 | 0.3000 | 50 |" in card
    assert "| distill | graded spearman | 0.2500 | 0.2500 | 50 |" in card
    assert "tokens |" not in card.partition("## Training")[2]
    assert SETTINGS.rstrip() in card
    assert "](train.png)" in card
    assert (tmp_path / "train.png").read_bytes() == b"\x89PNG"
    assert str(tmp_path.parent) not in card


@pytest.mark.parametrize("merge", [None, "clustering"])
def test_the_code_of_the_card_runs(
    bert_run: Path, merge: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_model(bert_run, tmp_path, merge=merge)
    card = (tmp_path / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == (1 if merge is None else 2)
    names: list[dict[str, Any]] = []
    for block in blocks:
        names.append({})
        exec(block.replace("FOLDER OR HUB ID", str(tmp_path)), names[-1])
    assert "[[" in capsys.readouterr().out
    for other in names[1:]:
        for name in ("queries", "documents"):
            assert np.einsum("ij,ij->i", other[name], names[0][name]).min() > 0.999


def test_the_card_tells_apart_what_was_trained_on(bert_run: Path, tmp_path: Path) -> None:
    """And says the shares of another model's scores, and what the author says."""
    run = Path(shutil.copytree(bert_run, tmp_path / "run"))
    write_json(run / "data.json", [DATA[0] | {"sets": ["banking", "openstax"]}, DATA[1] | {"sets": []}])
    (run / "notes.md").write_text("It knows nothing of birds.\n")

    def scores(model: str, **sets: float) -> dict[str, Any]:
        measured = [
            {
                "name": name,
                "kind": "retrieval",
                "metric": "nDCG@10",
                "scores": [{"dim": 64, "precision": "float32", "nDCG@10": value}],
            }
            for name, value in sets.items()
        ]
        return {"model": model, "sets": measured}

    own = scores("own", cranfield=0.4, vaswani=0.2, banking=0.9)
    found = shares(own, scores("/home/somebody/large", cranfield=0.5, vaswani=0.25, banking=1.0))
    write_json(run / "scores.json", own | {"against": to_json(found, "/home/somebody/large")})
    export_model(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "## Notes\n\nIt knows nothing of birds.\n" in card
    assert "| pairs | 12,345 | CC BY 4.0 | banking, openstax |" in card
    apart, of_these = card.partition("## Scores")[2].split("Of these the training split was.")
    assert "No part of these sets was trained on." in apart
    assert "| cranfield | nDCG@10 | 0.4000 |" in apart
    assert "As a share of `large` with all its dimensions in float32:" in apart
    assert "| retrieval, nDCG@10, mean of 2 | 0.3750 | 80.0% |" in apart
    assert "banking" not in apart
    assert "| retrieval, nDCG@10 | 1.0000 | 90.0% |" in of_these
    assert "somebody" not in card
