"""A map of an index: a sample of its documents in the plane that keeps the most of their differences (PCA).

The plane is fitted once for each state of the index, to what the index stores: float32 rows, else int8 rows, else bits
as ±1. Hits of a search are put into the same plane by the rows that were found.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jv5kit.server.errors import bad_request, shown
from jv5kit.server.fields import Field, check_text, read_fields, read_json
from jv5kit.storage.vectors import vector_specs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jv5kit.index import Index
    from jv5kit.storage.segments import Segment
    from jv5kit.storage.snapshot import Snapshot
    from jv5kit.storage.state import Settings

POINTS = 1000
"""Documents of the sample, at most."""

MAX_IDS = 1000
"""Documents that are put into the map at a time; a search has as many hits."""

TITLE = 120
"""Characters of a title that a point has, at most."""

DIGITS = 4
"""Of coordinates, after the point; all lie in [-2, 2]."""

NOTHING = 1e-6
"""A direction with this part of the first one's spread, or less, is what rounding made of none at all."""

PLACE_FIELDS = (
    Field("ids", ("array",), f"At most {MAX_IDS} documents.", items={"type": "string"}),
    Field(
        "passages",
        ("array",),
        "Which passage of each is meant, from 1 on; null, and by default, the first.",
        items={"type": ["integer", "null"]},
    ),
)


@dataclass(frozen=True, slots=True)
class Plane:
    """Where vectors fall in two dimensions.

    Attributes:
        mean: of the sample, ``(dim,)``.
        axes: float64 ``(dim, 2)``: unit length, the one with more of the variance first; zero for one that the sample
            does not have.
        explained: the share of the sample's variance that each axis has, in [0, 1].
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    explained: NDArray[np.float64]

    @classmethod
    def fit(cls, vectors: NDArray[np.float32]) -> Self:
        """The plane of a sample ``(n, dim)``, of any number of rows; the same one for the same sample."""
        n, dim = vectors.shape
        mean = vectors.mean(axis=0, dtype=np.float64) if n else np.zeros(dim)
        _, spreads, found = np.linalg.svd(vectors - mean, full_matrices=False)
        axes, explained = np.zeros((dim, 2)), np.zeros(2)
        # Of two documents all variance is on one axis, and of one there is none.
        for i in range(min(2, len(spreads))):
            if spreads[i] > NOTHING * max(1.0, spreads[0]):
                # A direction and its opposite are as good: the largest value tells them apart.
                axes[:, i] = found[i] * np.sign(found[i][np.abs(found[i]).argmax()])
                explained[i] = spreads[i] ** 2 / (spreads**2).sum()
        return cls(mean, axes, explained)

    def __call__(self, vectors: NDArray[np.float32]) -> list[list[float]]:
        """The x and y of vectors ``(n, dim)``."""
        # Adding 0 makes a zero of minus zero.
        points: list[list[float]] = (((vectors - self.mean) @ self.axes).round(DIGITS) + 0).tolist()
        return points


@dataclass(frozen=True, slots=True)
class _Mapped:
    """The map of one state: ``facts`` are what clients get of it."""

    state: str
    plane: Plane
    facts: dict[str, Any]


class CorpusMap:
    """The map of an index, made when it is first asked for, in a thread of its own: no search waits for it."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._mapped: _Mapped | None = None
        self._thread = ThreadPoolExecutor(1, "jv5kit-mapping")

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    async def facts(self) -> dict[str, Any]:
        """The sample and where its documents are.

        Raises:
            IndexDamagedError: the index is not what was written.
        """

        def made() -> dict[str, Any]:
            self._index.refresh()
            return self._index.ask(self._of).facts

        return await asyncio.get_running_loop().run_in_executor(self._thread, made)

    async def place(self, body: bytes) -> dict[str, Any]:
        """Where some documents are, by the body of a request; null for one that is gone.

        Raises:
            ApiError: the body cannot be read.
            IndexDamagedError: the index is not what was written.
        """
        ids, passages = _read(body)

        def placed(snapshot: Snapshot) -> dict[str, Any]:
            mapped = self._of(snapshot)
            found = snapshot.find(ids)
            rows: dict[tuple[str, int], int] = {}
            for identifier, (numbers, _) in found.items():
                spans = snapshot.passages(np.array(numbers, np.int64))[:, 0].tolist()
                # A document that is no more than one passage has row 0, and that is its first.
                rows |= {(identifier, max(1, span)): row for row, span in zip(numbers, spans, strict=True)}
            wanted = [rows.get(key) for key in zip(ids, passages, strict=True)]
            known = np.array(sorted({row for row in wanted if row is not None}), np.int64)
            points = dict(zip(known.tolist(), mapped.plane(_vectors(snapshot, known)), strict=True))
            return {
                "state": mapped.state,
                "points": [
                    None if row is None else {"id": identifier, "x": points[row][0], "y": points[row][1]}
                    for identifier, row in zip(ids, wanted, strict=True)
                ],
            }

        def made() -> dict[str, Any]:
            self._index.refresh()
            return self._index.ask(placed)

        return await asyncio.get_running_loop().run_in_executor(self._thread, made)

    def _of(self, snapshot: Snapshot) -> _Mapped:
        """The map of a state, made if it is not the one that is kept."""
        state = f"{snapshot.state.settings.generation}-{snapshot.state.commit}"
        if self._mapped is None or self._mapped.state != state:
            self._mapped = _mapped(snapshot, state)
        return self._mapped


def _read(body: bytes) -> tuple[list[str], list[int]]:
    """The ids, and which passage of each."""
    values = read_fields(read_json(body), PLACE_FIELDS)
    given = values.get("ids", [])
    if len(given) > MAX_IDS:
        raise bad_request(f"ids has {len(given):,} documents; send at most {MAX_IDS:,} at a time", "ids")
    ids = [check_text(f"ids[{i}]", one) for i, one in enumerate(given)]
    passages = values.get("passages", [None] * len(ids))
    if len(passages) != len(ids):
        raise bad_request(f"passages has {len(passages)} numbers for {len(ids)} ids; send one for each", "passages")
    for i, one in enumerate(passages):
        if one is not None and (type(one) is not int or one < 1):
            raise bad_request(f"passages[{i}] is {shown(one)}; it must be a whole number from 1 on", "passages")
    return ids, [one or 1 for one in passages]


def _mapped(snapshot: Snapshot, state: str) -> _Mapped:
    numbers = _sample(snapshot)
    vectors = _vectors(snapshot, numbers)
    plane = Plane.fit(vectors)
    documents = snapshot.catalog.documents(numbers.tolist(), snapshot.state)
    points = [
        {"id": one.id, "title": _cut(one.title or one.id), "x": x, "y": y}
        for one, (x, y) in zip((documents[number] for number in numbers.tolist()), plane(vectors), strict=True)
    ]
    facts = {
        "state": state,
        "documents": snapshot.documents,
        "points": points,
        "explained": [round(float(share), DIGITS) for share in plane.explained],
    }
    return _Mapped(state, plane, facts)


def _cut(title: str) -> str:
    return title if len(title) <= TITLE else title[: TITLE - 1] + "…"


def _sample(snapshot: Snapshot) -> NDArray[np.int64]:
    """The numbers of rows, evenly over the index: the first row of each document of the sample."""
    kept = []
    for segment, live in zip(snapshot.segments, snapshot.masks(None), strict=True):
        bits = np.full(-(-segment.rows // 8), 255, np.uint8) if live is None else live
        if snapshot.state.settings.passages is not None:
            bits = bits & segment.first_rows
        kept.append(np.unpackbits(bits, count=segment.rows, bitorder="little"))
    counts = [int(one.sum(dtype=np.int64)) for one in kept]
    wanted = np.linspace(0, sum(counts) - 1, min(POINTS, sum(counts))).round().astype(np.int64)
    found = [np.empty(0, np.int64)]
    for segment, one, count in zip(snapshot.segments, kept, counts, strict=True):
        here = wanted[(wanted >= 0) & (wanted < count)]
        found.append(segment.numbers(np.flatnonzero(one)[here]))
        wanted = wanted - count
    return np.concatenate(found)


def _vectors(snapshot: Snapshot, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of rows ``(n, dim)``, as exactly as the index has them."""
    settings = snapshot.state.settings
    vectors = np.empty((len(numbers), settings.dim), np.float32)
    for segment, within in zip(snapshot.segments, snapshot.locate(numbers), strict=True):
        if len(within):
            vectors[within] = _stored(settings, segment, segment.positions(numbers[within]))
    return vectors


def _stored(settings: Settings, segment: Segment, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    tensors = {name for name, _, _ in vector_specs(settings, segment.rows)}

    def values(name: str) -> NDArray[Any]:
        return segment.rows_of(name, rows)[rows]

    if "embeddings" in tensors:
        return values("embeddings")
    if "rows" in tensors:
        vectors = values("rows").astype(np.float32)
        vectors *= values("scales")[:, None]
    else:
        vectors = 2 * np.unpackbits(values("codes"), axis=1).astype(np.float32) - 1
        # Of unit length, as the others are.
        vectors /= np.sqrt(settings.dim)
    return vectors
