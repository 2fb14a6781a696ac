"""What changes an index, as a table: what was there before, the command, and every state that it may leave.

A state is what an index holds: the version of each document by its number. Text and embedding follow from both, so that
a state can be read off an index, and a document that is not wholly of one version is found.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

import jv5kit.sources
from jv5kit import Index
from jv5kit.cli import main
from jv5kit.errors import IndexNotFoundError, Jv5kitError
from jv5kit.types import Document

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DIM, BATCH = 64, 20

State = dict[int, int]


def documents(state: State) -> list[Document]:
    return [Document(f"d{i}", f"text {i} of version {version}", metadata={"n": i}) for i, version in state.items()]


def embeddings(state: State) -> NDArray[np.float32]:
    rows = [np.random.default_rng((i, version)).standard_normal(DIM, np.float32) for i, version in state.items()]
    return np.array(rows, np.float32).reshape(-1, DIM)


def small_batches() -> None:
    """Commit every ``BATCH`` documents."""
    jv5kit.sources.BATCH_BYTES = BATCH * 4 * DIM


def batches(count: int, *, first: int = 0, version: int = 0) -> State:
    return dict.fromkeys(range(first * BATCH, (first + count) * BATCH), version)


Change = Callable[[Index, State, Callable[[int], None]], object]


@dataclass(frozen=True)
class Operation:
    """One change of an index.

    Attributes:
        name: of the operation.
        before: how the index that is there was built: states that were added one after another; none for no index.
        given: the documents that are read.
        states: what the index may hold, from before to after, in the order in which they come; None: no index.
        command: the options of ``jv5kit index``, if the change is made by the command.
        change: how it is made otherwise.
        options: of the index that is there before.
    """

    name: str
    before: list[State]
    given: State
    states: list[State | None]
    command: list[str] | None = None
    change: Change | None = None
    options: dict[str, object] = field(default_factory=dict)

    def prepare(self, folder: Path) -> None:
        """Make the index that is there before."""
        small_batches()
        for number, state in enumerate(self.before):
            if number:
                with Index.open(folder) as index:
                    index.add(documents(state), embeddings=embeddings(state))
            else:
                rows = embeddings(state)
                # Options of several types in one mapping.
                Index.build(folder, documents(state), embeddings=rows, **self.options).close()  # type: ignore[arg-type]

    def arguments(self, inputs: Path, folder: Path) -> list[str]:
        """Write the input, and give the arguments of the command."""
        path, rows = inputs / f"{self.name}.jsonl", inputs / f"{self.name}.npy"
        records = [{"id": doc.id, "text": doc.text, **doc.metadata} for doc in documents(self.given)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        np.save(rows, embeddings(self.given))
        return ["index", str(path), "--embeddings", str(rows), "-o", str(folder), "--json", *(self.command or [])]

    def run(self, arguments: list[str], folder: Path) -> None:
        """Make the change, as the command line does: an error is a line and an exit status."""
        small_batches()
        if self.change is None:
            sys.argv = ["jv5kit", *arguments]
            main()
            return
        try:
            with Index.open(folder) as index:
                self.change(index, self.given, lambda count: print(json.dumps({"committed": count})))
        except Jv5kitError as error:
            print(f"jv5kit: {error}", file=sys.stderr)
            sys.exit(1)

    def acknowledged(self, said: str) -> int:
        """The state that was acknowledged, by its number, from the complete lines that the command has printed."""
        lines = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]
        commits = sum("committed" in line for line in lines)
        # A new index may be empty before its first commit.
        return commits + (1 if commits and self.states[0] is None else 0)


def _merged(*states: State) -> State:
    return {i: version for state in states for i, version in state.items()}


# Half of what is there in other versions, and new documents.
UPSERTED = {**batches(1, version=1), **batches(1, first=2)}
GONE = range(5, 45)
FEWER = {i: version for i, version in batches(3).items() if i not in GONE}

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("build", [], batches(3), [None, {}, *(batches(n) for n in (1, 2, 3))], []),
        Operation(
            "append", [batches(2), batches(1, first=2)], batches(5), [batches(n) for n in (3, 4, 5)], ["--append"]
        ),
        Operation(
            "replace",
            [batches(2)],
            batches(3, version=1),
            [batches(2), *(batches(n, version=1) for n in (1, 2, 3))],
            ["--force"],
        ),
        Operation(
            "upsert",
            [batches(2)],
            UPSERTED,
            [batches(2), _merged(batches(2), batches(1, version=1)), _merged(batches(2), UPSERTED)],
            change=lambda index, given, committed: index.upsert(
                documents(given), embeddings=embeddings(given), on_commit=committed
            ),
        ),
        Operation(
            "delete",
            [batches(2), batches(1, first=2)],
            {},
            [batches(3), FEWER],
            change=lambda index, given, committed: index.delete([f"d{i}" for i in GONE]),
            options={"lexical": True},
        ),
        Operation(
            "compact",
            [batches(2), batches(1, first=2)],
            {},
            [batches(3)],
            change=lambda index, given, committed: index.compact(),
        ),
        Operation(
            "graph",
            [batches(1)],
            batches(2, first=1),
            [batches(n) for n in (1, 2, 3)],
            change=lambda index, given, committed: index.add(
                documents(given), embeddings=embeddings(given), on_commit=committed
            ),
            options={"hnsw": True, "precision": "float32"},
        ),
    )
}


def state_of(folder: Path) -> State | None:
    """What an index holds, each document checked against what it should be, by its text and by its embedding.

    Raises:
        AssertionError: it holds something that was never written.
    """
    try:
        index = Index.open(folder)
    except IndexNotFoundError:
        return None
    with index:
        hits = index.search(np.ones(DIM), max(1, len(index)))
        assert len(hits) == len(index), f"{len(hits)} documents are found, {len(index)} are there"
        state = {hit.metadata["n"]: int(hit.text.rpartition(" ")[2]) for hit in hits}
        nearest = index.search(embeddings(state), 1, oversample=len(index) or 1)
        for document, found in zip(documents(state), nearest, strict=True):
            assert (found[0].id, found[0].text, found[0].metadata) == (document.id, document.text, document.metadata)
        files = len(list((folder / "segments").glob("*.safetensors")))
        assert files >= index.segment_count
        return dict(sorted(state.items()))


def check(operation: Operation, folder: Path, acknowledged: int, *, more: bool = True) -> int:
    """Check that an index is in a state that the operation may leave, no earlier than one that was acknowledged.

    With ``more``, check as well that the index can be written.

    Returns:
        The number of its state.
    """
    state = state_of(folder)
    assert state in operation.states, f"{operation.name} left a state that never was: {state}"
    number = operation.states.index(state)
    assert number >= acknowledged, f"state {acknowledged} was acknowledged, and the index is in state {number}"
    if more:
        extra = {10_000: 0}
        if state is None:
            Index.build(folder, documents(extra), embeddings=embeddings(extra), force=True).close()
        else:
            with Index.open(folder) as index:
                index.add(documents(extra), embeddings=embeddings(extra))
        assert state_of(folder) == (state or {}) | extra
        with Index.open(folder) as index:
            left = {path.name for path in (folder / "segments").iterdir()}
            assert len(left) == index.segment_count, f"files were left behind: {left}"
    return number
