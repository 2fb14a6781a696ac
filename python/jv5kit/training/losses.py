"""The losses of both stages, each a function of its own over embeddings that need not have unit length.

The formulas are those of jina-embeddings-v5-text (arXiv 2602.15547), averaged where it sums, so that a weight means the
same for any batch. A plain NumPy twin of each is in the tests.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, normalize


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between each student embedding and its teacher's (equation 1).

    Args:
        student: ``(n, dim)``, projected into the teacher's space.
        teacher: ``(n, dim)``.
    """
    return (1 - cosine_similarity(student, teacher, dim=-1)).mean()


def score_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over the rows of the squared differences of softmaxed self-similarities (equations 9 and 10).

    Args:
        student: ``(n, dim)``.
        teacher: ``(n, any dim)``.
        temperature: what cosines are divided by.
    """
    mine, theirs = ((unit @ unit.T / temperature).softmax(-1) for unit in (normalize(student), normalize(teacher)))
    return (mine - theirs).square().sum(-1).mean()


def similarity_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference between the cosines of a batch's pairs, the student's and the teacher's."""
    mine, theirs = (unit @ unit.T for unit in (normalize(student), normalize(teacher)))
    return (mine - theirs).square().mean()


def infonce(queries: Tensor, candidates: Tensor, temperature: float | Tensor, never: Tensor | None = None) -> Tensor:
    """Cross-entropy of each query's positive among the candidates (equation 2).

    Args:
        queries: ``(n, dim)``.
        candidates: ``(m, dim)``, the first ``n`` of them the queries' positives, in order.
        temperature: what cosines are divided by.
        never: bool ``(n, m)``, where a candidate is no negative of a query; the positives are not looked at.
    """
    scores = normalize(queries) @ normalize(candidates).T / temperature
    positives = torch.arange(len(queries), device=scores.device)
    if never is not None:
        own = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(never & ~own, float("-inf"))
    return cross_entropy(scores, positives)


def ranking(student: Tensor, teacher: Tensor, temperature: float | Tensor, never: Tensor | None = None) -> Tensor:
    """Mean Kullback-Leibler divergence of the student's softmaxed scores of candidates from the teacher's.

    What InfoNCE says of one positive the teacher says of all candidates, each as near as it is: a negative that answers
    a query is none here, and an order that the first few values or bits cannot keep costs most where it matters.

    Args:
        student: ``(n, m)``, estimates of cosines.
        teacher: ``(n, m)``, cosines.
        temperature: what both are divided by.
        never: bool ``(n, m)``, where a candidate is the query itself.
    """
    mine, theirs = student / temperature, teacher / temperature
    if never is not None:
        # No infinity, whose difference from itself is no number.
        mine, theirs = (scores.masked_fill(never, -1e4) for scores in (mine, theirs))
    return kl_div(mine.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True)


def cosines(queries: Tensor, candidates: Tensor) -> Tensor:
    """``(n, m)``, of queries ``(n, dim)`` and candidates ``(m, dim)``."""
    return normalize(queries) @ normalize(candidates).T


def cosines_of_bits(queries: Tensor, candidates: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What candidates' first ``dim`` bits tell of cosines, ``(n, m)``: by the queries' bits, and by their values.

    Of values that are spread as a normal distribution the bits of two rows with cosine c have ``2 / pi * asin(c)``, and
    a row with another's bits has ``sqrt(2 / pi) * c``; both are undone.

    Args:
        queries: ``(n, at least dim)``.
        candidates: ``(m, at least dim)``.
        dim: bits.
    """
    bits = signs(candidates, dim) * dim**-0.5
    both = signs(queries, dim) * dim**-0.5 @ bits.T
    return torch.sin(both * (math.pi / 2)), normalize(queries[:, :dim]) @ bits.T * math.sqrt(math.pi / 2)


def orthogonality(embeddings: Tensor) -> Tensor:
    """Mean squared cosine between different embeddings of a batch: the second moment of GOR (equation 3, a term).

    Its least value is about 1 / dim, of directions that are spread evenly.
    """
    unit = normalize(embeddings)
    count = len(unit)
    if count < 2:
        return unit.sum() * 0
    squares = (unit @ unit.T).square()
    return (squares.sum() - squares.diagonal().sum()) / (count * (count - 1))


def cosent(left: Tensor, right: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Logarithm of one and, over all pairs of rows where the one is scored higher, e^(cosine difference the wrong way).

    The standard form of CoSENT; equation 5 of the paper has the temperature outside of the exponent.

    Args:
        left: ``(n, dim)``.
        right: ``(n, dim)``.
        scores: ``(n,)``, how alike the two of a row are; only the order counts.
        temperature: what the differences are divided by.
    """
    cosines = cosine_similarity(left, right, dim=-1) / temperature
    wrong = cosines[None, :] - cosines[:, None]
    higher = scores[:, None] > scores[None, :]
    # e^0 is the one that is added.
    return torch.cat([wrong[higher], wrong.new_zeros(1)]).logsumexp(0)


def relational(student: Tensor, base: Tensor) -> Tensor:
    """Mean squared difference of the cosine distances within a batch, each set's divided by their mean (equation 8).

    Args:
        student: ``(n, dim)``.
        base: ``(n, any dim)``: of the model without its adapter.
    """
    mine, theirs = (1 - unit @ unit.T for unit in (normalize(student), normalize(base)))
    # All texts of a batch may be equal: no distance, and none to keep.
    least = torch.finfo(mine.dtype).eps
    return (mine / mine.mean().clamp_min(least) - theirs / theirs.mean().clamp_min(least)).square().mean()


def signs(embeddings: Tensor, dim: int) -> Tensor:
    """The bits of the first ``dim`` values as -1 and 1, with the gradient of the values (straight through)."""
    kept = torch.as_tensor(normalize(embeddings[:, :dim]) * dim**0.5)
    # A bit is whether a value is above 0, as the index has it.
    bits = torch.where(kept > 0, 1.0, -1.0)
    return kept + (bits - kept).detach()


def repeats(left: list[str], right: list[str]) -> Tensor:
    """Where texts are the same: bool ``(len(left), len(right))``."""
    numbers: dict[str, int] = {}
    rows = [torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts]) for texts in (left, right)]
    same: Tensor = rows[0][:, None] == rows[1][None, :]
    return same
