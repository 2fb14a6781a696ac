"""Documents split into passages: where they are cut, against a naive reference, and put together again."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import models
import numpy as np
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, Unigram

from jv5kit import Document, Passage, passages
from jv5kit.errors import InputError
from jv5kit.passages import Splitter, cut
from jv5kit.pretrained import Checkpoint, load_checkpoint
from jv5kit.storage.passages import passage_of, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOKENIZERS = ["words", "bytes", "metaspace", "default"]


@pytest.fixture(scope="module", params=TOKENIZERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model of which only the tokenizer counts: WordPiece, bytes, SentencePiece, and that of the default model."""
    if request.param == "default":
        return load_checkpoint(None)
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "words":
        models.write_tokenizer(folder, template="[CLS] $A [SEP]")
    elif request.param == "bytes":
        # Without merges: a character is up to four tokens, all of them at one place.
        tokenizer = Tokenizer(BPE({one: i for i, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(str(folder / "tokenizer.json"))
    else:
        pieces = ["▁the", "▁penguin", "peng", "uin", "▁ice", "ice", "▁sea", "▁", *"abcdefghijklmnopqrstuvwxyz."]
        tokenizer = Tokenizer(
            Unigram([("<unk>", -20.0), *((piece, -5.0 - i / 9) for i, piece in enumerate(pieces))], 0)
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.save(str(folder / "tokenizer.json"))
    return Checkpoint("x", folder, 8, 96, "mean", normalize=True)


def splitter(checkpoint: Checkpoint, tokens: int, prompt: str = "") -> Splitter:
    of_model: Any = SimpleNamespace(checkpoint=checkpoint)
    return Splitter(of_model, prompt, tokens)


def counting(checkpoint: Checkpoint) -> Callable[[str], int]:
    """How many tokens a model has for a text, special tokens included."""
    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


PIECES = ["the", "penguin", "ice", "sea.", "x" * 30, "a" * 150, "漢字漢字", "🐧🐧", "e\u0301", "[SEP]", "Ünïcode", "?!"]
SEPARATORS = [" ", " ", " ", "", "\n", "\n\n", "   "]
TEXTS = (
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(SEPARATORS)), max_size=60)
    .map(lambda pairs: "".join(piece + separator for piece, separator in pairs))
    .filter(str.strip)
)
TITLES = st.one_of(st.none(), st.sampled_from(["On ice", "The penguin of the sea, " * 4]))


class TestSplitter:
    @settings(max_examples=100, deadline=None)
    @given(
        text=TEXTS,
        title=TITLES,
        tokens=st.integers(20, 64),
        prompt=st.sampled_from(["", "query: "]),
        block=st.sampled_from([40, 16_384]),
    )
    def test_passages_fit_and_cover_the_text(
        self, checkpoint: Checkpoint, text: str, title: str | None, tokens: int, prompt: str, block: int
    ) -> None:
        count = counting(checkpoint)
        document = Document("d", text, title, {"n": 1}, "file:1")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(passages, "BLOCK_CHARACTERS", block)
            rows = splitter(checkpoint, tokens, prompt).split([document])
        assert [count(prompt + content) for content in rows.contents if count(prompt + content) > tokens] == []
        assert len(rows.documents) == len(rows.contents) == len(rows.spans) == len(rows.tensors["passages"])
        for row, content, (number, start, end) in zip(rows.documents, rows.contents, rows.spans, strict=True):
            assert row.text == text[start:end]
            assert (row.id, row.title, row.metadata, row.origin) == ("d", title, {"n": 1}, "file:1")
            head = content.removesuffix(row.text)
            assert head == "" if title is None else head.endswith("\n") and title.startswith(head[:-1]) and head[:-1]
            assert head == (f"{title}\n" if title == "On ice" else head)
            assert passage_of((number, start, end)) == (Passage(number, start, end) if len(rows.spans) > 1 else None)
        assert whole(rows.documents, rows.spans) == document
        fits = count(prompt + document.content) <= tokens
        if fits and len(text) <= block:
            assert (rows.documents, rows.contents, rows.spans) == ([document], [document.content], [(0, 0, len(text))])
        elif not fits:
            assert rows.contents != [document.content]
            assert [number for number, *_ in rows.spans] == [*range(1, len(rows.spans) + 1)] or len(rows.spans) == 1
        if tokens >= 48 and title is None:
            assert all(after[1] < before[2] for before, after in pairwise(rows.spans))

    def test_several_documents(self, checkpoint: Checkpoint) -> None:
        """As one by one, in their order; the text of one does not move the cuts of another."""
        documents = [Document(str(i), "the penguin of the ice " * i) for i in range(1, 90, 4)]
        split = splitter(checkpoint, 40)
        together = split.split(documents)
        alone = [split.split([document]) for document in documents]
        assert together.documents == [row for rows in alone for row in rows.documents]
        assert together.contents == [content for rows in alone for content in rows.contents]
        assert together.spans == [span for rows in alone for span in rows.spans]
        assert split.split([]).tensors["passages"].shape == (0, 3)

    def test_words_stay_whole(self, checkpoint: Checkpoint) -> None:
        text = "the penguin of the ice sea. " * 200
        for row in splitter(checkpoint, 90).split([Document("d", text)]).documents:
            assert row.text.split()[0] in text.split()
            assert row.text.split()[-1] in text.split()

    def test_a_text_without_tokens(self, checkpoint: Checkpoint) -> None:
        """What a tokenizer drops is no reason to fail."""
        text = "\u200b" * 5000
        rows = splitter(checkpoint, 20).split([Document("d", text)])
        assert whole(rows.documents, rows.spans).text == text

    def test_more_tokens_than_the_model_reads(self, checkpoint: Checkpoint) -> None:
        most = checkpoint.max_tokens
        splitter(checkpoint, most)
        message = f"passages={most + 1} is more than the {most} tokens that .* reads at a time: give at most {most}"
        with pytest.raises(InputError, match=message):
            splitter(checkpoint, most + 1)

    def test_no_room_beside_the_prompt(self, checkpoint: Checkpoint) -> None:
        with pytest.raises(InputError, match=r"passages=16 leaves no room for a text: .* give at least ") as caught:
            splitter(checkpoint, 16, "the penguin of the ice sea. ")
        least = int(str(caught.value).split()[-1])
        split = splitter(checkpoint, least, "the penguin of the ice sea. ")
        assert len(split.split([Document("d", "penguin " * 30)]).documents) >= 5


def naive_cut(text: str, starts: Sequence[int], room: int) -> list[tuple[int, int]]:
    """The rules of ``cut``, by looking at every token."""
    count, overlap = len(starts), room // 8

    def place(token: int) -> bool:
        return 0 < token < count and starts[token] > starts[token - 1]

    def word(token: int) -> bool:
        return place(token) and (text[starts[token] - 1].isspace() or text[starts[token]].isspace())

    def last(fits: Callable[[int], bool], low: int, high: int) -> int | None:
        return max((token for token in range(low, high + 1) if fits(token)), default=None)

    def first(fits: Callable[[int], bool], low: int, high: int) -> int | None:
        return min((token for token in range(low, high + 1) if fits(token)), default=None)

    begin, spans = 0, []
    while count - begin > room:
        end = last(word, begin + room // 2 + 1, begin + room) or last(place, begin + 1, begin + room)
        end = end or first(place, begin + 1, count) or count
        spans.append((begin, end))
        if end == count:
            break
        after = last(word, max(begin + 1, end - 2 * overlap), end - overlap) or last(place, begin + 1, end - overlap)
        begin = after or end
    else:
        spans.append((first(word, count - room, begin) or begin, count) if spans else (0, count))
    return [(starts[a] if a else 0, starts[b] if b < count else len(text)) for a, b in spans]


class TestCut:
    @settings(max_examples=600, deadline=None)
    @given(data=st.data(), text=st.text("ab \n", min_size=1, max_size=120), room=st.integers(1, 40))
    def test_the_naive_reference(self, data: st.DataObject, text: str, room: int) -> None:
        starts = sorted(data.draw(st.lists(st.integers(0, len(text) - 1), max_size=150)))
        spans = cut(text, np.array(starts, np.int64), room)
        assert spans == naive_cut(text, starts, room)
        assert (spans[0][0], spans[-1][1]) == (0, len(text))
        for (start, end), (after, _) in pairwise(spans):
            assert start < after <= end

    @settings(max_examples=300, deadline=None)
    @given(text=st.text("abcdefgh \n", min_size=1, max_size=400), room=st.integers(1, 60))
    def test_an_eighth_is_shared(self, text: str, room: int) -> None:
        """Where each token has a place of its own: no span is too long, and all but the last are long enough."""
        starts = [i for i, character in enumerate(text) if not character.isspace()]
        spans = cut(text, np.array(starts, np.int64), room)
        within = [[token for token in starts if start <= token < end] for start, end in spans]
        # The first one has what is before the first token.
        assert all(len(tokens) <= room for tokens in within)
        assert all(len(set(a) & set(b)) >= room // 8 for a, b in pairwise(within))
        assert all(len(tokens) > room // 2 for tokens in within[:-1])
        assert len(spans) <= 1 + 4 * len(starts) / room

    def test_the_last_one_reaches_back(self) -> None:
        text = "a " * 33
        spans = cut(text, np.arange(0, 66, 2), 16)
        assert [(start // 2, end // 2) for start, end in spans] == [(0, 16), (14, 30), (17, 33)]


class TestWhole:
    ROWS = (Document("d", "one two "), Document("d", "two three "), Document("d", "three"))
    SPANS = ((1, 0, 8), (2, 4, 14), (3, 8, 13))

    def test_passages_together(self) -> None:
        assert whole(self.ROWS[:2], self.SPANS[:2]).text == "one two three "
        assert whole(self.ROWS[:1], [(0, 0, 8)]) is self.ROWS[0]

    @pytest.mark.parametrize(
        ("rows", "spans", "message"),
        [
            ((1,), [(2, 4, 14)], "passage 2 of the document 'd' does not follow"),
            ((0, 2), [(1, 0, 8), (3, 8, 13)], "passage 3"),
            ((0, 1), [(1, 0, 8), (2, 3, 13)], "passage 2"),
            ((0, 1), [(1, 0, 8), (2, 4, 13)], "passage 2"),
            ((0, 1), [(1, 0, 8), (2, 9, 19)], "passage 2"),
            ((0, 1), [(1, 1, 9), (2, 5, 15)], "passage 1"),
            ((0, 1), [(0, 0, 8), (0, 0, 10)], "the id 'd' belongs to two documents"),
            ((0, 1, 0, 1), [(1, 0, 8), (2, 4, 14), (1, 0, 8), (2, 4, 14)], "the id 'd' belongs to two documents"),
        ],
    )
    def test_what_is_none(self, rows: tuple[int, ...], spans: list[tuple[int, int, int]], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            whole([self.ROWS[i] for i in rows], spans)
