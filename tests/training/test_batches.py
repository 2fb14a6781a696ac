"""Which rows a step gets: all of them, in a random order, no text twice, and the same again after a restart."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import RowsFile
from hypothesis import given, settings
from hypothesis import strategies as st

from jv5kit.errors import InputError
from jv5kit.training import batches as batches_module
from jv5kit.training import windows
from jv5kit.training.batches import Batch, Batches
from jv5kit.training.permutation import Permutation
from jv5kit.training.rows import Pair, Row, Source, open_source

PROPERTIES = settings(deadline=None, max_examples=60)


def pairs(count: int, anchors: int | None = None) -> list[dict[str, Any]]:
    """Pairs of texts of many lengths, of so many anchors."""
    return [
        {"anchor": f"anchor {i % (anchors or count)}", "positive": f"positive {i} " + "long " * (i * 7 % 41)}
        for i in range(count)
    ]


def opened(path: Path, **options: Any) -> Source:
    return open_source(str(path), **options)


def taken(batches: Batches, rows: int) -> list[Batch]:
    """Batches until there are so many rows."""
    found: list[Batch] = []
    while sum(len(batch.rows) for batch in found) < rows:
        found.append(next(batches))
    return found


def repeats(batch: Batch) -> int:
    """Texts that are in a batch more than once."""
    pairs = [row for row in batch.rows if isinstance(row, Pair)]
    counts = Counter(text for row in pairs for text in {row.anchor, row.positive})
    return sum(count - 1 for count in counts.values())


def check_epochs(found: Iterable[Batch], rows: int) -> None:
    """After each batch no row was given out twice more often than another one."""
    counts = np.zeros(rows, int)
    for batch in found:
        np.add.at(counts, list(batch.positions), 1)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("size", [*range(1, 20), 1000, 4096, 5000])
def test_a_permutation_has_every_row_once(size: int) -> None:
    order = Permutation(size, ("a", 1))
    places = order(0, size).tolist()
    assert sorted(places) == list(range(size))
    assert order(size // 3, size).tolist() == places[size // 3 :]
    if size > 100:
        assert places != Permutation(size, ("a", 2))(0, size).tolist()
        # As good as random: neighbors are far from each other, and there is no slope.
        assert abs(np.corrcoef(places, range(size))[0, 1]) < 0.1
        assert abs(np.corrcoef(places[1:], places[:-1])[0, 1]) < 0.1


def test_a_permutation_of_very_many_rows() -> None:
    order = Permutation(10**12, ("a",))
    places = order(5 * 10**11, 5 * 10**11 + 1000)
    assert len(set(places.tolist())) == 1000
    assert places.min() >= 0
    assert 10**11 < np.median(places) < 9 * 10**11
    assert places.max() < 10**12


class Held(Source):
    """Pairs in memory, which are made faster than files."""

    def __init__(self, name: str, records: Sequence[Pair], *, weight: float = 1, batch: int | None = None) -> None:
        self.name, self.kind, self.weight, self.batch, self.length = name, "pairs", weight, batch, None
        self.labels, self._records = None, records

    def __len__(self) -> int:
        return len(self._records)

    def rows(self, positions: Sequence[int]) -> list[Row]:
        return [self._records[position] for position in positions]

    def fingerprint(self) -> str:
        return f"{len(self)} rows"


def held(name: str, records: Iterable[Mapping[str, Any]], **options: Any) -> Source:
    return Held(name, [Pair(**record) for record in records], **options)


@PROPERTIES
@given(
    count=st.integers(1, 70),
    anchors=st.integers(1, 70),
    size=st.integers(1, 20),
    tokens=st.none() | st.integers(1, 200),
    window=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_every_row_once_an_epoch(
    count: int, anchors: int, size: int, tokens: int | None, window: int, seed: int
) -> None:
    source = held("a", pairs(count, min(anchors, count)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW", window)
        found = taken(Batches([source], size, seed=seed, tokens=tokens), 3 * count)
    assert all(batch.rows == source.rows(batch.positions) for batch in found)
    assert [batch.number for batch in found] == list(range(len(found)))
    check_epochs(found, count)
    if tokens is None:
        assert max(len(batch.rows) for batch in found) <= min(size, count)
        if anchors >= count:
            # No batch is smaller than another, whatever the number of rows.
            assert {len(batch.rows) for batch in found} == {min(size, count)}
            assert sum(map(repeats, found)) == 0


@PROPERTIES
@given(
    first=st.integers(1, 60),
    second=st.integers(1, 60),
    tokens=st.none() | st.integers(1, 200),
    before=st.integers(0, 25),
    seed=st.integers(0, 5),
)
def test_a_restart_changes_nothing(first: int, second: int, tokens: int | None, before: int, seed: int) -> None:
    sources = [held("a", pairs(first, 9), weight=2), held("b", pairs(second), batch=3)]

    def begun() -> Batches:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(windows, "WINDOW", 2)
            return Batches(sources, 8, seed=seed, tokens=tokens)

    check_restart(begun, before)


def check_restart(begun: Callable[[], Batches], before: int) -> None:
    """What follows after some batches is what follows in another process."""
    batches = begun()
    for _ in range(before):
        next(batches)
    kept = json.dumps(batches.state())
    assert len(kept) < 3000
    again = begun()
    again.restore(json.loads(kept))
    expected, found = list(islice(batches, 25)), list(islice(again, 25))
    assert found == expected
    # And the state did not follow the batches that came after it.
    assert json.dumps(again.state()) == json.dumps(batches.state()) != kept


@pytest.mark.parametrize("before", [0, 1, 7, 8])
def test_a_restart_of_labeled_rows(before: int, rows_file: RowsFile) -> None:
    rows = [{"text": f"text {i}", "labels": [i % 3, 3 + i % 2]} for i in range(12)]
    sources = [opened(rows_file(rows)), opened(rows_file(pairs(9), "pairs.jsonl"))]
    check_restart(lambda: Batches(sources, 4, seed=0, negatives=2), before)


def test_seeds_differ(rows_file: RowsFile) -> None:
    source = opened(rows_file(pairs(500)))
    orders = [[batch.positions for batch in taken(Batches([source], 50, seed=seed), 500)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    epochs = [batch.positions for batch in taken(Batches([source], 50, seed=0), 1000)]
    assert epochs[:10] != epochs[10:]


@pytest.mark.parametrize("tokens", [None, 2000])
def test_no_text_twice_where_that_can_be(tokens: int | None, rows_file: RowsFile) -> None:
    """Four rows an anchor, one after the other, as in a textbook; without the rule a batch has a dozen twice."""
    rows = [{"anchor": f"anchor {i // 4}", "positive": f"positive {i}"} for i in range(2000)]
    rows += [{"anchor": f"other {i}", "positive": f"again {i % 100}"} for i in range(400)]
    source = opened(rows_file(rows))
    found = taken(Batches([source], 128, seed=3, tokens=tokens), 4800)
    check_epochs(found, 2400)
    assert sum(map(repeats, found)) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows.Bin, "takes", lambda *_: True)
        assert sum(map(repeats, taken(Batches([source], 128, seed=3, tokens=tokens), 4800))) > 100


def test_a_text_twice_where_it_must_be(rows_file: RowsFile) -> None:
    source = opened(rows_file([{"anchor": "the only one", "positive": f"positive {i}"} for i in range(100)]))
    found = taken(Batches([source], 10, seed=0), 300)
    check_epochs(found, 100)
    assert all(len(batch.rows) == 10 for batch in found)


def test_scored_rows_may_share_sentences(rows_file: RowsFile) -> None:
    rows = [{"sentence1": "one sentence", "sentence2": f"another {i}", "score": i} for i in range(64)]
    assert len(next(Batches([opened(rows_file(rows))], 64, seed=0)).rows) == 64


def test_weights(rows_file: RowsFile) -> None:
    """Of the batches, whatever the sizes; 0 is never."""
    weights = {"a": 1, "b": 0, "c": 3, "d": 0}
    sources = [
        opened(rows_file(pairs(20 + i), f"{name}.jsonl"), weight=w) for i, (name, w) in enumerate(weights.items())
    ]
    found = list(islice(Batches(sources, 8, seed=0), 1000))
    counts = Counter(batch.source.name for batch in found)
    assert set(counts) == {"a", "c"}
    assert 200 < counts["a"] < 300
    for source in sources:
        check_epochs([batch for batch in found if batch.source is source], len(source))


def test_a_budget_of_tokens(rows_file: RowsFile) -> None:
    rows = pairs(600)
    source = opened(rows_file(rows))
    found = taken(Batches([source], 64, seed=0, tokens=800), 600)
    lengths = [[len(rows[i]["anchor"]) / 4 + len(rows[i]["positive"]) / 4 for i in batch.positions] for batch in found]
    assert max(map(sum, lengths)) <= 800
    assert max(map(len, lengths)) <= 64
    # As full as can be, but for the end of an epoch; near length together, and in no order.
    assert np.median([max(sum(one) / 800, len(one) / 64) for one in lengths]) > 0.9
    spread = np.mean([np.std(one) for one in lengths])
    assert spread < 0.2 * np.std([length for one in lengths for length in one])
    means = [float(np.mean(one)) for one in lengths]
    assert means != sorted(means)
    # What is not read does not count.
    cut = opened(rows_file(rows, "cut.jsonl"), length=5)
    sizes = Counter(len(batch.rows) for batch in taken(Batches([cut], 64, seed=0, tokens=800), 600))
    assert sizes == {64: 9, 24: 1}


def test_rows_longer_than_the_budget_come_by_twos(rows_file: RowsFile) -> None:
    source = opened(rows_file([{"text": f"{i} " + "long " * 500} for i in range(10)]))
    assert [len(batch.rows) for batch in taken(Batches([source], 8, seed=0, tokens=100), 10)] == [2] * 5


def test_own_batch_sizes(rows_file: RowsFile) -> None:
    sources = [opened(rows_file(pairs(50), "a.jsonl"), batch=5), opened(rows_file(pairs(50), "b.jsonl"))]
    sizes = {(batch.source.name, len(batch.rows)) for batch in islice(Batches(sources, 11, seed=0), 40)}
    assert sizes == {("a", 5), ("b", 11)}


def labels_of(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    return {row["text"]: set(map(str, row.get("labels", [row.get("label")]))) for row in rows}


@pytest.mark.parametrize("several", [False, True])
def test_labeled_rows_become_pairs(several: bool, rows_file: RowsFile) -> None:
    rows: list[dict[str, Any]] = [{"text": f"text {i}", "label": i % 6 if i < 57 else f"only {i}"} for i in range(60)]
    if several:
        rows = [
            {"text": row["text"], "labels": [row["label"], f"also {i % 4}"][: 1 + (i < 40)]}
            for i, row in enumerate(rows)
        ]
    labels = labels_of(rows)
    source = opened(rows_file(rows))
    found = taken(Batches([source], 8, seed=0, negatives=4), 1200)
    drawn: Counter[str] = Counter()
    for batch in found:
        for position, row in zip(batch.positions, batch.rows, strict=True):
            assert isinstance(row, Pair)
            assert row.anchor == rows[position]["text"] != row.positive
            assert labels[row.anchor] & labels[row.positive]
            assert len(set(row.negatives)) == 4
            assert all(not labels[row.anchor] & labels[text] for text in row.negatives)
            drawn.update([row.positive, *row.negatives])
    # A text that is alone with its label is against others, though never an anchor.
    assert {f"text {i}" for i in (57, 58, 59)} <= set(drawn)
    assert {position for batch in found for position in batch.positions} == set(range(57))
    # All are drawn, about as often each.
    assert len(drawn) == 60
    assert max(drawn.values()) < 4 * min(drawn.values())


def test_draws_are_even(rows_file: RowsFile) -> None:
    """Positives among all others of the label, negatives among all rows of other labels: each as often, to 4 sigma."""
    rows = [{"text": str(i), "label": "abbcccc"[i % 7]} for i in range(35)]
    source = opened(rows_file(rows))
    positives: Counter[str] = Counter()
    negatives: Counter[str] = Counter()
    for batch in taken(Batches([source], 35, seed=0, negatives=1), 35 * 200):
        pair = next(row for row in batch.rows if isinstance(row, Pair) and row.anchor == "1")
        positives[pair.positive] += 1
        negatives.update(pair.negatives)
    others = [row["text"] for row in rows if row["label"] == "b" and row["text"] != "1"]
    for counts, among in ((positives, others), (negatives, [row["text"] for row in rows if row["label"] != "b"])):
        assert set(counts) == set(among)
        expected = sum(counts.values()) / len(among)
        assert all(abs(count - expected) < 4 * expected**0.5 for count in counts.values())


def test_fewer_negatives_where_there_are_no_more(rows_file: RowsFile) -> None:
    rows = [{"text": f"{i}", "labels": ["all", "x"] if i else ["y", "z"]} for i in range(4)]
    rows += [{"text": "4", "labels": ["y", "all", "x", "z"]}]
    rows = [{"text": row["text"], "labels": row["labels"]} for row in rows]
    found = {
        row.anchor: row
        for batch in taken(Batches([opened(rows_file(rows))], 5, seed=0), 5)
        for row in batch.rows
        if isinstance(row, Pair)
    }
    assert {anchor: sorted(row.negatives) for anchor, row in found.items()} == {
        "0": ["1", "2", "3"],
        "1": ["0"],
        "2": ["0"],
        "3": ["0"],
        "4": [],
    }


def test_bad_arguments(rows_file: RowsFile) -> None:
    a, b = (opened(rows_file(pairs(9), f"{name}.jsonl")) for name in "ab")
    for arguments, message in (
        (([], 4), "there is no source with a weight above 0"),
        (([opened(rows_file(pairs(9), "c.jsonl"), weight=0)], 4), "there is no source with a weight above 0"),
        (([a, a], 4), "two sources have the name 'a'"),
        (([a], 0), "batch=0; it must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            Batches(*arguments, seed=0)
    for name, value in (("tokens", 0), ("negatives", -1)):
        with pytest.raises(InputError, match=f"{name}={value}; it must be at least"):
            Batches([a], 4, seed=0, **{name: value})
    state = Batches([a, b], 4, seed=0).state()
    for batches, message in (
        (Batches([a, b], 4, seed=1), "seed is 1, but was 0"),
        (Batches([a, b], 5, seed=0), "batch is 5, but was 4"),
        (Batches([a, b], 4, seed=0, tokens=9), "tokens is 9, but was None"),
        (Batches([a], 4, seed=0), "the source b is missing"),
        (Batches([b, a], 4, seed=0), "the sources were a, b, in this order"),
        (Batches([a, opened(rows_file(pairs(8), "b.jsonl"))], 4, seed=0), "the rows of b have changed"),
    ):
        with pytest.raises(InputError, match=message):
            batches.restore(state)


def test_rounds_of_draws_end(rows_file: RowsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that nearly every row has: a few rounds, then fewer negatives."""
    rows = [{"text": f"{i}", "labels": ["x", f"own {i // 2}"]} for i in range(40)]
    source = opened(rows_file(rows))
    reads = []
    read = source.rows

    def counted(positions: Sequence[int]) -> list[Row]:
        reads.append(len(positions))
        return read(positions)

    monkeypatch.setattr(source, "rows", counted)
    batch = next(Batches([source], 4, seed=0))
    assert all(isinstance(row, Pair) and row.negatives == () for row in batch.rows)
    assert len(reads) <= batches_module.TRIES + 4
