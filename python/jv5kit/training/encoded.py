"""The texts of a batch, column by column, and their embeddings: what the objectives compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from jv5kit.errors import InputError
from jv5kit.training import losses
from jv5kit.training.rows import Labeled, Pair, Scored, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from jv5kit.training.rows import Row

Role = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Column:
    """Texts of a batch that get the same prompt.

    Attributes:
        role: whose prompt they get.
        texts: in the order of the rows; a row may have none, or several.
        counts: how many each row has.
        taught: whether the teacher's embeddings of them are asked for, where an objective asks for any.
    """

    role: Role
    texts: list[str]
    counts: list[int]
    taught: bool = True


@dataclass(frozen=True, slots=True)
class Encoded:
    """A column of the whole batch.

    Attributes:
        column: its texts.
        student: their embeddings, ``(n, dim)``, with gradient.
        teacher: the teacher's, where the objective asks for them.
        base: those of the student without its adapter, where it asks for them.
    """

    column: Column
    student: Tensor
    teacher: Tensor | None = None
    base: Tensor | None = None


def two_columns(rows: Sequence[Row], role: Role) -> list[Column]:
    """The two texts of rows, the first one's in ``role``; of rows that are one text, that one, as documents."""
    firsts, seconds = [], []
    for row in rows:
        match row:
            case Pair():
                firsts.append(row.anchor)
                seconds.append(row.positive)
            case Scored():
                firsts.append(row.sentence1)
                seconds.append(row.sentence2)
            case Text() | Labeled():
                seconds.append(row.text)
    ones = [1] * len(rows)
    documents = Column("document", seconds, ones)
    if not firsts:
        return [documents]
    # What is scored against one another is of one kind.
    return [Column("document" if isinstance(rows[0], Scored) else role, firsts, ones), documents]


def negatives(rows: Sequence[Row], most: int, *, taught: bool = False) -> Column:
    """The negatives of pairs, the first ``most`` of each."""
    own = [row.negatives[:most] if isinstance(row, Pair) else () for row in rows]
    return Column("document", [text for texts in own for text in texts], [len(texts) for texts in own], taught=taught)


def never_negatives(queries: Column, positives: Column, mined: Column | None, *, shared: bool = True) -> Tensor:
    """Which candidates are no negatives of a row: bool ``(n, n + mined)``.

    Those are the texts of its own query and positive, wherever they are, and the positives of rows that have its query.

    Args:
        queries: a text for each row.
        positives: a text for each row.
        mined: negatives of the rows.
        shared: whether mined negatives are negatives of other rows than their own.

    Raises:
        InputError: no row has a negative.
    """
    count = len(positives.texts)
    candidates = positives.texts + (mined.texts if mined is not None else [])
    never = losses.repeats(positives.texts, candidates) | losses.repeats(queries.texts, candidates)
    never[:, :count] |= losses.repeats(queries.texts, queries.texts)
    if mined is not None and not shared:
        owners = torch.repeat_interleave(torch.arange(count), torch.tensor(mined.counts))
        never[:, count:] |= owners[None, :] != torch.arange(count)[:, None]
    own = torch.eye(count, len(candidates), dtype=torch.bool)
    if (never | own).all():
        raise InputError(
            f"a batch of {count} rows, of which the first is {queries.texts[0]!r}, has no negative for any of them: "
            "let batches have more rows, or find negatives with jv5kit mine"
        )
    return never


def joined(encoded: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's embeddings of several columns."""
    return torch.cat([one.student for one in encoded]), torch.cat([of_teacher(one) for one in encoded])


def of_teacher(one: Encoded) -> Tensor:
    """The teacher's embeddings of a column."""
    assert one.teacher is not None
    return one.teacher
