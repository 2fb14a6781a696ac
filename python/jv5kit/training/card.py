"""The model card, written from what a run left: what the model is, whose work is in it, and how to use it."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jv5kit.errors import InputError
from jv5kit.evaluation.shares import by_kind, from_json
from jv5kit.tasks import document_prompt, query_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jv5kit.pretrained import Checkpoint

LICENCES = {
    "all-MiniLM-L6-v2": "Apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2": "Apache-2.0",
    "EuroBERT/EuroBERT-210m": "Apache-2.0",
    "Qwen/Qwen3-0.6B-Base": "Apache-2.0",
    "Qwen/Qwen3-Embedding-0.6B": "Apache-2.0",
    "Qwen/Qwen3-Embedding-4B": "Apache-2.0",
    "Qwen/Qwen3-Embedding-8B": "Apache-2.0",
}
"""Of the models that the sizes name, as their authors state them."""

HUB_IDS = {"all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2"}

UNKNOWN = "not stated: find it out before you publish"

NO_MEASURES = ("step", "tokens", "seconds", "tokens_per_second", "gradient_norm", "learning_rate")
"""What a line of ``metrics.jsonl`` has beside the loss and its terms."""

MOST_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Facts:
    """What was exported.

    Attributes:
        checkpoint: the folder that the card is for.
        config: content of its ``config.json``.
        merged: the task that is merged into the weights, None for none.
        int8: whether matrices are int8 rows.
        onnx: whether there is an ONNX file.
        license: that of the model it was exported from, None if its card states none.
    """

    checkpoint: Checkpoint
    config: dict[str, Any]
    merged: str | None
    int8: bool
    onnx: bool
    license: str | None


@dataclass(slots=True)
class Run:
    """What a run of training wrote of itself; empty for a model that was not trained here.

    Attributes:
        text: the settings, as TOML.
        settings: the same, read.
        data: a record for each source.
        metrics: the lines of ``metrics.jsonl``.
        scores: what ``jv5kit eval --json`` printed.
        notes: what its author says of it, as Markdown.
        curves: the picture of the metrics.
    """

    text: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    curves: Path | None = None


def read_run(folder: Path) -> Run:
    """Read ``run.toml``, ``data.json``, ``metrics.jsonl``, ``scores.json``, ``notes.md`` and ``train.png``, if there.

    Raises:
        InputError: one of them cannot be read.
    """
    run = Run()
    path = folder / "run.toml"
    try:
        if path.is_file():
            run.text = path.read_text(encoding="utf-8")
            run.settings = tomllib.loads(run.text)
        path = folder / "data.json"
        if path.is_file():
            run.data = list(json.loads(path.read_text(encoding="utf-8")))
        path = folder / "metrics.jsonl"
        if path.is_file():
            run.metrics = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path = folder / "scores.json"
        if path.is_file():
            run.scores = dict(json.loads(path.read_text(encoding="utf-8")))
        path = folder / "notes.md"
        if path.is_file():
            run.notes = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}; mend it or remove it, the card is written from it") from None
    run.curves = folder / "train.png" if (folder / "train.png").is_file() else None
    return run


def write_card(folder: Path, facts: Facts, run: Run) -> None:
    """Write ``README.md``, and beside it the picture of the curves if there is one.

    Raises:
        OSError: a file cannot be written.
    """
    if run.curves is not None:
        shutil.copyfile(run.curves, folder / "train.png")
    notes = ["## Notes", "", run.notes] if run.notes else []
    parts = (_front(facts, run), _what(facts), _how(facts), notes, _origins(run), *_scores(run), _training(run))
    text = "\n\n".join("\n".join(part) for part in map(list, parts) if part)
    (folder / "README.md").write_text(text + "\n", encoding="utf-8")


def _front(facts: Facts, run: Run) -> Iterator[str]:
    """What the hub reads."""
    yield "---"
    if facts.license is not None:
        yield f"license: {facts.license}"
    yield "library_name: sentence-transformers" if _loads_everywhere(facts) else "library_name: jv5kit"
    yield "pipeline_tag: sentence-similarity"
    yield "tags:"
    for tag in ("sentence-transformers", "feature-extraction", "jv5kit"):
        yield f"- {tag}"
    student = run.settings.get("student", {})
    base = HUB_IDS.get(student.get("model"), student.get("model") or "")
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) and not Path(base).exists() and not student.get("scratch"):
        yield f"base_model: {base}"
    yield "---"


def _what(facts: Facts) -> Iterator[str]:
    checkpoint, config = facts.checkpoint, facts.config
    yield "# A text embedding model"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| architecture | {config.get('model_type')}, {config.get('num_hidden_layers')} layers |"
    yield f"| dimensions | {checkpoint.dim} |"
    yield f"| context | {checkpoint.max_tokens} tokens |"
    yield f"| pooling | {checkpoint.pooling}, unit length |"
    if facts.merged is not None:
        yield f"| task | {facts.merged}, merged into the weights |"
    elif checkpoint.adapters:
        yield f"| tasks | {', '.join(checkpoint.adapters)}: an adapter each |"
    if checkpoint.prompts:
        yield f"| prompts | {', '.join(f'{name}: `{prompt!r}`' for name, prompt in checkpoint.prompts.items())} |"
    weights = "int8 rows, a float32 scale each" if facts.int8 else "as in the safetensors file"
    yield f"| weights | {weights} |"


def _how(facts: Facts) -> Iterator[str]:
    checkpoint = facts.checkpoint
    adapters = checkpoint.adapters
    task = facts.merged or ("retrieval" if "retrieval" in adapters else next(iter(adapters), "retrieval"))
    choice = f', task="{task}"' if adapters else ""
    yield "## How to use"
    yield ""
    yield "```python"
    yield "from jv5kit import Encoder"
    yield ""
    yield 'encoder = Encoder.from_pretrained("FOLDER OR HUB ID")'
    yield f'queries = encoder.encode_query(["how do penguins stay warm"]{choice})'
    yield f'documents = encoder.encode_document(["Penguins huddle."]{choice})'
    yield "print(encoder.similarity(queries, documents))"
    yield "```"
    if _loads_everywhere(facts):
        prompts = checkpoint.prompts
        yield ""
        yield "```python"
        yield "from sentence_transformers import SentenceTransformer"
        yield ""
        yield 'model = SentenceTransformer("FOLDER OR HUB ID")'
        yield f'queries = model.encode(["how do penguins stay warm"], prompt={query_prompt(prompts, task)!r})'
        yield f'documents = model.encode(["Penguins huddle."], prompt={document_prompt(prompts)!r})'
        yield "```"
    elif facts.int8:
        yield ""
        yield "The int8 rows are read by jv5kit alone."
    else:
        yield ""
        yield "Other libraries load the backbone without adapters; for them, export a task: `jv5kit export --merge`."
    if facts.onnx:
        yield ""
        yield (
            "`onnx/model.onnx` takes `input_ids` and `attention_mask` and gives `sentence_embedding`, pooled and of "
            "unit length; put the prompt before the text yourself."
        )


def _origins(run: Run) -> Iterator[str]:
    """Whose work is in the weights."""
    if not run.settings and not run.data:
        return
    yield "## Where it comes from"
    yield ""
    student, teacher = (run.settings.get(name, {}) for name in ("student", "teacher"))
    if student.get("model"):
        use = (
            "its tokenizer, the weights were drawn at random"
            if student.get("scratch")
            else "its weights were the start"
        )
        yield f"- Backbone: {_named(student['model'])}; {use}. Licence: {LICENCES.get(student['model'], UNKNOWN)}."
    if teacher.get("model"):
        yield f"- Teacher: {_named(teacher['model'])}. Licence: {LICENCES.get(teacher['model'], UNKNOWN)}."
    if run.data:
        yield ""
        rows = [(one.get("name"), f"{one.get('rows', 0):,}", one.get("licence") or UNKNOWN) for one in run.data]
        cut = [", ".join(one.get("sets", ())) for one in run.data]
        if any(cut):
            yield from _table(
                ("data", "rows", "licence", "cut from"), [(*row, of) for row, of in zip(rows, cut, strict=True)]
            )
        else:
            yield from _table(("data", "rows", "licence"), rows)


def _scores(run: Run) -> Iterator[Iterable[str]]:
    """What was measured; where the scores are held against another model's, the shares of it too."""
    sets = [one for one in run.scores.get("sets", []) if one.get("scores") and one.get("metric")]
    if not sets:
        return
    yield ["## Scores"]
    apart = {name for one in run.data for name in one.get("sets", ())}
    apart &= {one["name"].partition("/")[0] for one in sets}
    for title, seen in (("No part of these sets was trained on.", False), ("Of these the training split was.", True)):
        here = [one for one in sets if (one["name"].partition("/")[0] in apart) is seen]
        if here:
            yield [*([title, ""] if apart else []), *_score_table(here)]
            yield from _share_table(run.scores, {one["name"] for one in here})


def _score_table(sets: list[dict[str, Any]]) -> Iterator[str]:
    kinds = _columns((score["dim"], score["precision"]) for one in sets for score in one["scores"])
    rows = []
    for one in sets:
        values = {(score["dim"], score["precision"]): score.get(one["metric"]) for score in one["scores"]}
        cells = (values.get(kind) for kind in kinds)
        rows.append((one["name"], one["metric"], *("" if cell is None else f"{cell:.4f}" for cell in cells)))
    yield from _table(("set", "metric", *(f"{precision}, {dim}" for dim, precision in kinds)), rows)


def _share_table(scores: dict[str, Any], names: set[str]) -> Iterator[Iterable[str]]:
    """The shares of another model's scores, of the means over the sets of a kind."""
    if "against" not in scores:
        return
    other = scores["against"]
    found = by_kind(share for share in from_json(other) if share.name in names)
    kinds = _columns(cell for share in found for cell in share.values)
    rows = []
    for share in found:
        cells = (share.share(kind) for kind in kinds)
        name = (
            f"{share.kind}, {share.metric}, mean of {share.sets}" if share.sets > 1 else f"{share.kind}, {share.metric}"
        )
        rows.append((name, f"{share.reference:.4f}", *("" if cell is None else f"{cell:.1%}" for cell in cells)))
    yield [
        f"As a share of {_named(other['model'])} with all its dimensions in float32:",
        "",
        *_table(("sets", "there", *(f"{precision}, {dim}" for dim, precision in kinds)), rows),
    ]


def _columns(kinds: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Dimensions and precisions; of many every precision at the full dimension, every dimension at the first one."""
    every = list(dict.fromkeys(kinds))
    if len(every) > MOST_COLUMNS:
        widest, first = max(dim for dim, _ in every), every[0][1]
        every = [(dim, precision) for dim, precision in every if dim == widest or precision == first]
    return every


def _training(run: Run) -> Iterator[str]:
    if not run.text and not run.metrics:
        return
    yield "## Training"
    if run.curves is not None:
        yield ""
        yield "![every term of the loss, and the evaluation, over the steps](train.png)"
    rows = list(_first_and_last(run.metrics))
    if rows:
        yield ""
        yield from _table(("phase", "measure", "first", "last", "steps"), rows)
    if run.text:
        yield ""
        yield "<details><summary>Settings: `jv5kit train --config` takes them as they are</summary>"
        yield ""
        yield "```toml"
        yield run.text.rstrip()
        yield "```"
        yield ""
        yield "</details>"


def _first_and_last(metrics: Iterable[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """Each measure of each phase as it began and as it ended."""
    series: dict[tuple[str, str], list[float]] = {}
    steps: dict[str, int] = {}
    for record in metrics:
        phase = str(record.get("phase", ""))
        steps[phase] = max(steps.get(phase, 0), int(record.get("step", 0)))
        scores = record.get("scores")
        values = scores if isinstance(scores, dict) else record
        for name, value in values.items():
            if isinstance(value, int | float) and name not in NO_MEASURES:
                series.setdefault((phase, name), []).append(value)
    for (phase, name), one in series.items():
        yield phase, name, f"{one[0]:.4f}", f"{one[-1]:.4f}", f"{steps[phase]:,}"


def _loads_everywhere(facts: Facts) -> bool:
    """Whether sentence-transformers gives the same embeddings."""
    return not facts.int8 and not facts.checkpoint.adapters


def _named(model: str) -> str:
    """A model's name: of a folder, only the last part; where it lies is nobody's business."""
    return f"`{model.rstrip('/').rpartition('/')[2]}`" if model.startswith(("/", ".", "~")) else f"`{model}`"


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"

    yield line(names)
    yield "|" + "---|" * len(names)
    yield from map(line, rows)
