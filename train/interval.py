"""How sure a share of nDCG@10 is: ``python train/interval.py SETS MODEL --against OTHER``.

The queries of each set are drawn again, with replacement, many times (the bootstrap: Efron, 1979), the same for both
models: the interval that holds 95 % of the shares says how much of a difference other queries could have made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from jv5kit import Encoder
from jv5kit.errors import InputError, Jv5kitError
from jv5kit.evaluation.folders import choose, find_sets
from jv5kit.evaluation.metrics import ndcg
from jv5kit.evaluation.retrieval import ranked, temporary_index
from jv5kit.evaluation.tasks import Retrieval

Scores = list[NDArray[np.float64]]
"""Of each set, a score a query."""

DRAWS = 10_000


def interval(ours: Scores, theirs: Scores, draws: int = DRAWS, seed: int = 0) -> tuple[float, float, float]:
    """The share of the means over sets, and the ends of its interval of 95 %.

    Args:
        ours: for each set ``(queries,)``.
        theirs: the same queries, by what it is a share of.
        draws: of the queries of each set.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    sums = np.zeros((2, draws))
    for one, other in zip(ours, theirs, strict=True):
        drawn = generator.integers(0, len(one), (draws, len(one)))
        sums += [one[drawn].mean(axis=1), other[drawn].mean(axis=1)]
    low, high = np.percentile(sums[0] / sums[1], [2.5, 97.5])
    share = sum(one.mean() for one in ours) / sum(other.mean() for other in theirs)
    return float(share), float(low), float(high)


def scores_of(model: str, sets: Sequence[Retrieval]) -> Scores:
    """nDCG@10 of each query, by all dimensions, stored as float32, and the adapter for retrieval if there is one."""
    encoder = Encoder.from_pretrained(model)
    found = []
    for one in sets:
        texts = one.texts()
        documents = encoder.encode_document(texts["documents"])
        queries = encoder.encode_query(texts["queries"])
        ids = [document.id for document in one.collection.documents]
        with temporary_index(ids, documents, "float32") as index:
            run = dict(zip(one.collection.queries, ranked(index, queries, 10), strict=True))
        of_query = ndcg(one.collection.qrels, run, 10)
        found.append(np.array([of_query[query] for query in one.collection.queries]))
    return found


def main(
    sets: Annotated[Path, typer.Argument(help="a folder with evaluation sets")],
    models: Annotated[list[str], typer.Argument(help="folders or hub ids")],
    against: Annotated[str, typer.Option(help="the model that they are a share of")] = "all-MiniLM-L6-v2",
    names: Annotated[str, typer.Option(help="sets of retrieval, with commas between them")] = (
        "cranfield,vaswani,msmarco_dl_5k"
    ),
) -> None:
    """How sure a share of nDCG@10 is, over the queries that there are."""
    try:
        chosen = [(one.name, one.read()) for one in choose(find_sets(sets)[0], names.split(","))]
        of_retrieval = [data for _, data in chosen if isinstance(data, Retrieval)]
        if len(of_retrieval) < len(chosen):
            wrong = ", ".join(name for name, data in chosen if not isinstance(data, Retrieval))
            raise InputError(f"{wrong} is no set of queries and documents: leave it out of --names")
        theirs = scores_of(against, of_retrieval)
        if not any(one.any() for one in theirs):
            raise InputError(f"{against} finds nothing, of which there is no share: give another model as --against")
        for model in models:
            share, low, high = interval(scores_of(model, of_retrieval), theirs)
            print(f"{model}: {share:.1%} of {against}, {low:.1%} to {high:.1%} over {sum(map(len, theirs))} queries")
    except Jv5kitError as error:
        typer.echo(f"interval: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None


if __name__ == "__main__":
    typer.run(main)
