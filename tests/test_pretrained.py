import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
from command import run

from jv5kit.errors import ModelNotFoundError
from jv5kit.pretrained import Checkpoint, load_checkpoint


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has all files of a model, its weights as small as can be: nothing here runs it."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    models.write_tokenizer(folder, template="[CLS] $A [SEP]")
    models.write_json(folder / "config.json", {"hidden_size": 64, "max_position_embeddings": 96, "pad_token_id": 3})
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.fixture
def folder(plain_model: Path, tmp_path: Path) -> Path:
    """A copy of ``plain_model``."""
    return Path(shutil.copytree(plain_model, tmp_path / "model"))


def test_a_plain_folder_is_pooled_by_the_mean(folder: Path) -> None:
    assert load_checkpoint(folder) == Checkpoint(
        name=str(folder),
        folder=folder,
        dim=64,
        max_tokens=96,
        pooling="mean",
        normalize=False,
        pad_token_id=3,
    )


@pytest.mark.parametrize("layout", ["flags", "paths"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("normalize", [False, True])
def test_layouts_of_sentence_transformers(folder: Path, layout: models.Layout, pooling: str, normalize: bool) -> None:
    prompts = {"query": "Query: ", "document": ""}
    models.as_sentence_transformers(
        folder,
        pooling=pooling,
        layout=layout,
        normalize=normalize,
        prompts=prompts,
        default_prompt_name="query",
        max_seq_length=48,
        do_lower_case=True,
    )
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.pooling, checkpoint.normalize, checkpoint.lower_case) == (pooling, normalize, True)
    assert (checkpoint.prompts, checkpoint.default_prompt_name) == (prompts, "query")
    assert (checkpoint.dim, checkpoint.max_tokens) == (64, 48)


def test_modules_may_have_folders_of_their_own(folder: Path) -> None:
    models.as_sentence_transformers(folder)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).rename(inner / name)
    (folder / "sentence_bert_config.json").rename(inner / "sentence_bert_config.json")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    models.write_json(folder / "modules.json", modules)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.folder == inner
    assert checkpoint.tokenizer_file == inner / "tokenizer.json"


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        ({"max_position_embeddings": 96}, {"model_max_length": 64}, 64),
        ({"max_position_embeddings": 32}, {"model_max_length": 64}, 32),
        ({"max_position_embeddings": 96}, {"model_max_length": 1000000000000000019884624838656}, 96),
        ({"max_position_embeddings": 96}, {}, 96),
        ({"max_position_embeddings": 514, "model_type": "xlm-roberta"}, {}, 512),
        ({}, {}, 512),
        ({"max_position_embeddings": -1}, {"model_max_length": 128}, 128),
    ],
)
def test_the_context_is_the_least_of_the_limits(
    folder: Path, config: dict[str, Any], tokenizer: dict[str, Any], expected: int
) -> None:
    models.write_json(folder / "config.json", {"hidden_size": 64} | config)
    models.write_json(folder / "tokenizer_config.json", tokenizer)
    assert load_checkpoint(folder).max_tokens == expected


# How a model is named


def test_a_model_is_a_folder_a_variable_or_the_default(
    plain_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_checkpoint(None).name == "pico"
    assert load_checkpoint("pico") == load_checkpoint(None)
    monkeypatch.setenv("JV5KIT_MODEL", str(plain_model))
    assert load_checkpoint(None).folder == plain_model
    assert load_checkpoint("all-MiniLM-L6-v2").dim == 384
    monkeypatch.chdir(plain_model.parent)
    assert load_checkpoint("model").name == str(plain_model)
    monkeypatch.setenv("HOME", str(plain_model.parent))
    assert load_checkpoint("~/model").name == str(plain_model)
    (tmp_path / "link").symlink_to(plain_model)
    assert load_checkpoint(tmp_path / "link").name == str(plain_model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the name of the model is empty"),
        ("./nowhere", "neither a folder nor a hub id"),
        ("/nowhere/at all", "neither a folder nor a hub id"),
        ("a/b/c", "neither a folder nor a hub id"),
        ("org/na--me", "neither a folder nor a hub id"),
        ("half \ud83d", "neither a folder nor a hub id"),
        ("a\0b", "neither a folder nor a hub id"),
        ("x" * 5000, "neither a folder nor a hub id"),
        ("~nobody-of-that-name", "neither a folder nor a hub id"),
        ("org/model-that-is-not-cached", "is no folder here and could not be fetched from the hub"),
    ],
)
def test_a_name_that_means_nothing(name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        load_checkpoint(name)
    if name:
        assert repr(name) in str(caught.value)


def test_the_fingerprint_differs_between_models(folder: Path, tiny_model: Path, other_model: Path) -> None:
    tiny = load_checkpoint(tiny_model).fingerprint()
    assert tiny == load_checkpoint(tiny_model).fingerprint()
    assert tiny != load_checkpoint(other_model).fingerprint()
    before = load_checkpoint(folder).fingerprint()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        path = folder / name
        path.write_bytes(path.read_bytes() + b" ")
        after = load_checkpoint(folder).fingerprint()
        assert after != before
        before = after


# Folders that cannot be read


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def replace(name: str, **values: object) -> Callable[[Path], object]:
    """Change values of a JSON file."""

    def change(folder: Path) -> None:
        models.write_json(folder / name, json.loads((folder / name).read_text()) | values)

    return change


def module(kind: object, path: object = "2_Dense") -> Callable[[Path], object]:
    """Add a module."""

    def change(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text())
        models.write_json(folder / "modules.json", [*modules, {"type": kind, "path": path}])

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), r"is no model folder: .*config\.json is missing"),
        (remove("tokenizer.json"), r"has no tokenizer\.json; save it once with transformers"),
        (remove("model.safetensors"), r"has no \*\.safetensors weights"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            r"has no \*\.safetensors weights, the only kind that is loaded",
        ),
        (remove("1_Pooling/config.json"), r"1_Pooling/config\.json is missing"),
        (
            module("sentence_transformers.models.Dense"),
            "has a module 'sentence_transformers.models.Dense', which jv5kit",
        ),
        (module("custom_code.Transformer2"), "has a module 'custom_code.Transformer2'"),
        (module(None), r"modules\.json .*list of modules"),
        (module("sentence_transformers.models.Pooling", 7), r"modules\.json .*list of modules"),
        (put("modules.json", "{"), r"modules\.json cannot be read"),
        (put("modules.json", "7"), r"modules\.json .*list of modules"),
        (put("modules.json", "{}"), r"modules\.json .*list of modules"),
        (put("modules.json", '{"type": "Transformer"}'), r"modules\.json .*list of modules"),
        (put("modules.json", '["Transformer"]'), r"modules\.json .*list of modules"),
        (put("modules.json", "[]"), r"modules\.json .*list of modules"),
        (put("config.json", ""), r"config\.json cannot be read"),
        (put("config.json", "[" * 5000), r"config\.json cannot be read"),
        (put("config.json", "[]"), r"config\.json must be a JSON object"),
        (put("config.json", "null"), r"config\.json must be a JSON object"),
        (put("config.json", "{}"), "config.json has no hidden_size"),
        (replace("config.json", hidden_size="64"), "config.json has no hidden_size"),
        (replace("config.json", hidden_size=0), "config.json has no hidden_size"),
        (replace("config.json", hidden_size=True), "config.json has no hidden_size"),
        (put("1_Pooling/config.json", "[]"), r"1_Pooling/config\.json must be a JSON object"),
        (replace("1_Pooling/config.json", pooling_mode="max"), "pools by max; jv5kit knows mean, cls, lasttoken"),
        (replace("1_Pooling/config.json", pooling_mode=["cls", "mean"]), r"pools by cls \+ mean"),
        (replace("1_Pooling/config.json", pooling_mode=7), "pools by 7"),
        (replace("1_Pooling/config.json", include_prompt=False), "leaves its prompt out of the pooling"),
        (put("sentence_bert_config.json", "[]"), r"sentence_bert_config\.json must be a JSON object"),
        (put("tokenizer_config.json", "7"), r"tokenizer_config\.json must be a JSON object"),
        (put("config_sentence_transformers.json", "7"), r"config_sentence_transformers\.json must be a JSON object"),
        (put("config_sentence_transformers.json", '{"prompts": ["a"]}'), "prompts .* must be strings by name"),
        (put("config_sentence_transformers.json", '{"prompts": {"query": 7}}'), "prompts .* must be strings by name"),
        (
            put("config_sentence_transformers.json", '{"prompts": {"query": "q"}, "default_prompt_name": "poem"}'),
            "default_prompt_name 'poem' .*'query'",
        ),
    ],
)
def test_a_folder_that_cannot_be_read(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    models.as_sentence_transformers(folder)
    assert load_checkpoint(folder).pooling == "mean"
    damage(folder)
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        load_checkpoint(folder)
    assert str(caught.value).startswith(f"model '{folder}'")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"pooling_mode_max_tokens": True}, "pools by max;"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, r"pools by cls \+ mean;"),
        ({"pooling_mode_weightedmean_tokens": True}, "pools by weightedmean;"),
    ],
)
def test_flags_of_poolings_that_are_not_known(folder: Path, flags: dict[str, bool], message: str) -> None:
    models.as_sentence_transformers(folder, layout="flags")
    models.write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 64} | flags)
    with pytest.raises(ModelNotFoundError, match=message):
        load_checkpoint(folder)


# The hub


def test_a_model_of_the_hub_is_read_from_the_cache(tmp_path: Path, tiny_model: Path) -> None:
    """The hub's client reads its settings when it is imported, hence processes."""
    models.in_hub_cache(tmp_path / "cache", tiny_model, "org/tiny")
    facts = json.loads(run("info", "-m", "org/tiny", "--json", JV5KIT_CACHE=str(tmp_path / "cache")).stdout)
    assert (facts["model"], facts["model_dim"]) == ("org/tiny", 64)
    assert facts["model_fingerprint"] == load_checkpoint(tiny_model).fingerprint()

    missing = run("info", "-m", "org/other", code=2, JV5KIT_CACHE=str(tmp_path / "cache")).stderr
    assert missing.startswith("jv5kit: model 'org/other' is no folder here and could not be fetched from the hub: ")
    assert missing.count("\n") == 1
    missing = run("info", "-m", "org/tiny", code=2, JV5KIT_CACHE=str(tmp_path / "empty")).stderr
    assert missing.startswith("jv5kit: model 'org/tiny' is no folder here")


def test_an_index_remembers_the_hub_id(tmp_path: Path, tiny_model: Path) -> None:
    models.in_hub_cache(tmp_path / "cache", tiny_model, "org/tiny")
    (tmp_path / "docs.jsonl").write_text('{"text": "a penguin"}\n{"text": "the sea"}\n')
    run("index", "docs.jsonl", "-m", "org/tiny", cwd=tmp_path, HF_HUB_CACHE=str(tmp_path / "cache"))
    facts = json.loads(run("info", "docs.jv5", "--json", cwd=tmp_path).stdout)
    assert facts["index_model"] == "org/tiny"
    assert facts["index_fingerprint"] == load_checkpoint(tiny_model).fingerprint()


def test_the_fingerprint_has_all_that_decides_an_embedding(tmp_path: Path) -> None:
    def fingerprint(name: str, **options: Any) -> str:
        folder = models.as_sentence_transformers(models.bert(tmp_path / name), **options)
        return load_checkpoint(folder).fingerprint()

    plain = fingerprint("plain")
    assert fingerprint("again") == plain
    assert fingerprint("prompts", prompts={"query": "Query: "}) == plain, "an index keeps the prompts itself"
    others = [
        fingerprint("cls", pooling="cls"),
        fingerprint("long", normalize=False),
        fingerprint("short", max_seq_length=12),
        fingerprint("lower", do_lower_case=True),
    ]
    assert len({plain, *others}) == 5
