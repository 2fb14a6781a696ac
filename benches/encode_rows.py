"""How fast the encoder is beside its peers, each in one process: texts in bulk, and one query after another."""

import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from encode_inputs import MINILM, count_tokens, eurobert, qwen3, random_model
from encode_peers import GPU_PEERS, PEERS, Encode
from numpy.typing import NDArray
from table import NotRun, Result

from jv5kit import Encoder, _native
from jv5kit.backends import Output
from jv5kit.encoder import load_tokenizer
from jv5kit.native import BATCH_TOKENS
from jv5kit.pretrained import Checkpoint, load_checkpoint

DEFAULT = next(iter(PEERS))

LEAST_COSINE = {"float32": (0.99999, 0.99999), "bfloat16": (0.999, 0.9999)}
"""Of each embedding with that of the default peer, and of all in the mean."""

PEERS_COSINE = 0.99
"""Of each embedding of another peer. One that computes in bfloat16 may lose more than we allow ourselves."""

BUDGET = 90.0
"""Seconds that the pairs of runs beside a peer may take, but for the fewest that a median can be of."""

QUERY = "how do I read the members of a zip archive"


@dataclass(frozen=True)
class Tier:
    """How many times faster than its peers the encoder is to be on a tier, in its default type."""

    default: float | None = None
    others: float | None = None
    two_threads: float | None = None
    large: float | None = None


TIERS = {
    "amx": Tier(default=7.0, others=1.5, two_threads=6.0, large=6.0),
    "avx512bf16": Tier(default=1.7),
    "avx512": Tier(default=1.7),
    "avx512vnni": Tier(default=1.7),
    "avx2": Tier(default=1.7),
}


@dataclass(frozen=True)
class Setup:
    """What a process runs with.

    Attributes:
        folder: holds ``docs.jsonl`` and ``texts.json``; what a row makes goes there too.
        quick: few texts and runs, for a look.
        without: peers that are left out.
        threads: 1 is charged in CPU-seconds; more, or as many as there are (0), by the clock.
    """

    folder: Path
    quick: bool
    threads: int
    without: tuple[str, ...] = ()

    def texts(self, count: int | None = None) -> list[str]:
        """The chosen texts, or the first of them."""
        texts: list[str] = json.loads((self.folder / "texts.json").read_text(encoding="utf-8"))
        return texts[:count]

    def seconds(self, run: Callable[[], Any]) -> float:
        """What one run takes."""
        if self.threads == 1:
            start = time.process_time()
            run()
            return time.process_time() - start
        # The threads of the side before may still be waiting for more work, which costs as much as work.
        time.sleep(0.3)
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def pairs(self, seconds: float, *, aimed: bool) -> int:
        """How many pairs are run that take so long each; three at least where there is a target."""
        return 2 if self.quick else min(9, max(3 if aimed else 1, round(BUDGET / seconds)))


def tier() -> Tier:
    """The tier of this process."""
    return TIERS.get(_native.simd_tier()[0], Tier())


def default_dtype() -> str:
    """What the native backend multiplies in on this tier when nobody says."""
    return Encoder.from_pretrained(MINILM, backend="native").backend.dtype


def jv5kit_encoder(model: Checkpoint, **options: Any) -> Encode:
    """Our side, as a peer is."""
    # It warns of texts that are cut, each time.
    logging.getLogger("jv5kit").setLevel(logging.ERROR)
    encoder = Encoder.from_pretrained(model.name, **options)
    return partial(encoder.encode, show_progress_bar=False)


def minilm(setup: Setup) -> Iterator[Result | NotRun]:
    """MiniLM, in the default type, and in float32 beside the default peer.

    Where the tier is forced, only the default peer can be held to the like.
    """
    found, forced, _ = _native.simd_tier()
    aims, texts = tier(), setup.texts()
    threads = "one thread" if setup.threads == 1 else f"{setup.threads} threads"
    name = f"all-MiniLM-L6-v2, {len(texts):,} texts, {threads}, tier {found}{' (forced)' if forced else ''}"
    targets = (aims.default, aims.others) if setup.threads == 1 else (aims.two_threads, None)
    alone = {DEFAULT: PEERS[DEFAULT]}
    model = load_checkpoint(MINILM)
    yield from beside_peers(setup, name, model, texts, targets=targets, peers=alone if forced else PEERS)
    if default_dtype() != "float32" and setup.threads == 1:
        ours = {"backend": "native", "dtype": "float32"}
        yield from beside_peers(setup, name, model, texts, ours=ours, targets=(1.7, None), peers=alone)


def pico(setup: Setup) -> Iterator[Result | NotRun]:
    """The model in the package beside its teacher, both run by jv5kit: from texts, and from their tokens alone."""
    texts, pair = setup.texts(), list[Encoder]()
    for name in (MINILM, "pico"):
        encoder = Encoder.from_pretrained(name, backend="native")
        # The teacher's context for both: what is longer would be more work for the one that reads it.
        checkpoint = replace(encoder.checkpoint, max_tokens=256)
        pair.append(Encoder(checkpoint, encoder.backend))
    tokens = [one.ids for one in load_tokenizer(pair[0].checkpoint).encode_batch(texts)]
    batches, held = list[list[list[int]]](), BATCH_TOKENS
    for ids in tokens:
        if held + len(ids) > BATCH_TOKENS:
            batches.append([])
            held = 0
        batches[-1].append(ids)
        held += len(ids)
    output = Output(pair[0].dim, unit=False, normalize=True, binary=False)

    def whole(encoder: Encoder) -> None:
        encoder.encode(texts, show_progress_bar=False)

    def alone(encoder: Encoder) -> None:
        adapter = "retrieval" if encoder.checkpoint.adapters else None
        for batch in batches:
            encoder.backend.embed(batch, adapter, output)

    logging.getLogger("jv5kit").setLevel(logging.ERROR)
    for name, run, target in (("texts", whole, 1.6), ("tokens alone", alone, 1.9)):
        sides = [partial(run, encoder) for encoder in pair]
        first = (setup.seconds(sides[0]), setup.seconds(sides[1]))
        pairs = setup.pairs(sum(first), aimed=True)
        times = [first, *((setup.seconds(sides[0]), setup.seconds(sides[1])) for _ in range(pairs - 1))]
        what = f"pico, {len(texts):,} texts, {name}, one thread, {pair[1].backend.dtype}"
        yield Result.of(what, f"{MINILM} in jv5kit", times, lambda side: len(texts) / min(side), target, "texts")


def large(setup: Setup, name: str, make: Callable[[], Any], texts: int) -> Iterator[Result | NotRun]:
    """A larger model, with random weights and fewer texts."""
    model = load_checkpoint(random_model(make, setup.folder / name))
    name = f"{name}, {texts:,} texts, one thread"
    yield from beside_peers(setup, name, model, setup.texts(texts), targets=(tier().large, None))


def eurobert_210m(setup: Setup) -> Iterator[Result | NotRun]:
    """A model of the shape of EuroBERT-210m."""
    return large(setup, "EuroBERT-210m's shape", eurobert, 4 if setup.quick else 48)


def qwen3_600m(setup: Setup) -> Iterator[Result | NotRun]:
    """A model of the shape of Qwen3-0.6B."""
    return large(setup, "Qwen3-0.6B's shape", qwen3, 2 if setup.quick else 12)


def gpu(setup: Setup) -> Iterator[Result | NotRun]:
    """The torch backend on a GPU."""
    import torch

    name = "EuroBERT-210m's shape on a GPU, backend torch"
    if not torch.cuda.is_available():
        yield NotRun(name, "no GPU")
        return
    model = load_checkpoint(random_model(eurobert, setup.folder / "gpu"))
    ours = {"backend": "torch", "device": "cuda", "dtype": "bfloat16"}
    yield from beside_peers(setup, name, model, setup.texts(), ours=ours, peers=GPU_PEERS)


def beside_peers(
    setup: Setup,
    name: str,
    model: Checkpoint,
    texts: list[str],
    *,
    ours: Mapping[str, str] | None = None,
    peers: Mapping[str, Callable[[Checkpoint, int], Encode]] = PEERS,
    targets: tuple[float | None, float | None] = (None, None),
) -> Iterator[Result | NotRun]:
    """Encode the texts with jv5kit and each peer in turn: rows of tokens a second.

    The targets are for the first peer and for any other. It must be the default: what it makes of the texts is right.
    """
    ours = ours or {"backend": "native", "dtype": default_dtype()}
    name = f"{name}, {ours['dtype']}"
    tokens = count_tokens(texts, model)
    encode = jv5kit_encoder(model, **ours)
    embeddings = encode(texts)
    right = None
    for peer_name, make in peers.items():
        if peer_name in setup.without:
            continue
        try:
            peer = make(model, setup.threads)
        # What a peer raises for a model that it cannot convert or run is its own.
        except Exception as error:
            if right is None:
                raise
            yield NotRun(name, _why(error), peer_name)
            continue
        theirs = peer(texts)
        if right is None:
            right = theirs
            check(name, embeddings, right, ours["dtype"])
        if (least := cosines(theirs, right).min()) < PEERS_COSINE:
            yield NotRun(name, f"its embeddings are others, cosine {least:.3f}", peer_name)
            continue
        both = (partial(peer, texts), partial(encode, texts))
        first = (setup.seconds(both[0]), setup.seconds(both[1]))
        target = targets[0] if right is theirs else targets[1]
        pairs = setup.pairs(sum(first), aimed=target is not None)
        more = [(setup.seconds(both[0]), setup.seconds(both[1])) for _ in range(pairs - 1)]
        yield Result.of(name, peer_name, [first, *more], lambda side: tokens / min(side), target)


def query(setup: Setup) -> Iterator[Result | NotRun]:
    """One short query after another: the median of 20 calls, by the clock, in turn with the peer's."""
    model, dtype = load_checkpoint(MINILM), default_dtype()
    name = f"all-MiniLM-L6-v2, one query, warm, one thread, {dtype}"
    encode = jv5kit_encoder(model, backend="native", dtype=dtype)
    peer = PEERS[DEFAULT](model, setup.threads)
    check(name, encode([QUERY]), peer([QUERY]), dtype)

    def median(side: Encode) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            side([QUERY])
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    times = [(median(peer), median(encode)) for _ in range(2 if setup.quick else 15)]
    yield Result.of(name, DEFAULT, times, lambda side: 1000 * statistics.median(side), 6.0, "ms")


def check(name: str, embeddings: NDArray[np.float32], right: NDArray[np.float32], dtype: str) -> None:
    """Stop where embeddings are not those that the default peer makes."""
    each = cosines(embeddings, right)
    least, least_mean = LEAST_COSINE[dtype]
    if not (each.min() >= least and each.mean() >= least_mean):
        raise SystemExit(
            f"{name}: jv5kit and {DEFAULT} give different embeddings: cosine {each.min():.6f} at least and "
            f"{each.mean():.6f} in the mean; for {dtype} it must be {least} and {least_mean}"
        )


def cosines(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each row with its like."""
    a, b = (np.asarray(rows, np.float64) for rows in (some, others))
    product: NDArray[np.float64] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return product


def _why(error: Exception) -> str:
    """The first line of what it says, in a cell of the table."""
    if isinstance(error, ImportError):
        return f"{error.name} is not installed"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].replace("|", "/")[:120]
