"""What a run opens before it trains: data, a student, a teacher, and the rotation of its targets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from jv5kit.encoder import Encoder
from jv5kit.errors import InputError
from jv5kit.rotation import Rotation
from jv5kit.training.encoded import Column, two_columns
from jv5kit.training.estimates import config_of
from jv5kit.training.processes import together
from jv5kit.training.rows import open_source
from jv5kit.training.student import Student, StudentStart
from jv5kit.training.teacher import Teacher, cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from accelerate import Accelerator

    from jv5kit.training.loop import Targets
    from jv5kit.training.rows import Source
    from jv5kit.training.sizes import DataSettings, RunSettings, TeacherSettings

ROTATION_SAMPLE = 8192
"""Texts that the rotation of the targets is fitted on."""


def open_data(given: DataSettings) -> Source:
    """Open a source of rows.

    Raises:
        InputError: it cannot be read, or has a row that cannot be used.
    """
    return open_source(
        given.path,
        weight=given.weight,
        batch=given.batch or None,
        length=given.length or None,
        name=given.name or None,
    )


def load_student(run: RunSettings, output: Path) -> Student:
    """The student that a run left in its folder, else the one that it starts from.

    Raises:
        InputError: none is named, or it has not what is asked of it.
        ModelNotFoundError: it cannot be found or read.
    """
    settings = run.student
    kept = output / "student"
    if kept.exists():
        return Student.load(StudentStart(model=str(kept)))
    if not settings.model:
        raise InputError("no student is named: give --size, or --init MODEL, or student.model in --config")
    prompts = {"query": settings.query_prompt, "document": settings.document_prompt}
    given = {name: prompt for name, prompt in prompts.items() if prompt}
    return Student.load(
        StudentStart(
            model=None if settings.scratch else settings.model,
            config=config_of(settings) if settings.scratch else None,
            tokenizer=settings.model if settings.scratch else None,
            layers=() if settings.scratch else settings.layers,
            feed_forward=None if settings.scratch else settings.feed_forward or None,
            pooling=settings.pooling or None,
            prompts=given or None,
            max_tokens=settings.max_tokens or None,
            rope_theta=settings.rope_theta or None,
            seed=run.seed,
        )
    )


def load_teacher(settings: TeacherSettings, accelerator: Accelerator) -> Teacher:
    """The teacher, its texts cut to the length that is set.

    Raises:
        ModelNotFoundError: it cannot be found or read.
        InputError: its cache is that of another model.
    """
    # As the student: in float32, which torch takes if it is not told, the teacher would be most of the memory.
    half = accelerator.device.type == "cuda" and accelerator.mixed_precision == "bf16"
    encoder = Encoder.from_pretrained(settings.model, dtype="bfloat16" if half else None)
    if settings.length:
        length = min(settings.length, encoder.checkpoint.max_tokens)
        encoder = Encoder(replace(encoder.checkpoint, max_tokens=length), encoder.backend)
    return Teacher(
        encoder,
        cache_folder(settings.cache),
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        together=together,
    )


def rotation_sample(sources: Sequence[Source]) -> Column:
    """The documents that the rotation of the targets is fitted on, from all over the sources."""
    texts: list[str] = []
    for source in sources:
        count = min(len(source), max(1, ROTATION_SAMPLE // len(sources)))
        positions = np.linspace(0, len(source) - 1, count).astype(int).tolist()
        texts += two_columns(source.rows(positions), "document")[-1].texts
    own = list(dict.fromkeys(texts))
    return Column("document", own, [1] * len(own))


def fit_rotation(targets: Targets, sample: Column, dims: Sequence[int]) -> dict[str, torch.Tensor]:
    """Fit the rotation of a teacher's embeddings.

    Args:
        targets: the teacher's embeddings, not rotated.
        sample: the texts that it is fitted on.
        dims: Matryoshka dimensions of the student.
    """
    rows = targets.teacher.rows(sample.texts, targets.prompts[sample.role])
    matrix = Rotation.fit(rows, [dim for dim in dims if dim <= rows.shape[1]]).matrix
    return {"rotation": torch.from_numpy(matrix.copy())}
