"""Compare training with sentence-transformers' trainer: `python benches/train.py`.

The same student (all-MiniLM-L6-v2, all weights), the same pairs of texts of 5-400 tokens, the same loss (InfoNCE with
in-batch negatives), batch and optimizer. Their losses of a batch must be the same before anything is timed. Tokenizing
is timed for all. The sides take turns in one process, on one thread, and the result is the median, over the pairs of
runs, of the peer's CPU time / ours; memory is the peak of a process of its own that does one side.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import encode_inputs
import typer
from table import NotRun, Result, report, setting, write

PAIRS = 512
BATCH = 32
LENGTH = 512
TEMPERATURE = 0.02
RATE = 2e-5
PEERS: dict[str, tuple[bool, bool, float | None]] = {
    "as it comes": (False, False, 5.0),
    "batches by length": (True, False, None),
    "bfloat16, batches by length": (True, True, 1.3),
}
"""Ways of sentence-transformers' trainer: whether batches are by length, whether in bfloat16, and what is asked for."""

HEADER = """
All-MiniLM-L6-v2 with all weights, pairs of texts of 5-400 tokens, batch 32, InfoNCE; one thread. Tokens of text a \
CPU-second; ratio: the peer's time / ours.

| workload | peer | its rate | jv5kit | ratio | min-max | at least |
|---|---|--:|--:|--:|--:|--:|"""


class Ours:
    """jv5kit's loop, with data, student and optimizer as a run has them."""

    def __init__(self, pairs: list[tuple[str, str]], folder: Path) -> None:
        from jv5kit.training.batches import Batches
        from jv5kit.training.hardware import accelerator_of
        from jv5kit.training.loop import Coming, Loop
        from jv5kit.training.objectives import DistillObjective
        from jv5kit.training.rows import open_source
        from jv5kit.training.sizes import DistillSettings, OptimizerSettings
        from jv5kit.training.student import Student, StudentStart

        path = folder / "pairs.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for anchor, positive in pairs:
                file.write(json.dumps({"anchor": anchor, "positive": positive}) + "\n")
        settings = DistillSettings(
            steps=10**6,
            batch=BATCH,
            length=LENGTH,
            learning_rate=RATE,
            objective="infonce",
            temperature=TEMPERATURE,
        )
        student = Student.load(StudentStart(model="all-MiniLM-L6-v2", max_tokens=LENGTH))
        objective = DistillObjective(settings, None, [(student.dim, 1.0)])
        coming = Coming(Batches([open_source(str(path))], BATCH, seed=0), objective, None)
        optimizer = OptimizerSettings(pass_tokens=10**9)
        self.loop = Loop(accelerator_of(bfloat16=True), student, objective, coming, settings, optimizer, None)
        self.batches = Batches([open_source(str(path))], BATCH, seed=1)

    def loss(self) -> tuple[list[Any], float]:
        """The rows of a batch, and the loss of it."""
        batch = next(self.batches)
        found = float(self.loop.backward(batch)["loss"])
        for parameter in self.loop.trained_parameters.values():
            parameter.grad = None
        return batch.rows, found

    def steps(self, count: int) -> tuple[int, float]:
        """Take steps; returns their tokens, and the CPU-seconds."""
        start = time.process_time()
        tokens = sum(self.loop.step()["tokens"] for _ in range(count))
        return tokens, time.process_time() - start


class Peer:
    """sentence-transformers' trainer."""

    def __init__(self, pairs: list[tuple[str, str]], folder: Path) -> None:
        from datasets import Dataset
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.losses import MultipleNegativesRankingLoss

        from jv5kit.pretrained import load_checkpoint

        self.folder = folder
        self.model = SentenceTransformer(str(load_checkpoint("all-MiniLM-L6-v2").folder), device="cpu")
        self.model.max_seq_length = LENGTH
        self.data = Dataset.from_list([{"anchor": anchor, "positive": positive} for anchor, positive in pairs])
        self.lengths = [len(anchor) + len(positive) for anchor, positive in pairs]
        self.loss_of = MultipleNegativesRankingLoss(self.model, scale=1 / TEMPERATURE)

    def loss(self, rows: list[Any]) -> float:
        """The loss of a batch."""
        import torch

        columns = [[row.anchor for row in rows], [row.positive for row in rows]]
        with torch.no_grad():
            features = [self.model.preprocess(texts) for texts in columns]
            return float(self.loss_of(features, torch.zeros(len(rows))))

    def steps(self, count: int, *, by_length: bool = False, bfloat16: bool = False) -> tuple[int, float]:
        """Take steps; returns the tokens of their texts, and the CPU-seconds."""
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

        batches = by_lengths(self.lengths)

        seen: list[int] = []
        start: list[float] = []

        class Timed(SentenceTransformerTrainer):
            def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
                masks = [value for name, value in inputs.items() if name.endswith("attention_mask")]
                seen.append(sum(int(mask.sum()) for mask in masks))
                return super().compute_loss(model, inputs, *rest, **more)

            def get_batch_sampler(self, *arguments: Any, **more: Any) -> Any:
                return batches if by_length else super().get_batch_sampler(*arguments, **more)

            def training_step(self, *arguments: Any, **more: Any) -> Any:
                if not start:
                    # Loading and preparing are not its speed; the first batch was made by now.
                    start.append(time.process_time())
                return super().training_step(*arguments, **more)

        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(self.folder / "peer"),
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            max_steps=count,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            bf16=bfloat16,
        )
        Timed(model=self.model, args=arguments, train_dataset=self.data, loss=self.loss_of).train()
        return sum(seen), time.process_time() - start[0]


def pairs_of(paths: list[Path], folder: Path, count: int) -> list[tuple[str, str]]:
    """Pairs of texts of mixed lengths, the two of a pair of like length, so that batches by length have no padding."""
    documents = folder / "docs.jsonl"
    encode_inputs.gather(paths, documents)
    texts = sorted(encode_inputs.choose(encode_inputs.contents(documents), 2 * count), key=len)
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    random.Random(0).shuffle(pairs)
    return pairs


def by_lengths(lengths: list[int]) -> list[list[int]]:
    """Batches of pairs of like length, in any order."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = [order[i : i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]
    random.Random(1).shuffle(batches)
    return batches


def peak(side: str, folder: Path, steps: int) -> float:
    """MB at the peak of a process that trains by one side."""
    command = [sys.executable, Path(__file__).with_name("launch.py"), sys.executable, __file__]
    command += ["--side", side, "--folder", folder, "--steps", str(steps)]
    outcome = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
    return float(json.loads(outcome.stdout)["peak_bytes"]) / 1e6


def compare(folder: Path, pairs: list[tuple[str, str]], steps: int, turns: int, without: list[str]) -> list[Any]:
    """The rows of the table."""
    ours, peer = Ours(pairs, folder), Peer(pairs, folder)
    rows, own = ours.loss()
    theirs = peer.loss(rows)
    if abs(own - theirs) > 1e-3 * abs(theirs):
        raise SystemExit(f"the losses of one batch differ: {own} here, {theirs} there")
    ours.steps(2)
    results: list[Any] = []
    for name, (by_length, bfloat16, target) in PEERS.items():
        workload = f"train, {len(pairs):,} pairs"
        if name in without:
            results.append(NotRun(workload, "left out", f"sentence-transformers, {name}"))
            continue
        # Batches by length differ, and take an epoch.
        count = len(pairs) // BATCH if by_length else steps
        runs = [(peer.steps(count, by_length=by_length, bfloat16=bfloat16), ours.steps(steps)) for _ in range(turns)]
        # CPU-seconds a token.
        times = [(there[1] / there[0], here[1] / here[0]) for there, here in runs]
        results.append(Result.of(workload, f"sentence-transformers, {name}", times, _rate, target))
    return results


def _rate(times: Any) -> float:
    """Tokens a second, at the best."""
    return 1 / float(min(times))


def main(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="JSONL files and folders of BEIR; by default Python's documentation.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of a run.")] = 8,
    turns: Annotated[int, typer.Option(min=1, help="Pairs of runs.")] = 3,
    without: Annotated[list[str] | None, typer.Option(metavar="PEER", help="Leave out this way of the peer.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when a ratio is below its target.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of Markdown.")] = False,
    output: Annotated[
        list[Path] | None, typer.Option(help="Write the table here as well: between its train marks, if it has them.")
    ] = None,
    side: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    """Compare training with sentence-transformers' trainer: medians of paired runs."""
    if unknown := set(without or []) - PEERS.keys():
        raise typer.BadParameter(f"--without {', '.join(sorted(unknown))}; it takes {', '.join(PEERS)}")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    torch.set_num_threads(1)
    if side is not None:
        pairs = [tuple(pair) for pair in json.loads((folder / "pairs.json").read_text(encoding="utf-8"))]
        if side == "peer":
            Peer(pairs, folder).steps(steps)
        else:
            Ours(pairs, folder).steps(steps)
        return
    with tempfile.TemporaryDirectory() as place:
        chosen = pairs_of(paths or [], Path(place), PAIRS)
        (Path(place) / "pairs.json").write_text(json.dumps(chosen), encoding="utf-8")
        results = compare(Path(place), chosen, steps, turns, without or [])
        memory = [(peak("peer", Path(place), steps), peak("ours", Path(place), steps))]
    results.append(Result.of("train, peak of memory", "sentence-transformers, as it comes", memory, max, 1.0, "MB"))
    packages = {name: version(name) for name in ("sentence-transformers", "transformers", "torch", "accelerate")}
    text = report(setting(**packages), HEADER, results, as_json=as_json)
    typer.echo(text)
    for path in output or []:
        write(text, path, "train")
    if check and any(result.missed for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
