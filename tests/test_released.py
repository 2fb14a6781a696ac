"""The released checkpoints of jina-embeddings-v5-text: tiny folders of their layouts, beside transformers and peft."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import released
from command import Inside, fails, run, write_jsonl
from references import released_backbone, released_embeddings, sentence_transformer
from released import PROMPTS, TASKS, TEXTS, Size, unified

from jv5kit import Encoder, _native, native
from jv5kit.backends import BackendName
from jv5kit.errors import InputError, ModelNotFoundError
from jv5kit.pretrained import load_checkpoint, read_config

both = pytest.mark.parametrize("backend", ["native", "torch"])


@pytest.fixture(scope="module", params=["small", "nano"])
def size(request: pytest.FixtureRequest) -> Size:
    size: Size = request.param
    return size


@pytest.fixture(scope="module")
def folder(size: Size, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with four adapters."""
    return unified(tmp_path_factory.mktemp("released") / f"jina-embeddings-v5-text-{size}", size)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of ``folder`` to break."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


# Embeddings


@both
@pytest.mark.parametrize("way", ["merged", "apart"])
def test_every_task_and_prompt_equals_peft(
    folder: Path, backend: BackendName, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapters of a model of the released sizes stay apart natively; those of a tiny one do not."""
    if way == "apart":
        monkeypatch.setattr(native, "MERGED_VALUES", 0)
    encoder = Encoder.from_pretrained(folder, backend=backend, device="cpu", dtype="float32")
    found = {}
    for task in TASKS:
        documents = released_embeddings(folder, [f"Document: {text}" for text in TEXTS], task)
        queries = released_embeddings(folder, [f"Query: {text}" for text in TEXTS], task)
        np.testing.assert_allclose(encoder.encode(TEXTS, task=task), documents, atol=1e-5)
        np.testing.assert_allclose(encoder.encode_document(TEXTS, task=task), documents, atol=1e-5)
        np.testing.assert_allclose(encoder.encode(TEXTS, task=task, prompt_name="query"), queries, atol=1e-5)
        expected = queries if task == "retrieval" else documents
        np.testing.assert_allclose(encoder.encode_query(TEXTS, task=task), expected, atol=1e-5)
        found[task] = documents
        assert np.abs(queries - documents).max() > 0.1
    for one in TASKS:
        for other in TASKS:
            assert one == other or np.abs(found[one] - found[other]).max() > 0.1, "the tasks are well apart"
    assert not (folder / released.MARKER).exists()


@both
@pytest.mark.parametrize("dim", [1, 8, 32, 64])
def test_dimensions_are_cut_before_the_length_is_one(folder: Path, backend: BackendName, dim: int) -> None:
    encoder = Encoder.from_pretrained(folder, backend=backend, device="cpu", dtype="float32")
    expected = released_embeddings(folder, [f"Document: {text}" for text in TEXTS], "clustering", dim)
    np.testing.assert_allclose(encoder.encode(TEXTS, task="clustering", truncate_dim=dim), expected, atol=1e-5)


@both
def test_texts_of_one_token_and_of_no_prompt(folder: Path, backend: BackendName) -> None:
    encoder = Encoder.from_pretrained(folder, backend=backend, device="cpu", dtype="float32")
    texts = [text for text in TEXTS if text] + ["?"]
    np.testing.assert_allclose(
        encoder.encode(texts, prompt=""), released_embeddings(folder, texts, "retrieval"), atol=1e-5
    )
    # An empty text without a prompt has no token; the code of the repositories has no answer to that.
    assert np.linalg.norm(encoder.encode("", prompt="")) == pytest.approx(1)


def test_the_tokenizer_adds_nothing(folder: Path) -> None:
    """No token begins or ends a text, and long texts keep their beginning."""
    tokens, _ = Encoder.from_pretrained(folder, device="cpu").tokenize(TEXTS, "Query: ")
    _, tokenizer = released_backbone(folder)
    theirs = tokenizer([f"Query: {text}" for text in TEXTS], truncation=True, max_length=released.CONTEXT)
    assert tokens == theirs["input_ids"]
    plain = tokenizer([f"Query: {text}" for text in TEXTS], add_special_tokens=False)["input_ids"]
    assert tokens == [row[: released.CONTEXT] for row in plain]
    assert max(map(len, plain)) > released.CONTEXT


@both
def test_a_tokenizer_that_ends_texts_is_followed(tmp_path: Path, backend: BackendName) -> None:
    """Whether nano's does is not published: what its tokenizer.json says is done."""
    folder = unified(tmp_path / "model", "nano", end=True)
    encoder = Encoder.from_pretrained(folder, backend=backend, device="cpu", dtype="float32")
    tokens, _ = encoder.tokenize(TEXTS, "Query: ")
    last = json.loads((folder / "config.json").read_text())["eos_token_id"]
    assert {row[-1] for row in tokens} == {last}
    expected = released_embeddings(folder, [PROMPTS["query"] + text for text in TEXTS], "retrieval")
    np.testing.assert_allclose(encoder.encode_query(TEXTS), expected, atol=1e-5)


def test_the_rotary_base_is_that_of_the_settings(folder: Path, copy: Path) -> None:
    encoders = []
    for theta in (None, 10_000):
        settings = json.loads((folder / "config.json").read_text())
        assert settings["rope_theta"] in (3_500_000, 1_000_000)
        models.write_json(copy / "config.json", settings | ({"rope_theta": theta} if theta else {}))
        encoders.append(Encoder.from_pretrained(copy, backend="native", dtype="float32").encode(TEXTS))
    assert np.abs(encoders[0] - encoders[1]).max() > 0.01


def test_bfloat16_is_near(folder: Path) -> None:
    """What is taken on a CPU where no type is named."""
    fast = Encoder.from_pretrained(folder, backend="native", dtype="bfloat16")
    exact = Encoder.from_pretrained(folder, backend="native", dtype="float32")
    for task in TASKS:
        cosines = (fast.encode(TEXTS, task=task) * exact.encode(TEXTS, task=task)).sum(axis=1)
        assert cosines.min() > 0.99, task


# Switching tasks


@both
@pytest.mark.parametrize("way", ["merged", "apart"])
def test_tasks_are_switched_without_loading_again(
    folder: Path, backend: BackendName, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "apart":
        monkeypatch.setattr(native, "MERGED_VALUES", 0)
    encoder = Encoder.from_pretrained(folder, backend=backend, device="cpu")
    first = {task: encoder.encode(TEXTS, task=task) for task in TASKS}

    def loaded(*_: object, **__: object) -> None:
        pytest.fail("the model is loaded again")

    for module in ("native", "modeling", "weights"):
        monkeypatch.setattr(f"jv5kit.{module}.read_weights", loaded)
    monkeypatch.setattr(_native, "Model", loaded)
    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.from_pretrained", loaded)
    for task in (*reversed(TASKS), *TASKS):
        np.testing.assert_array_equal(encoder.encode(TEXTS, task=task), first[task])
    assert not np.array_equal(first["retrieval"], first["clustering"])
    with pytest.raises(InputError, match=r"task='poem' is no adapter of this model; it has 'classification', "):
        encoder.encode("a", task="poem")


def test_adapters_of_the_released_sizes_are_one_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are packed once, however many tasks there are."""
    monkeypatch.setattr(native, "MERGED_VALUES", 0)
    made: list[object] = []
    real = _native.Model

    def make(*arguments: Any) -> Any:
        made.append(real(*arguments))
        return made[-1]

    monkeypatch.setattr(_native, "Model", make)
    encoder = Encoder.from_pretrained(folder, backend="native")
    for task in TASKS:
        encoder.encode("a", task=task)
    assert len(made) == 1


# Repositories of one task


@both
@pytest.mark.parametrize("task", ["retrieval", "clustering"])
def test_a_merged_repository_equals_sentence_transformers(
    folder: Path, task: str, backend: BackendName, tmp_path: Path
) -> None:
    repository = released.merged(tmp_path / f"{folder.name}-{task}", folder, task)
    encoder = Encoder.from_pretrained(repository, backend=backend, device="cpu", dtype="float32")
    assert (encoder.checkpoint.pooling, encoder.checkpoint.normalize, encoder.checkpoint.adapters) == (
        "lasttoken",
        True,
        {},
    )
    queries, documents = (
        released_embeddings(repository, [prompt + text for text in TEXTS], None) for prompt in PROMPTS.values()
    )
    np.testing.assert_allclose(encoder.encode_query(TEXTS), queries, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_document(TEXTS), documents, atol=1e-5)
    theirs = sentence_transformer(repository)
    np.testing.assert_allclose(encoder.encode_query(TEXTS), theirs.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_document(TEXTS), theirs.encode_document(TEXTS), atol=1e-5)
    # Its weights are those of the adapter, rounded once more.
    whole = Encoder.from_pretrained(folder, backend=backend, device="cpu", dtype="float32")
    assert (whole.encode(TEXTS, task=task) * documents).sum(axis=1).min() > 0.99
    # There is no other task to switch to: the task decides the prompt alone.
    np.testing.assert_array_equal(encoder.encode(TEXTS, task="classification"), encoder.encode(TEXTS, task="retrieval"))
    np.testing.assert_allclose(encoder.encode_query(TEXTS, task="classification"), documents, atol=1e-5)
    assert not (repository / released.MARKER).exists()


@pytest.mark.parametrize("options", [[], ["--int8"], ["--merge", "clustering"]])
def test_it_is_exported_with_its_license_and_without_its_code(
    folder: Path, tmp_path: Path, inside: Inside, options: list[str]
) -> None:
    """Other libraries then load one task of it with code of their own."""
    inside("export", folder, "-o", tmp_path / "out", *options)
    assert not list((tmp_path / "out").rglob("*.py"))
    assert not {"auto_map", "task_names"} & set(json.loads((tmp_path / "out/config.json").read_text()))
    encoder = Encoder.from_pretrained(tmp_path / "out", device="cpu", dtype="float32")
    assert encoder.checkpoint.license == "cc-by-nc-4.0"
    expected = released_embeddings(folder, [f"Document: {text}" for text in TEXTS], "clustering")
    ours = encoder.encode_document(TEXTS, task="clustering")
    if "--int8" in options:
        assert (ours * expected).sum(axis=1).min() > 0.98
        return
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    if options:
        theirs = sentence_transformer(tmp_path / "out")
        np.testing.assert_allclose(theirs.encode(TEXTS, prompt="Document: "), expected, atol=1e-5)


# What is read


def test_layouts(folder: Path, size: Size, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.dim, checkpoint.max_tokens) == (released.DIM, released.CONTEXT)
    assert (checkpoint.pooling, checkpoint.normalize) == ("lasttoken", True)
    assert (checkpoint.prompts, checkpoint.default_prompt_name) == (PROMPTS, "document")
    assert set(checkpoint.adapters) == set(TASKS)
    assert checkpoint.license == "cc-by-nc-4.0"
    config = read_config(checkpoint)
    assert config["model_type"] == {"small": "qwen3", "nano": "eurobert"}[size]
    assert not {"auto_map", "task_names"} & set(config)
    assert load_checkpoint(released.merged(tmp_path / "one", folder, "retrieval")).license == "cc-by-nc-4.0"


def test_a_folder_without_modules_is_pooled_all_the_same(folder: Path, copy: Path) -> None:
    (copy / "modules.json").unlink()
    np.testing.assert_array_equal(
        Encoder.from_pretrained(copy, device="cpu").encode(TEXTS),
        Encoder.from_pretrained(folder, device="cpu").encode(TEXTS),
    )


def test_the_command_line(folder: Path, tmp_path: Path, inside: Inside) -> None:
    write_jsonl(tmp_path / "docs.jsonl", [{"text": text} for text in TEXTS if text.strip()])
    encoder = Encoder.from_pretrained(folder, device="cpu")
    texts = [text for text in TEXTS if text.strip()]
    for task in TASKS:
        inside("encode", tmp_path / "docs.jsonl", "-m", folder, "--task", task, "-o", tmp_path / f"{task}.npy")
        np.testing.assert_array_equal(np.load(tmp_path / f"{task}.npy"), encoder.encode_document(texts, task=task))
    inside("index", tmp_path / "docs.jsonl", "-m", folder, "--binary", "--dim", "32", "-o", tmp_path / "x.jv5")
    hits = inside("search", "How fast does light travel?", "--index", tmp_path / "x.jv5", "-k", "2", "--json").stdout
    assert len(json.loads(hits)["hits"]) == 2


def test_the_license_is_shown_once_and_by_info_alone(folder: Path, tmp_path: Path) -> None:
    shown = run("info", "-m", folder)
    lines = [line for line in shown.stdout.splitlines() if "BY-NC" in line]
    assert lines == ["model_license      CC BY-NC 4.0: non-commercial use only"]
    assert "model_tasks        classification, clustering, retrieval, text-matching\n" in shown.stdout
    assert json.loads(run("info", "-m", folder, "--json").stdout)["model_tasks"] == sorted(TASKS)
    (tmp_path / "docs.jsonl").write_text('{"text": "a"}\n')
    encoded = run("encode", tmp_path / "docs.jsonl", "-m", folder)
    assert "BY-NC" not in shown.stderr + encoded.stdout + encoded.stderr


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0"),
        ("---\ntags:\n- license:mit\nlicense: 'apache-2.0'\n---\ntext", "apache-2.0"),
        ("---\r\nlicense:\r\n- mit\r\n---\r\n", "mit"),
        ("# A model\n\n---\nlicense: mit\n---\n", None),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
        ("---\nlicense:\n---\n", None),
    ],
)
def test_the_license_of_a_card(tiny_model: Path, tmp_path: Path, card: str, expected: str | None) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "README.md").write_bytes(card.encode())
    assert load_checkpoint(folder).license == expected


# Folders that cannot be used


def settings(**values: object) -> Callable[[Path], object]:
    return lambda folder: models.write_json(
        folder / "config.json", json.loads((folder / "config.json").read_text()) | values
    )


def adapter(**values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "adapters" / "retrieval" / "adapter_config.json"
        models.write_json(path, json.loads(path.read_text()) | values)

    return change


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def cut_short(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-7])


RETRIEVAL = "adapters/retrieval/adapter_model.safetensors"
MERGE = r", which is not known; merge the adapter into the weights with peft's merge_and_unload\(\)"


@both
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: shutil.rmtree(folder / "adapters" / "clustering"),
            r"has no adapter for its task 'clustering': adapters/clustering/adapter_config\.json is missing; fetch",
        ),
        (without(RETRIEVAL), rf"{RETRIEVAL} cannot be loaded: .*No such file.*; copy or fetch the file again"),
        (cut_short(RETRIEVAL), rf"{RETRIEVAL} cannot be loaded: .*cut short; copy or fetch the file again"),
        (cut_short("model.safetensors"), r"model\.safetensors cannot be loaded: .*cut short; copy or fetch"),
        (adapter(use_dora=True), "it has use_dora True" + MERGE),
        (adapter(rank_pattern={"q_proj": 8}), r"it has rank_pattern \{'q_proj': 8\}" + MERGE),
        (adapter(modules_to_save=["norm"]), r"it has modules_to_save \['norm'\]" + MERGE),
        (adapter(lora_bias=True), "it has lora_bias True" + MERGE),
        (adapter(layer_replication=[[0, 2]]), r"it has layer_replication \[\[0, 2\]\]" + MERGE),
        (adapter(trainable_token_indices=[3]), r"it has trainable_token_indices \[3\]" + MERGE),
        (adapter(alora_invocation_tokens=[3]), r"it has alora_invocation_tokens \[3\]" + MERGE),
        (adapter(bias="all"), "it has bias 'all'" + MERGE),
        (adapter(peft_type="IA3"), r"but \{'peft_type': 'IA3', 'r': 4, 'lora_alpha': 4\}"),
        (settings(task_names=[]), r"config\.json has task_names \[\]; it must be a list of tasks"),
        (settings(task_names="retrieval"), "config.json has task_names 'retrieval'; it must be a list of tasks"),
        (settings(model_type="jina_embeddings_v9"), "model_type .jina_embeddings_v9"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            r"has no \*\.safetensors weights, the only kind that is loaded; where it is safe .*save_pretrained",
        ),
        (without("tokenizer.json"), r"has no tokenizer\.json; save it once with transformers"),
    ],
)
def test_bad_input_is_named(copy: Path, backend: BackendName, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises((ModelNotFoundError, InputError), match=message):
        Encoder.from_pretrained(copy, backend=backend)
    assert not (copy / released.MARKER).exists()


def test_a_model_type_that_nobody_knows(copy: Path, tmp_path: Path) -> None:
    settings(model_type="jina_embeddings_v9")(copy)
    (tmp_path / "docs.jsonl").write_text('{"text": "a"}\n')
    message = fails("encode", tmp_path / "docs.jsonl", "-m", copy)
    assert "has the model_type 'jina_embeddings_v9', which transformers " in message
    assert message.endswith("remote code is never run; a newer one may know it: pip install -U transformers")
    assert not (copy / released.MARKER).exists()
