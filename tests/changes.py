"""Sequences of changes to an index, and what is left of a dict of its documents after each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st

from jv5kit import Document, Index

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Step = tuple[str, Any]
"""``add`` and ``upsert`` with documents, as triples of an id, the number ``n`` of their metadata and one more number;
``delete`` with ids; ``where`` with an ``n``; ``compact`` and ``reopen``."""


def sequences(*, ids: int, numbers: int, batch: int, most: int) -> SearchStrategy[list[Step]]:
    """Sequences of steps.

    Args:
        ids: the highest id.
        numbers: the highest third number of a document.
        batch: documents of a step, at most.
        most: steps, at most.
    """
    some_id = st.integers(0, ids).map(str)
    documents = st.lists(st.tuples(some_id, st.integers(0, 3), st.integers(0, numbers)), min_size=1, max_size=batch)
    steps: list[SearchStrategy[Step]] = [
        st.tuples(st.just("add"), documents),
        st.tuples(st.just("upsert"), documents),
        st.tuples(st.just("delete"), st.lists(some_id, max_size=5)),
        st.tuples(st.just("where"), st.integers(0, 3)),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ]
    return st.lists(st.one_of(steps), min_size=1, max_size=most)


def take(index: Index, step: Step, documents: dict[str, Document]) -> Index:
    """Take a step that adds nothing.

    Args:
        index: the index.
        step: what happens to it.
        documents: all that it holds; what it loses leaves them.

    Returns:
        The index, or the one that was opened in its place.
    """
    action, argument = step
    if action == "delete":
        assert index.delete(argument) == len(set(argument) & documents.keys())
        for identifier in argument:
            documents.pop(identifier, None)
    elif action == "where":
        gone = [identifier for identifier, document in documents.items() if document.metadata == {"n": argument}]
        assert index.delete(filter=f"n = {argument}") == len(gone)
        for identifier in gone:
            del documents[identifier]
    elif action == "compact":
        index.compact()
        assert index.deleted_count == 0
        assert index.segment_count == (1 if documents else 0)
    else:
        index.close()
        return Index.open(index.path)
    return index
