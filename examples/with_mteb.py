"""mteb with jv5kit: a task evaluated with our model, in float32 and in a binary index.

A task of mteb's own is named, ``mteb.get_tasks(tasks=["NFCorpus"])``, and fetched from the hub; the one here is made of
a few sentences, so that it needs no network.

    pip install 'jv5kit[eval]'
    python examples/with_mteb.py

It prints::

    float32       ndcg_at_10 1.00
    ubinary+int8  ndcg_at_10 1.00
"""

from __future__ import annotations

from typing import Any

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from jv5kit.integrations.mteb import mteb_model

DOCUMENTS = {
    "emperor": "Emperor penguins huddle to stay warm in winter.",
    "swift": "Swifts sleep, eat and drink on the wing.",
    "zip": "A zip archive is opened for reading.",
    "shuffle": "Shuffle a list in place.",
}
QUERIES = {
    "which bird sleeps while it flies": "swift",
    "how do penguins survive the cold": "emperor",
    "read compressed files": "zip",
}


# mypy sees mteb as Any: hence the ignored base.
class Birds(AbsTaskRetrieval):  # type: ignore[misc]  # The base is Any to mypy.
    """Which of a few sentences answers a question."""

    metadata = TaskMetadata(
        name="Birds",
        description="A few sentences.",
        dataset={"path": "none", "revision": "1"},
        type="Retrieval",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def load_data(self, **_: Any) -> None:
        """Put the sentences where mteb looks for what it fetches."""
        split = {
            "corpus": Dataset.from_list([{"id": name, "text": text} for name, text in DOCUMENTS.items()]),
            "queries": Dataset.from_list([{"id": f"q{i}", "text": text} for i, text in enumerate(QUERIES)]),
            "relevant_docs": {f"q{i}": {name: 1} for i, name in enumerate(QUERIES.values())},
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def main() -> None:
    for precision in ("float32", "ubinary+int8"):
        # Was: model = mteb.get_model("sentence-transformers/all-MiniLM-L6-v2")
        model = mteb_model("pico", dim=256, precision=precision)
        results = mteb.evaluate(model, Birds(), cache=None, co2_tracker=False, show_progress_bar=False)
        (task,) = results.task_results
        print(f"{precision:13} {Birds.metadata.main_score} {task.get_score():.2f}")


if __name__ == "__main__":
    main()
