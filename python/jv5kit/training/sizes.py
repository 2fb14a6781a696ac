"""What a training run is made of, as typed settings, and the values that each size has for them.

A field's documentation is what the TOML file says beside it; its unit is in the name or there. Values that the paper
states (arXiv 2602.15547, table A1 and sections 3 to 4) are listed in :data:`PAPER`; the others are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from jv5kit.tasks import Task

SizeName = Literal["small", "nano", "pico"]
SIZES: tuple[SizeName, ...] = get_args(SizeName)

PoolingName = Literal["", "mean", "cls", "lasttoken"]
Objective = Literal["distill", "score", "infonce"]
Projection = Literal["student", "student-frozen", "teacher", "teacher-frozen"]
ProjectionStart = Literal["identity", "orthogonal", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSettings:
    """The model that is trained."""

    model: str = field(default="", metadata={"says": "folder or hub id that it starts from"})
    layers: tuple[int, ...] = field(default=(), metadata={"says": "layers of it to keep; [] keeps all"})
    feed_forward: int = field(default=0, metadata={"says": "neurons to keep in each feed-forward; 0 keeps all"})
    turn: bool = field(default=False, metadata={"says": "turn its states as the teacher's rotated targets are"})
    scratch: bool = field(default=False, metadata={"says": "take its config and tokenizer, and draw the weights"})
    hidden_size: int = field(default=0, metadata={"says": "from scratch: values of a state; 0 keeps that of the start"})
    heads: int = field(default=0, metadata={"says": "from scratch: of attention; 0 keeps those of the start"})
    pooling: PoolingName = field(default="", metadata={"says": "mean, cls or lasttoken; '' keeps that of the start"})
    query_prompt: str = field(default="", metadata={"says": "put before queries; '' keeps that of the start"})
    document_prompt: str = field(default="", metadata={"says": "put before all other texts; '' as above"})
    max_tokens: int = field(default=0, metadata={"says": "context of the result; 0 keeps that of the start"})
    rope_theta: float = field(default=0.0, metadata={"says": "RoPE base at inference; 0 keeps that of the start"})
    dims: tuple[int, ...] = field(default=(), metadata={"says": "Matryoshka dimensions; [] is all values alone"})
    dim_weights: tuple[float, ...] = field(default=(), metadata={"says": "their weights in a loss; [] is 1 each"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSettings:
    """The model that is distilled."""

    model: str = field(default="", metadata={"says": "folder or hub id"})
    query_prompt: str = field(default="", metadata={"says": "put before queries"})
    document_prompt: str = field(default="", metadata={"says": "put before all other texts"})
    length: int = field(default=0, metadata={"says": "tokens that its texts are cut to; 0 is its context"})
    rotate: bool = field(default=False, metadata={"says": "fit a rotation to its embeddings and distil those"})
    cache: str = field(default="", metadata={"says": "folder of its embeddings; '' is beside the models' cache"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """AdamW, its schedule, and when the run writes and looks."""

    betas: tuple[float, ...] = field(default=(0.9, 0.98), metadata={"says": "of AdamW"})
    weight_decay: float = field(default=0.01, metadata={"says": "of matrices; norms and biases have none"})
    clip: float = field(default=1.0, metadata={"says": "largest norm of the gradient; 0 does not clip"})
    warmup: float = field(default=0.05, metadata={"says": "share of the steps in which the rate rises"})
    final: float = field(default=0.0, metadata={"says": "share of the rate at the end of the cosine"})
    pass_tokens: int = field(default=16384, metadata={"says": "tokens through the model at a time; more are cached"})
    bfloat16: bool = field(default=True, metadata={"says": "multiply in bfloat16 where the hardware does so faster"})
    shard: bool = field(default=False, metadata={"says": "spread the student's weights over the processes (FSDP2)"})
    checkpoint_steps: int = field(default=500, metadata={"says": "steps between checkpoints"})
    evaluate_steps: int = field(default=500, metadata={"says": "steps between evaluations"})
    log_steps: int = field(default=10, metadata={"says": "steps between lines of metrics.jsonl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSettings:
    """What every phase has."""

    steps: int = field(default=1000, metadata={"says": "0 leaves the phase out"})
    batch: int = field(default=256, metadata={"says": "rows of a step, over all processes"})
    length: int = field(default=512, metadata={"says": "tokens that a text is cut to"})
    learning_rate: float = field(default=1e-4, metadata={"says": "at its highest"})
    rope_theta: float = field(default=0.0, metadata={"says": "RoPE base in training; 0 is that of inference"})

    @property
    def ends(self) -> tuple[int, ...]:
        """Steps at which the rate has fallen, the last one among them."""
        return (self.steps,)

    @property
    def kept(self) -> tuple[int, ...]:
        """Steps whose weights are kept: what the phase gives is the mean of them and the last."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSettings(PhaseSettings):
    """Stage 1: the teacher's embeddings, by the whole model."""

    objective: Objective = field(default="distill", metadata={"says": "distill, score or infonce"})
    projection: Projection = field(
        default="student", metadata={"says": "student, student-frozen, teacher or teacher-frozen"}
    )
    projection_start: ProjectionStart = field(default="orthogonal", metadata={"says": "identity, orthogonal or random"})
    temperature: float = field(default=0.02, metadata={"says": "of score and infonce"})
    similarity: float = field(default=0.0, metadata={"says": "weight of a term for the cosines within the batch"})
    cycles: int = field(
        default=1, metadata={"says": "times that the rate rises and falls; the mean of all ends is kept"}
    )

    @property
    def ends(self) -> tuple[int, ...]:
        """As cyclical rates have them for stochastic weight averaging (Izmailov et al., arXiv 1803.05407)."""
        return tuple(self.steps * cycle // self.cycles for cycle in range(1, self.cycles + 1))

    @property
    def kept(self) -> tuple[int, ...]:
        """The ends of all cycles but the last."""
        return self.ends[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings(PhaseSettings):
    """What every adapter has."""

    rank: int = field(default=32, metadata={"says": "of the matrices of LoRA"})
    alpha: float = field(default=32.0, metadata={"says": "LoRA's scale times the rank"})
    dropout: float = field(default=0.1, metadata={"says": "of what goes into the adapter"})
    average: bool = field(default=False, metadata={"says": "mean of the last checkpoint and the one at 3/4"})

    @property
    def kept(self) -> tuple[int, ...]:
        """The step at three quarters, where the mean is asked for and there is one."""
        earlier = self.steps * 3 // 4
        return (earlier,) if self.average and earlier else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSettings(AdapterSettings):
    """Stage 2, retrieval: equation 4."""

    temperature: float = field(default=0.02, metadata={"says": "of InfoNCE"})
    learn_temperature: bool = field(default=False, metadata={"says": "learn it from there"})
    infonce: float = field(default=1.0, metadata={"says": "weight"})
    distill: float = field(default=2.0, metadata={"says": "weight"})
    gor: float = field(default=1.0, metadata={"says": "weight of the orthogonality of queries and of positives"})
    sign: float = field(default=0.0, metadata={"says": "weight of InfoNCE over the embeddings' bits"})
    ranking: float = field(default=0.0, metadata={"says": "weight of the teacher's ranking of all candidates"})
    ranking_sign: float = field(default=0.0, metadata={"says": "weight of the same over the embeddings' bits"})
    sign_dim: int = field(default=256, metadata={"says": "bits of both"})
    negatives: int = field(default=7, metadata={"says": "mined negatives of a row that are used, at most"})
    share_negatives: bool = field(default=True, metadata={"says": "they are negatives of the batch's other rows too"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMatchingSettings(AdapterSettings):
    """Stage 2, text-matching: equations 5 (rows with a score) and 6 (pairs)."""

    temperature: float = field(default=0.02, metadata={"says": "of InfoNCE"})
    learn_temperature: bool = field(default=False, metadata={"says": "learn it from there"})
    cosent_temperature: float = field(default=0.05, metadata={"says": "of CoSENT"})
    cosent: float = field(default=1.0, metadata={"says": "weight, of rows with a score"})
    infonce: float = field(default=1.0, metadata={"says": "weight, of pairs"})
    distill: float = field(default=2.0, metadata={"says": "weight, of pairs"})
    negatives: int = field(default=7, metadata={"says": "mined negatives of a row that are used, at most"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteringSettings(AdapterSettings):
    """Stage 2, clustering: equation 1 under another instruction of the teacher."""

    teacher_prompt: str = field(default="", metadata={"says": "put before the teacher's texts; '' is its document's"})
    distill: float = field(default=1.0, metadata={"says": "weight"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationSettings(AdapterSettings):
    """Stage 2, classification: equations 7 and 8."""

    dropout: float = field(default=0.05, metadata={"says": "of what goes into the adapter"})
    temperature: float = field(default=0.02, metadata={"says": "of InfoNCE"})
    learn_temperature: bool = field(default=False, metadata={"says": "learn it from there"})
    infonce: float = field(default=1.0, metadata={"says": "weight, in both directions"})
    relational: float = field(default=20.0, metadata={"says": "weight of the distances of the model without adapter"})
    negatives: int = field(default=7, metadata={"says": "texts of other labels, for each text"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """A source of rows."""

    path: str = field(metadata={"says": "a file, a folder, or a data set of the hub"})
    name: str = field(default="", metadata={"says": "in messages and the card; '' is the file's"})
    weight: float = field(default=1.0, metadata={"says": "how often a batch is of it"})
    batch: int = field(default=0, metadata={"says": "rows of a step; 0 is the phase's"})
    length: int = field(default=0, metadata={"says": "tokens that a text is cut to; 0 is the phase's"})
    phases: tuple[str, ...] = field(default=(), metadata={"says": "phases that use it; [] is each that can"})
    licence: str = field(default="", metadata={"says": "for the card"})
    sets: tuple[str, ...] = field(default=(), metadata={"says": "for the card: data sets that its rows were cut from"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What a run is judged by, as it goes."""

    data: tuple[str, ...] = field(default=(), metadata={"says": "folders and files that `jv5kit eval` takes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """All of a run."""

    size: str = field(default="", metadata={"says": "what the values below began as"})
    seed: int = field(default=0, metadata={"says": "of everything that is drawn"})
    student: StudentSettings = field(default_factory=StudentSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    long: DistillSettings = field(default_factory=lambda: DistillSettings(steps=0))
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    text_matching: TextMatchingSettings = field(default_factory=TextMatchingSettings)
    clustering: ClusteringSettings = field(default_factory=ClusteringSettings)
    classification: ClassificationSettings = field(default_factory=ClassificationSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    data: tuple[DataSettings, ...] = field(default=())

    def adapter(self, task: Task) -> AdapterSettings:
        """The settings of a task's adapter."""
        settings: AdapterSettings = getattr(self, task.replace("-", "_"))
        return settings


WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
TOPIC = "Identify the topic or theme of the given document:"

_QWEN3_TEACHER = TeacherSettings(
    model="Qwen/Qwen3-Embedding-4B", query_prompt=f"Instruct: {WEB_SEARCH}\nQuery:", document_prompt=""
)

SMALL = RunSettings(
    size="small",
    student=StudentSettings(
        model="Qwen/Qwen3-0.6B-Base",
        pooling="lasttoken",
        query_prompt="Query: ",
        document_prompt="Document: ",
        max_tokens=32768,
        rope_theta=3.5e6,
        dims=(1024, 768, 512, 256, 128, 64, 32),
    ),
    teacher=_QWEN3_TEACHER,
    distill=DistillSettings(steps=50_000, batch=4096, length=512, learning_rate=1e-4, rope_theta=1e6),
    long=DistillSettings(steps=6_500, batch=128, length=4096, learning_rate=1e-4, rope_theta=5e5),
    retrieval=RetrievalSettings(steps=8_000, batch=512, length=384, learning_rate=2e-5, rope_theta=1e6, average=True),
    text_matching=TextMatchingSettings(steps=20_000, batch=256, length=384, learning_rate=5e-5, rope_theta=1e6),
    clustering=ClusteringSettings(
        steps=20_000,
        batch=512,
        length=512,
        learning_rate=1e-5,
        rope_theta=1e5,
        teacher_prompt=f"Instruct: {TOPIC}\nQuery:",
    ),
    classification=ClassificationSettings(steps=30_000, batch=256, length=512, learning_rate=4e-4, rope_theta=3.5e6),
)

NANO = replace(
    SMALL,
    size="nano",
    student=replace(
        SMALL.student,
        model="EuroBERT/EuroBERT-210m",
        max_tokens=8192,
        rope_theta=1e6,
        dims=(768, 512, 256, 128, 64, 32),
    ),
    distill=replace(SMALL.distill, batch=8192, rope_theta=2.5e5),
    long=replace(SMALL.long, steps=0, batch=128, rope_theta=2.5e5),
    retrieval=replace(SMALL.retrieval, batch=768, rope_theta=2.5e5),
    text_matching=replace(SMALL.text_matching, rope_theta=2.5e5),
    clustering=replace(SMALL.clustering, batch=1024, rope_theta=2.5e4),
    classification=replace(SMALL.classification, batch=512, rope_theta=1e6),
)

_PICO_DISTILL = DistillSettings(
    steps=30_000,
    batch=64,
    length=160,
    learning_rate=1e-3,
    projection="student-frozen",
    projection_start="identity",
    similarity=1.0,
)

PICO = RunSettings(
    size="pico",
    student=StudentSettings(
        model="all-MiniLM-L6-v2",
        layers=(0, 3, 5),
        turn=True,
        pooling="mean",
        max_tokens=512,
        dims=(384, 256, 128, 64, 32),
    ),
    teacher=TeacherSettings(model="all-MiniLM-L6-v2", rotate=True),
    distill=_PICO_DISTILL,
    long=replace(_PICO_DISTILL, steps=1_000, batch=32, length=512, learning_rate=2e-4),
    retrieval=RetrievalSettings(
        steps=2_000,
        batch=64,
        length=160,
        learning_rate=5e-4,
        rank=16,
        alpha=16.0,
        temperature=0.05,
        sign=0.5,
        negatives=1,
        average=True,
    ),
    text_matching=TextMatchingSettings(steps=1_000, batch=64, length=128, learning_rate=5e-4, rank=16, alpha=16.0),
    clustering=ClusteringSettings(steps=1_000, batch=64, length=160, learning_rate=5e-4, rank=16, alpha=16.0),
    classification=ClassificationSettings(
        steps=1_000, batch=32, length=128, learning_rate=5e-4, rank=16, alpha=16.0, temperature=0.05
    ),
)

BY_NAME: dict[str, RunSettings] = {"small": SMALL, "nano": NANO, "pico": PICO}

FROM_A_MODEL = RunSettings(
    student=StudentSettings(),
    distill=DistillSettings(steps=0),
    retrieval=RetrievalSettings(steps=1_000, batch=64, length=256, learning_rate=1e-4, distill=0.0),
    text_matching=TextMatchingSettings(steps=1_000, batch=64, length=256, learning_rate=1e-4, distill=0.0),
    clustering=ClusteringSettings(steps=1_000, batch=64, length=256, learning_rate=1e-4),
    classification=ClassificationSettings(steps=1_000, batch=16, length=256, learning_rate=1e-4),
)
"""What ``--init MODEL`` begins with: no teacher, and thus no distillation, unless one is named."""

_PHASE = ("steps", "batch", "length", "learning_rate", "rope_theta")
_ADAPTER = (*_PHASE, "rank", "alpha", "dropout")

PAPER: frozenset[str] = frozenset(
    [
        f"student.{name}"
        for name in ("model", "pooling", "query_prompt", "document_prompt", "max_tokens", "rope_theta", "dims")
    ]
    + [f"teacher.{name}" for name in ("model", "query_prompt", "document_prompt")]
    + [f"distill.{name}" for name in (*_PHASE, "objective", "projection")]
    + [f"long.{name}" for name in (*_PHASE, "objective", "projection")]
    + [f"retrieval.{name}" for name in (*_ADAPTER, "average", "temperature", "infonce", "distill", "gor")]
    + [f"text_matching.{name}" for name in (*_ADAPTER, "temperature", "cosent_temperature", "infonce", "distill")]
    + [f"clustering.{name}" for name in (*_ADAPTER, "teacher_prompt")]
    + [f"classification.{name}" for name in (*_ADAPTER, "temperature", "infonce", "relational", "negatives")]
)
"""What the paper says of small and nano."""

ONLY_SMALL: frozenset[str] = frozenset(f"long.{name}" for name in _PHASE)
"""Of those, what it says of small alone."""
