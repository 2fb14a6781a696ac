"""Hard negatives: documents near to a query that do not answer it, found with a binary index of our own.

The positives, and the documents of a corpus if there is one, are indexed once: bits to find them by, and int8 rows to
rescore with. Each anchor is a query. Of what it finds, in a range of ranks, those stay that score less
than its positive by a margin, and are not the positive in other words. A margin relative to the score of the positive
is what NV-Retriever found best (arXiv 2407.15831, section 3).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from jv5kit.errors import InputError
from jv5kit.index import Index
from jv5kit.querying import How, answer, queries_of
from jv5kit.scan import Rows, cosines, stored_embeddings
from jv5kit.storage.catalog import Catalog
from jv5kit.storage.snapshot import open_snapshot
from jv5kit.training.rows import Pair
from jv5kit.types import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jv5kit.encoder import Encoder
    from jv5kit.storage.snapshot import Snapshot

QUERIES = 256
"""Anchors that are searched for together."""

SPARE = 8
"""Candidates beyond the negatives wanted whose texts are read, as some may be equal to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a negative must be.

    Attributes:
        negatives: wanted of each row.
        ranks: the first and the last rank of candidates, from 1 on, its positives not counted.
        margin: how much less than the positive a candidate scores, as a cosine.
        relative_margin: the same, as a part of the score of the positive.
        similarity: a cosine to the positive from which on a candidate says the same as the positive.
        oversample: candidates of the bits for each that is rescored.
    """

    negatives: int = 7
    ranks: tuple[int, int] = (1, 100)
    margin: float = 0.0
    relative_margin: float = 0.05
    similarity: float = 0.95
    oversample: int = 4

    def __post_init__(self) -> None:
        """Refuse what finds nothing.

        Raises:
            InputError: names the setting, its value and what it must be.
        """
        first, last = self.ranks
        if self.negatives < 1:
            raise InputError(f"negatives={self.negatives}; it must be at least 1")
        if not 1 <= first <= last:
            raise InputError(f"ranks={first}-{last}; the first must be at least 1, and the last no less")
        if last - first + 1 < self.negatives:
            raise InputError(f"ranks={first}-{last} have no room for {self.negatives} negatives")
        for name, value, low, high in (
            ("margin", self.margin, 0, 2),
            ("relative_margin", self.relative_margin, 0, 1),
            ("similarity", self.similarity, 0, 2),
        ):
            if not low <= value <= high:
                raise InputError(f"{name}={value:g}; it must be in {low}..{high}")


@dataclass(slots=True)
class Tally:
    """What was found.

    Attributes:
        rows: that were written.
        negatives: of them all.
        incomplete: rows with fewer negatives than wanted.
        without: rows that have none.
        documents: that were searched.
        within_margin: candidates that scored too near to the positive of their row, or above it.
        like_positive: candidates that say the same as the positive, by their similarity or by their text.
    """

    rows: int = 0
    negatives: int = 0
    incomplete: int = 0
    without: int = 0
    documents: int = 0
    within_margin: int = 0
    like_positive: int = 0

    def facts(self) -> dict[str, int]:
        """As JSON has it."""
        return asdict(self)


class _Positives:
    """Which documents answer an anchor: hashes of texts, whatever their length."""

    def __init__(self) -> None:
        self._ids: dict[bytes, list[bytes]] = {}

    def add(self, anchor: str, document: bytes) -> None:
        """Note an answer."""
        own = self._ids.setdefault(_digest(_plain(anchor)), [])
        if document not in own:
            own.append(document)

    def ids(self, anchor: str) -> list[str]:
        """The ids of the answers."""
        return [document.hex() for document in self._ids[_digest(_plain(anchor))]]


def mine(
    rows: Callable[[], Iterable[Pair]],
    index: Path,
    encoder: Encoder,
    settings: Settings,
    *,
    corpus: Iterable[Document] = (),
    dim: int | None = None,
    tally: Tally | None = None,
    show_progress_bar: bool | None = None,
) -> Iterator[Pair]:
    """Give each row hard negatives, in place of those that it has.

    Args:
        rows: gives the rows, twice the same.
        index: folder of the index: a new one, or one of an earlier run, where what it has already is not encoded again.
        encoder: of documents and queries.
        settings: what a negative must be.
        corpus: further documents that may be negatives.
        dim: dimensions to keep; by default all.
        tally: takes the counts.
        show_progress_bar: of the encoding of the documents; None shows it on a terminal.

    Returns:
        The rows in their order, with as many negatives as were found, the hardest first.

    Raises:
        InputError: the index is of another kind or model, or a setting does not fit.
    """
    tally = Tally() if tally is None else tally
    positives = _Positives()
    snapshot = _indexed(index, encoder, _documents(rows(), corpus, positives), dim, show_progress_bar)
    try:
        tally.documents = snapshot.documents
        left = iter(rows())
        while batch := list(islice(left, QUERIES)):
            yield from _mined(snapshot, encoder, batch, positives, settings, tally)
    finally:
        snapshot.catalog.close()


def _documents(rows: Iterable[Pair], corpus: Iterable[Document], positives: _Positives) -> Iterator[Document]:
    """Every text once, under an id that is of the text alone: a further run knows it again."""
    seen: set[bytes] = set()

    def texts() -> Iterator[tuple[bytes, str]]:
        for row in rows:
            digest = _digest(row.positive)
            positives.add(row.anchor, digest)
            yield digest, row.positive
        for document in corpus:
            yield _digest(document.content), document.content

    for digest, text in texts():
        if digest not in seen:
            seen.add(digest)
            yield Document(digest.hex(), text)


def _indexed(
    path: Path, encoder: Encoder, documents: Iterator[Document], dim: int | None, show: bool | None
) -> Snapshot:
    """The index of the documents, open."""
    if path.exists():
        with Index.open(path) as index:
            stored = index.settings
            if (stored.precision, stored.rescore, stored.passages) != ("ubinary", "int8", None):
                raise InputError(f"{path} is no index of `jv5kit mine`: name another folder, or leave it out")
            if dim not in (None, stored.dim):
                raise InputError(f"{path} has {stored.dim} dimensions, not {dim}: name another folder, or leave it out")
            index.use_encoder(encoder)
            index.add(documents, show_progress_bar=show)
    else:
        Index.build(path, documents, encoder, dim=dim, show_progress_bar=show).close()
    return open_snapshot(path, Catalog(path))


def _mined(
    snapshot: Snapshot,
    encoder: Encoder,
    batch: Sequence[Pair],
    positives: _Positives,
    settings: Settings,
    tally: Tally,
) -> Iterator[Pair]:
    """A batch of rows with their negatives."""
    own = [positives.ids(row.anchor) for row in batch]
    found = snapshot.find(sorted({identifier for ids in own for identifier in ids}))
    numbers = {identifier: there[0] for identifier, (there, _) in found.items()}
    depth = settings.ranks[1] + max(map(len, own))
    texts = [row.anchor for row in batch]
    state = snapshot.state.settings
    embeddings = encoder.encode(texts, prompt=state.query_prompt, normalize_embeddings=False, show_progress_bar=False)
    queries = queries_of(embeddings, None, state, snapshot.rotation, lambda _: embeddings)
    ranking = answer(snapshot, queries, How.of(depth, oversample=settings.oversample))
    rows = Rows(state, snapshot.segments, snapshot.masks(None))
    chosen = []
    for i, (row, (scores, candidates)) in enumerate(zip(batch, ranking, strict=True)):
        answers = {numbers[identifier] for identifier in own[i]}
        left = [(score, number) for score, number in zip(scores, candidates, strict=True) if number not in answers]
        left = left[settings.ranks[0] - 1 : settings.ranks[1]]
        positive = snapshot.positions(np.array([numbers[_digest(row.positive).hex()]]))
        chosen.append(_hard(rows, snapshot, queries.embeddings[i], positive, left, settings, tally))
    wanted = sorted({number for numbers_of_row in chosen for number in numbers_of_row})
    documents = snapshot.catalog.documents(wanted, snapshot.state)
    for row, numbers_of_row in zip(batch, chosen, strict=True):
        yield _with_negatives(row, [documents[number].text for number in numbers_of_row], settings, tally)


def _hard(
    rows: Rows,
    snapshot: Snapshot,
    query: NDArray[np.float32],
    positive: NDArray[np.int64],
    candidates: Sequence[tuple[float, int]],
    settings: Settings,
    tally: Tally,
) -> list[int]:
    """The candidates that are hard, but not too hard, the hardest first; a few more than are wanted."""
    score = float(cosines(rows, query, positive)[0])
    limit = score - settings.margin - settings.relative_margin * abs(score)
    numbers = np.array([number for found, number in candidates if found <= limit], np.int64)
    tally.within_margin += len(candidates) - len(numbers)
    likeness = cosines(rows, stored_embeddings(rows, positive)[0], snapshot.positions(numbers))
    different = likeness < settings.similarity
    hard: list[int] = numbers[different][: settings.negatives + SPARE].tolist()
    tally.like_positive += int((~different).sum())
    return hard


def _with_negatives(row: Pair, candidates: Sequence[str], settings: Settings, tally: Tally) -> Pair:
    """The row with those candidates whose texts differ from its own and from each other."""
    seen = {_plain(row.anchor), _plain(row.positive)}
    negatives: list[str] = []
    for text in candidates:
        if len(negatives) == settings.negatives:
            break
        if _plain(text) in seen:
            tally.like_positive += 1
        else:
            seen.add(_plain(text))
            negatives.append(text)
    tally.rows += 1
    tally.negatives += len(negatives)
    tally.incomplete += len(negatives) < settings.negatives
    tally.without += not negatives
    return Pair(row.anchor, row.positive, tuple(negatives))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _plain(text: str) -> str:
    """A text without its case and the length of its spaces."""
    return " ".join(text.casefold().split())
