"""Tasks of mteb, of each type, on data that is made here."""

from __future__ import annotations

from typing import Any

WORDS = ["penguin", "bird", "sea", "ice", "warm", "cold", "swims", "flies"]
DOCUMENTS = [f"{a} {b} {i}" for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS)]
QUERIES = [f"the {a} of {b}" for a in WORDS[:4] for b in WORDS[4:]]
QRELS = {f"q{i}": {f"d{(8 * (i // 4) + 4 + i % 4)}": 1} for i in range(len(QUERIES))}


def metadata(name: str, kind: str, main_score: str, **settings: Any) -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name,
        description="made by a test",
        dataset={"path": "none", "revision": "1"},
        type=kind,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        **settings,
    )


def retrieval(*, reranking: bool = False) -> Any:
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    class Birds(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = metadata(
            "LocalBirds", "Reranking" if reranking else "Retrieval", "map_at_1000" if reranking else "ndcg_at_10"
        )

        def load_data(self, **_: Any) -> None:
            self.loads = getattr(self, "loads", 0) + 1
            split = {
                "corpus": Dataset.from_list([{"id": f"d{i}", "text": text} for i, text in enumerate(DOCUMENTS)]),
                "queries": Dataset.from_list([{"id": f"q{i}", "text": text} for i, text in enumerate(QUERIES)]),
                "relevant_docs": QRELS,
                "top_ranked": {q: [f"d{i}" for i in range(64)] for q in QRELS} if reranking else None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Birds()


def sts() -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.sts import AbsTaskSTS

    class Pairs(AbsTaskSTS):  # type: ignore[misc]
        metadata = metadata("LocalSTS", "STS", "cosine_spearman")
        min_score, max_score = 0, 5

        def load_data(self, **_: Any) -> None:
            rows = [
                {"sentence1": a, "sentence2": b, "score": len(set(a) & set(b))}
                for a, b in zip(DOCUMENTS, DOCUMENTS[9:], strict=False)
            ]
            self.dataset = DatasetDict({"test": Dataset.from_list(rows)})
            self.data_loaded = True

    return Pairs()


def classification() -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification

    class Labels(AbsTaskClassification):  # type: ignore[misc]
        metadata = metadata("LocalLabels", "Classification", "accuracy")
        samples_per_label, n_experiments = 4, 2

        def load_data(self, **_: Any) -> None:
            rows = [{"text": text, "label": i // 16} for i, text in enumerate(DOCUMENTS)]
            self.dataset = DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows)})
            self.data_loaded = True

    return Labels()


def bitext() -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

    class Lines(AbsTaskBitextMining):  # type: ignore[misc]
        metadata = metadata("LocalBitext", "BitextMining", "f1")

        def load_data(self, **_: Any) -> None:
            rows = [{"sentence1": text, "sentence2": f"the {text}"} for text in DOCUMENTS]
            self.dataset = DatasetDict({"test": Dataset.from_list(rows)})
            self.data_loaded = True

    return Lines()


def summaries() -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.text.summarization import AbsTaskSummarization

    class Summed(AbsTaskSummarization):  # type: ignore[misc]
        metadata = metadata("LocalSummaries", "Summarization", "cosine_spearman")
        min_score, max_score = 0, 5

        def load_data(self, **_: Any) -> None:
            rows = [
                {
                    "text": text,
                    "human_summaries": [text, f"a {text}"],
                    "machine_summaries": DOCUMENTS[i : i + 4],
                    "relevance": [4, 2, 1, 3],
                }
                for i, text in enumerate(DOCUMENTS[:6])
            ]
            self.dataset = DatasetDict({"test": Dataset.from_list(rows)})
            self.data_loaded = True

    return Summed()


def clustering() -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.clustering import AbsTaskClustering

    class Groups(AbsTaskClustering):  # type: ignore[misc]
        metadata = metadata("LocalGroups", "Clustering", "v_measure")
        max_fraction_of_documents_to_embed, n_clusters, max_documents_per_cluster = 0.9, 2, 100

        def load_data(self, **_: Any) -> None:
            rows = [{"sentences": text, "labels": i // 16} for i, text in enumerate(DOCUMENTS)]
            self.dataset = DatasetDict({"test": Dataset.from_list(rows)})
            self.data_loaded = True

    return Groups()
