"""What is wrong is said in one line, with the value, and exit status 2; never a traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Inside, fails, run

LONG = "a" * 300

SHAPES = {
    "no .npy file": (b"hello", "x.npy is no .npy file"),
    "empty": (b"", "x.npy is no .npy file"),
    "cut in the header": (40, "x.npy is no .npy file"),
    "cut in the rows": (-5, "x.npy is cut short: 443 bytes, but its header promises (5, 16)"),
    "one dimension": (np.ones(4, np.float32), "x.npy holds float32 of shape (4,)"),
    "three dimensions": (np.ones((2, 2, 2), np.float32), "x.npy holds float32 of shape (2, 2, 2)"),
    "no dimension": (np.float32(3), "x.npy holds float32 of shape ()"),
    "no columns": (np.ones((3, 0), np.float32), "the embeddings have shape (3, 0)"),
    "strings": (np.array([["a", "b"]]), "x.npy holds <U1 of shape (1, 2)"),
    "complex numbers": (np.ones((2, 8), complex), "x.npy holds complex128 of shape (2, 8)"),
    "Fortran order": (np.asfortranarray(np.ones((2, 8))), "x.npy holds float64 of shape (2, 8) in Fortran order"),
    "an archive": ("npz", "x.npy is no .npy file"),
}


@pytest.mark.parametrize(("content", "message"), SHAPES.values(), ids=SHAPES)
def test_embeddings_of_the_wrong_shape(folder: Path, content: Any, message: str) -> None:
    path = folder / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, int):
        path.write_bytes(path.read_bytes()[:content])
    elif content == "npz" if isinstance(content, str) else False:
        np.savez(folder / "x.npz", x=np.ones((5, 16)))
        (folder / "x.npz").rename(path)
    else:
        np.save(path, content)
    assert fails("index", "--embeddings", "x.npy", cwd=folder).startswith(message)
    assert not (folder / "x.jv5").exists()


@pytest.mark.parametrize("shape", [b"(-5,16)", b"(5,-16)", b"(-5,-1)"])
def test_a_header_with_a_negative_shape(folder: Path, shape: bytes) -> None:
    data = (folder / "x.npy").read_bytes()
    (folder / "x.npy").write_bytes(data.replace(b"(5, 16)", shape))
    assert "x.npy holds float32 of shape (" in fails("index", "--embeddings", "x.npy", cwd=folder)


def test_a_pickled_object_is_never_loaded(folder: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "sprung",))

    np.save(folder / "x.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
    assert "x.npy holds object of shape (1, 1)" in fails("index", "--embeddings", "x.npy", cwd=folder)
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.nan, "a NaN"),
        (np.inf, "an infinity"),
        (-np.inf, "an infinity"),
        (0, "nothing but zeros in its first 8 values"),
    ],
)
def test_rows_without_direction_are_named(folder: Path, value: float, problem: str) -> None:
    rows = np.load(folder / "x.npy")
    rows[3, :8] = value
    np.save(folder / "x.npy", rows)
    message = fails("index", "--embeddings", "x.npy", "--dim", "8", cwd=folder)
    assert message == f"row 3 of the embeddings holds {problem}; it has no direction to search by"


def test_a_number_beyond_float32_is_an_infinity(folder: Path) -> None:
    rows = np.load(folder / "x.npy").astype(np.float64)
    rows[2, 5] = 1e300
    np.save(folder / "x.npy", rows)
    assert "row 2 of the embeddings holds an infinity" in fails("index", "--embeddings", "x.npy", cwd=folder)


def test_rows_and_documents_must_be_as_many(folder: Path) -> None:
    lines = (folder / "docs.jsonl").read_text().splitlines(keepends=True)
    (folder / "few.jsonl").write_text("".join(lines[:4]))
    (folder / "many.jsonl").write_text("".join(lines) + '{"text": "one more"}\n')
    few = fails("index", "few.jsonl", "--embeddings", "x.npy", cwd=folder)
    assert few == "there are 5 embeddings, but only 4 documents"
    outcome = run("index", "many.jsonl", "--embeddings", "x.npy", code=2, cwd=folder)
    assert outcome.stderr.startswith("jv5kit: there are only 5 embeddings, but more documents\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dim", "17"], "dim=17 is outside 1..16"),
        (["--dim", "0"], "dim=0 is outside 1..16"),
        (["--dim", "-8"], "dim=-8 is outside 1..16"),
        (["--dim", "12"], "dim=12 is not a multiple of 8"),
        (["--dim", "12", "--binary"], "dim=12 is not a multiple of 8"),
        (["--precision", "int4"], "--precision int4 is not known; choose one of float32, int8, ubinary"),
        (["--binary", "--precision", "float32"], "--binary is --precision ubinary; it contradicts"),
        (["--append", "--force"], "--append adds to an index and --force replaces it"),
        (["--append"], "x.jv5 is no jv5kit index"),
        (["--skip-invalid"], "--skip-invalid cannot go with --embeddings"),
        (["-m", "anything"], "--model cannot go with --embeddings"),
        (["-o", "docs.jsonl"], "docs.jsonl exists and is no jv5kit index; choose another path"),
        (["-o", "."], ". exists and is no jv5kit index; choose another path"),
        (["-o", ".", "--force"], ". exists and is no jv5kit index; choose another path"),
        (["-o", "docs.jsonl/x.jv5"], "docs.jsonl/x.jv5 cannot be written"),
    ],
)
def test_wrong_arguments_of_index(folder: Path, arguments: list[str], message: str) -> None:
    before = sorted(folder.iterdir())
    assert fails("index", "--embeddings", "x.npy", *arguments, cwd=folder).startswith(message)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to index"),
        (["nothing.jsonl"], "cannot read nothing.jsonl: No such file or directory"),
        (["."], "cannot read .: Is a directory"),
        (["--embeddings", "."], ". has no manifest.json of jv5kit: No such file or directory"),
        (["-"], "standard input has no name: say where the index goes with -o DIR"),
        (["docs.jsonl", "-m", "./nowhere"], "model './nowhere' is neither a folder nor a hub id"),
        (["docs.jsonl", "-m", "~nobody-of-that-name/x"], "model '~nobody-of-that-name/x' is neither a folder nor a"),
        (["docs.jsonl", "-m", LONG], f"model '{LONG}' is neither a folder nor a hub id"),
        (["docs.jsonl", "-m", ""], "the name of the model is empty"),
        (["docs.jsonl", "-m", "docs.jsonl"], "model 'docs.jsonl' is no folder here and could not be fetched from the"),
        (["docs.jsonl", "-m", "org/none"], "model 'org/none' is no folder here and could not be fetched from the hub"),
        (["docs.jsonl", "-m", "a/b/c"], "model 'a/b/c' is neither a folder nor a hub id"),
        (["docs.jsonl", "-m", "."], "model '"),
    ],
)
def test_inputs_that_are_not_there(folder: Path, arguments: list[str], message: str) -> None:
    before = sorted(folder.iterdir())
    assert fails("index", *arguments, cwd=folder).startswith(message)
    assert sorted(folder.iterdir()) == before


def test_the_dimensions_of_a_model(
    folder: Path, tiny_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for dim, message in (("65", "dim=65 is outside 1..64"), ("12", "dim=12 is not a multiple of 8")):
        assert message in inside("index", "docs.jsonl", "-m", tiny_model, "--dim", dim, code=2).stderr
        message = message.replace("dim=", "--dim ")
        assert message in inside("encode", "docs.jsonl", "-m", tiny_model, "--binary", "--dim", dim, code=2).stderr
    assert not (folder / "docs.jv5").exists()


def test_an_index_that_exists_is_kept(folder: Path) -> None:
    run("index", "docs.jsonl", "--embeddings", "x.npy", cwd=folder)
    message = fails("index", "docs.jsonl", "--embeddings", "x.npy", cwd=folder)
    assert message.startswith("docs.jv5 is an index already (5 documents); add to it with --append")
    message = fails("index", "docs.jsonl", "--embeddings", "x.npy", "--append", "--dim", "8", cwd=folder)
    assert message == "--dim 8: docs.jv5 has 16, which --append cannot change"
    message = fails("index", "docs.jsonl", "--embeddings", "x.npy", "--append", "--precision", "float32", cwd=folder)
    assert message == "--precision float32: docs.jv5 has ubinary, which --append cannot change"
    np.save(folder / "narrow.npy", np.load(folder / "x.npy")[:, :8])
    message = fails("index", "docs.jsonl", "--embeddings", "narrow.npy", "--append", cwd=folder)
    assert message == "the embeddings have 8 dimensions; those of this index had 16"
    message = fails("index", "docs.jsonl", "--append", cwd=folder)
    assert message.startswith("docs.jv5 was built from given embeddings")
    outcome = run("index", "docs.jsonl", "--embeddings", "x.npy", "--append", cwd=folder)
    assert "5 documents were there already, identical\ndocs.jv5: 5 documents" in outcome.stderr
    run("index", "docs.jsonl", "--embeddings", "x.npy", "--force", "--dim", "8", cwd=folder)
    assert json.loads(run("info", "docs.jv5", "--json", cwd=folder).stdout)["dim"] == 8


def test_the_same_id_with_another_text(folder: Path) -> None:
    run("index", "docs.jsonl", "--embeddings", "x.npy", cwd=folder)
    lines = (folder / "docs.jsonl").read_text().replace("a penguin 3", "another text")
    (folder / "docs.jsonl").write_text(lines)
    message = fails("index", "docs.jsonl", "--embeddings", "x.npy", "--append", cwd=folder)
    assert message == "docs.jsonl:4: the id 'd3' is taken by other content in the index"


def test_the_same_id_twice_in_one_file(folder: Path) -> None:
    lines = (folder / "docs.jsonl").read_text().replace('"d3"', '"d1"')
    (folder / "docs.jsonl").write_text(lines)
    message = fails("index", "docs.jsonl", "--embeddings", "x.npy", cwd=folder)
    assert message == "docs.jsonl:4: the id 'd1' is taken by an earlier document"
    assert not (folder / "docs.jv5").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-k", "0"], "-k 0: it must be at least 1"),
        (["-k", "-3"], "-k -3: it must be at least 1"),
        (["--oversample", "0"], "--oversample 0: it must be at least 1"),
        (["-i", "docs.jsonl"], "docs.jsonl is no jv5kit index"),
        (["-i", "."], "is no jv5kit index (it has no index.sqlite)"),
        (["-i", "nowhere.jv5"], "nowhere.jv5 is no jv5kit index"),
        ([], "there is no index (*.jv5) in this folder; make one with 'jv5kit index', or name one"),
    ],
)
def test_wrong_arguments_of_search(folder: Path, arguments: list[str], message: str) -> None:
    assert message in fails("search", "penguin", *arguments, cwd=folder)


def test_several_indexes_here(folder: Path) -> None:
    for name in ("a.jv5", "b.jv5"):
        run("index", "--embeddings", "x.npy", "-o", name, cwd=folder)
    message = fails("search", "penguin", cwd=folder)
    assert message == "there are several indexes in this folder (a.jv5, b.jv5); name one"
    message = fails("search", "penguin", "-i", "a.jv5", cwd=folder)
    assert message.endswith("a.jv5 was built from given embeddings, not texts: search it by embeddings")


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", f"{LONG}.jsonl"],
        ["index", "docs.jsonl", "-o", LONG],
        ["search", "penguin", "-i", LONG],
        ["info", LONG],
        ["encode", LONG],
    ],
)
def test_names_too_long_for_a_file(folder: Path, arguments: list[str]) -> None:
    outcome = run(*arguments, code=1 if arguments[0] != "encode" else 2, cwd=folder)
    assert "File name too long" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("JV5KIT_SIMD", "JV5KIT_SIMD=nonsense names no tier; this machine has: portable"),
        ("JV5KIT_THREADS", "JV5KIT_THREADS=nonsense is not a positive number"),
        ("JV5KIT_LOG", "JV5KIT_LOG=nonsense is not a level; choose one of debug, info, warning, error"),
        ("JV5KIT_MODEL", "model 'nonsense' is no folder here and could not be fetched from the hub"),
    ],
)
def test_variables_that_make_no_sense(built: Path, variable: str, message: str) -> None:
    command = ["encode", "docs.jsonl"] if variable == "JV5KIT_MODEL" else ["search", "penguin"]
    assert fails(*command, cwd=built, **{variable: "nonsense"}).startswith(message)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["index", "--nonsense"], ["index", "docs.jsonl", "--dim", "abc"], ["search"], []]
)
def test_wrong_usage(folder: Path, arguments: list[str]) -> None:
    outcome = run(*arguments, code=2, cwd=folder)
    assert outcome.stderr or "Usage" in outcome.stdout


# Models that moved


def test_an_index_whose_model_was_moved(
    folder: Path, tiny_model: Path, other_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    first, second = folder / "first", folder / "second"
    shutil.copytree(tiny_model, first)
    inside("index", "docs.jsonl", "-m", "first")
    first.rename(second)
    message = fails("search", "penguin", cwd=folder)
    assert f"docs.jv5 was built with model '{first}'" in message
    assert message.endswith("Say where it is: --model FOLDER, or Index.use_encoder(FOLDER)")
    assert "Say where it is" in fails("index", "docs.jsonl", "--append", cwd=folder)
    assert run("search", "penguin", "-m", "second", cwd=folder).stdout.count("a penguin") == 5
    (folder / "more.jsonl").write_text('{"id": "m", "text": "one more"}')
    outcome = inside("index", "more.jsonl", "-o", "docs.jv5", "--append", "-m", "second")
    assert outcome.stderr.startswith("docs.jv5: 6 documents")
    assert json.loads(inside("info", "docs.jv5", "--json").stdout)["documents"] == 6


def test_an_index_whose_model_was_replaced(
    folder: Path, tiny_model: Path, other_model: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    model = Path(shutil.copytree(tiny_model, folder / "model"))
    inside("index", "docs.jsonl", "-m", "model")
    refused = f"docs.jv5 was built with another model ('{model}', fingerprint "
    assert refused in inside("search", "penguin", "-m", other_model, code=2).stderr
    shutil.copyfile(other_model / "model.safetensors", model / "model.safetensors")
    assert refused in fails("search", "penguin", cwd=folder)
    assert refused in inside("index", "docs.jsonl", "--append", code=2).stderr
    assert inside("search", "penguin", "-m", tiny_model).stdout.count("a penguin") == 5
