"""The teacher's cache: each text encoded once, and nothing of a damaged file."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jv5kit.errors import InputError
from jv5kit.training.opening import load_teacher
from jv5kit.training.sizes import TeacherSettings
from jv5kit.training.teacher import Teacher

if TYPE_CHECKING:
    from jv5kit import Encoder

TEXTS = ["a penguin", "the sea", "a bird of ice", ""]


class Counting:
    """Counts the texts that are encoded."""

    def __init__(self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        encode = encoder.encode

        def counted(inputs: list[str], **options: object) -> object:
            self.texts += inputs
            # What is handed on is not looked at.
            return encode(inputs, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(encoder, "encode", counted)


def test_a_text_is_encoded_once(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encoder.encode(TEXTS, prompt="p: ")
    counting = Counting(encoder, monkeypatch)
    teacher = Teacher(encoder, tmp_path)
    assert teacher.prepare([("p: ", text) for text in [*TEXTS, *TEXTS]]) == len(TEXTS)
    assert teacher.prepare([("p: ", text) for text in TEXTS]) == 0
    # Another prompt makes another text of it, whatever the two are together.
    assert teacher.prepare([("p", ": the sea")]) == 1
    for one in (teacher, Teacher(encoder, tmp_path)):
        np.testing.assert_allclose(one.rows(TEXTS[::-1], "p: "), expected[::-1], atol=1e-3)
    assert counting.texts == [*TEXTS, ": the sea"]


def test_rows_that_were_not_prepared(encoder: Encoder, tmp_path: Path) -> None:
    teacher = Teacher(encoder, tmp_path)
    teacher.prepare([("", TEXTS[0])])
    np.testing.assert_allclose(teacher.rows(TEXTS, ""), encoder.encode(TEXTS, prompt=""), atol=1e-3)


def test_processes_share_the_work(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(encoder, monkeypatch)
    texts = [f"a bird {i}" for i in range(40)]
    teachers = [Teacher(encoder, tmp_path, process=process, processes=2) for process in range(2)]
    # What one process alone has seen of the cache: the shares are the same.
    teachers[0].rows(texts[:7], "")
    shares = []
    for teacher in teachers:
        before = len(counting.texts)
        teacher.prepare([("", text) for text in texts])
        shares.append(len(counting.texts) - before)
    assert sum(shares) == 33
    assert min(shares) > 5
    assert sorted(counting.texts) == sorted(texts)
    # None is left out.
    Teacher(encoder, tmp_path).rows(texts, "")
    assert len(counting.texts) == len(texts)


@pytest.mark.parametrize("place", ["header", "keys", "rows", "cut"])
def test_a_damaged_shard_is_not_used(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    teacher = Teacher(encoder, tmp_path)
    expected = teacher.rows(TEXTS, "")
    (path,) = teacher.folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    if place == "cut":
        del content[-5:]
    else:
        header = int.from_bytes(content[:8], "little")
        names = {"header": 20, "keys": content.find(b'"keys"'), "rows": content.find(b'"rows"')}
        if place == "header":
            content[names[place]] ^= 1
        else:
            offsets = content[names[place] : 8 + header].split(b"[")[2].split(b",")[0]
            content[8 + header + int(offsets) + 3] ^= 1
    path.unlink()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "jv5kit"):
        again = Teacher(encoder, tmp_path)
        np.testing.assert_array_equal(again.rows(TEXTS, ""), expected)
    assert "damaged" in caplog.text
    # It was written anew, and is found from now on.
    caplog.clear()
    with caplog.at_level(logging.WARNING, "jv5kit"):
        np.testing.assert_array_equal(again.rows(TEXTS, ""), expected)
    assert not caplog.text


def test_a_cache_of_other_dimensions(encoder: Encoder, tmp_path: Path) -> None:
    teacher = Teacher(encoder, tmp_path)
    teacher._write([("", "a")], np.ones((1, 7), np.float16))
    with pytest.raises(InputError, match=r"has embeddings of 7 dimensions, the teacher .* makes 64: .*remove"):
        Teacher(encoder, tmp_path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists the open files of a process in /proc")
def test_any_number_of_shards_takes_no_open_files(encoder: Encoder, tmp_path: Path) -> None:
    teacher = Teacher(encoder, tmp_path)
    texts = [f"the penguin {i}" for i in range(40)]
    for text in texts:
        teacher.prepare([("", text)])
    before = len(list(Path("/proc/self/fd").iterdir()))
    rows = teacher.rows(texts, "")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    again = Teacher(encoder, tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(list(teacher.folder.glob("*.safetensors"))) == 40
    np.testing.assert_array_equal(again.rows(texts, ""), rows)


@pytest.mark.parametrize(
    ("device", "mixed", "dtype"), [("cuda", "bf16", "bfloat16"), ("cuda", "no", None), ("cpu", "bf16", None)]
)
def test_the_type_of_a_teacher(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, mixed: str, dtype: str | None
) -> None:
    """On a GPU that of the student's products, for which memory is estimated."""
    given = []

    def loaded(model: str, **options: object) -> Encoder:
        given.append((model, options))
        return encoder

    monkeypatch.setattr("jv5kit.training.opening.Encoder.from_pretrained", loaded)
    accelerator: Any = SimpleNamespace(
        device=SimpleNamespace(type=device), mixed_precision=mixed, process_index=0, num_processes=1
    )
    load_teacher(TeacherSettings(model="some", cache=str(tmp_path)), accelerator)
    assert given == [("some", {"dtype": dtype})]
