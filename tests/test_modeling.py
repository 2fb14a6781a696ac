"""Models that are loaded, and that cannot be, by both backends; what needs no weights is in test_pretrained.py."""

import json
import shutil
import sys
from pathlib import Path

import models
import numpy as np
import pytest
from models import TEXTS

from jv5kit import Encoder
from jv5kit import encoder as encoder_module
from jv5kit.backends import BackendName
from jv5kit.errors import InputError, MissingExtraError, ModelNotFoundError

both = pytest.mark.parametrize("backend", ["native", "torch"])


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    """The encoder of ``tiny_model``, in the type of those that it is compared with."""
    return Encoder.from_pretrained(tiny_model, device="cpu", dtype="float32")


@pytest.mark.parametrize("device", ["cuda:99", "toaster", "meta:x"])
def test_an_unknown_device_is_named(tiny_model: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"device='{device}' cannot be used"):
        Encoder.from_pretrained(tiny_model, device=device)


@pytest.mark.parametrize("keep", [0, 5, 100, 20_000])
@both
def test_weights_that_are_cut_short_are_an_error(model_copy: Path, backend: BackendName, keep: int) -> None:
    weights = model_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        Encoder.from_pretrained(model_copy, backend=backend)


@both
def test_weights_that_are_not_safetensors_are_an_error(model_copy: Path, backend: BackendName) -> None:
    (model_copy / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        Encoder.from_pretrained(model_copy, backend=backend)


@both
def test_a_missing_tensor_is_an_error_and_not_drawn_at_random(model_copy: Path, backend: BackendName) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(model_copy / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    del tensors[name]
    save_file(tensors, model_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelNotFoundError, match=name):
        Encoder.from_pretrained(model_copy, backend=backend)


@both
def test_a_missing_pooler_is_none_of_our_business(model_copy: Path, backend: BackendName, encoder: Encoder) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(model_copy / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    assert len(kept) == len(tensors) - 2
    save_file(kept, model_copy / "model.safetensors", metadata={"format": "pt"})
    without = Encoder.from_pretrained(model_copy, backend=backend, dtype="float32")
    np.testing.assert_allclose(without.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)


@both
def test_a_tensor_of_another_shape_is_an_error(model_copy: Path, backend: BackendName) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(model_copy / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] = tensors["embeddings.word_embeddings.weight"][:7].copy()
    save_file(tensors, model_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        Encoder.from_pretrained(model_copy, backend=backend)


@pytest.mark.parametrize("backend", ["native", "torch", None])
def test_remote_code_is_never_run(model_copy: Path, backend: BackendName | None) -> None:
    config = json.loads((model_copy / "config.json").read_text())
    config |= {"model_type": "mystery", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    models.write_json(model_copy / "config.json", config)
    (model_copy / "code.py").write_text(f"open({str(model_copy / 'ran')!r}, 'w')\n")
    with pytest.raises((ModelNotFoundError, InputError), match=r"mystery|custom code"):
        Encoder.from_pretrained(model_copy, backend=backend)
    assert not (model_copy / "ran").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}'])
def test_a_broken_tokenizer_is_an_error(model_copy: Path, content: str) -> None:
    (model_copy / "tokenizer.json").write_text(content)
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json cannot be read"):
        Encoder.from_pretrained(model_copy, device="cpu")


@both
def test_a_tokenizer_of_another_model_is_an_error(model_copy: Path, backend: BackendName) -> None:
    """Token ids beyond the model's vocabulary."""
    tokenizer = json.loads((model_copy / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["penguin"] = 99_999
    models.write_json(model_copy / "tokenizer.json", tokenizer)
    encoder = Encoder.from_pretrained(model_copy, backend=backend)
    assert encoder.encode("a bird").shape == (64,)
    with pytest.raises(ModelNotFoundError, match="the token 99999"):
        encoder.encode("a penguin")


@both
def test_weights_in_float16_are_computed_in_float32(model_copy: Path, backend: BackendName, encoder: Encoder) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = {name: tensor.astype(np.float16) for name, tensor in load_file(model_copy / "model.safetensors").items()}
    save_file(tensors, model_copy / "model.safetensors", metadata={"format": "pt"})
    half = Encoder.from_pretrained(model_copy, backend=backend).encode(TEXTS)
    assert half.dtype == np.float32
    assert (half * encoder.encode(TEXTS)).sum(axis=1).min() > 0.999


@both
def test_weights_in_several_files(tiny_model: Path, backend: BackendName, encoder: Encoder, tmp_path: Path) -> None:
    from transformers import BertModel

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    BertModel.from_pretrained(tiny_model).save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    embeddings = Encoder.from_pretrained(folder, backend=backend, dtype="float32").encode(TEXTS)
    np.testing.assert_allclose(embeddings, encoder.encode(TEXTS), atol=1e-5)


def test_the_shared_encoder_is_loaded_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder_module.shared_encoder(tiny_model)
    monkeypatch.chdir(tiny_model.parent)
    assert encoder_module.shared_encoder("tiny") is first
    monkeypatch.setenv("JV5KIT_MODEL", str(tiny_model))
    assert encoder_module.shared_encoder(None) is first


def test_a_folder_that_holds_another_model_by_now_is_loaded_again(model_copy: Path, other_model: Path) -> None:
    first = encoder_module.shared_encoder(model_copy)
    # Another file under the old name: a file that is written over changes under the model that maps it.
    (model_copy / "model.safetensors").unlink()
    shutil.copyfile(other_model / "model.safetensors", model_copy / "model.safetensors")
    second = encoder_module.shared_encoder(model_copy)
    assert second is encoder_module.shared_encoder(model_copy)
    expected = Encoder.from_pretrained(other_model, device="cpu").encode("a penguin")
    np.testing.assert_allclose(second.encode("a penguin"), expected, atol=1e-6)
    assert not np.allclose(first.encode("a penguin"), expected, atol=0.05)


def test_torch_that_is_missing_is_named_with_its_extra(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'jv5kit\[torch\]'"):
        Encoder.from_pretrained(tiny_model, backend="torch")
