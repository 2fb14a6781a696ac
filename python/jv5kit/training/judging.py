"""The evaluation of a student as it is trained: what ``jv5kit eval`` says of it, without a detour over files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jv5kit.encoder import Encoder
from jv5kit.evaluation.encoding import TextEncoder
from jv5kit.evaluation.folders import find_sets
from jv5kit.evaluation.runner import evaluate
from jv5kit.modeling import finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jv5kit.backends import BackendName, DType, Output
    from jv5kit.training.student import Student


class StudentBackend:
    """A student as the backend of an :class:`~jv5kit.Encoder`: its adapter, if it has one, is on whatever the task."""

    name: BackendName = "torch"
    batch_tokens = 8192
    pads = False
    dtype: DType = "float32"

    def __init__(self, student: Student) -> None:
        self._student = student

    @property
    def device(self) -> str:
        """Where the student is."""
        return str(self._student.device)

    def embed(self, batch: Sequence[Sequence[int]], _adapter: str | None, output: Output) -> NDArray[Any]:
        """Embed token sequences, none of them empty: ``(len(batch), dim)`` float32, or uint8 codes."""
        training = self._student.training
        self._student.eval()
        # Not inference mode: weights that are spread over processes would be brought together for no other use.
        with torch.no_grad():
            embeddings = self._student.embed(batch).float().cpu().numpy()
        self._student.train(training)
        return finish(embeddings, output)


class Judge:
    """Scores of a student on evaluation sets, all of its dimensions in float32: the main measure of each set by name.

    Args:
        paths: folders and files that ``jv5kit eval`` takes.

    Raises:
        InputError: there is no such folder, or no set in it.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        found = [one for path in paths for one in find_sets(Path(path), "test")[0]]
        self.sets = [(one.name, one.read()) for one in found]

    def __call__(self, student: Student) -> dict[str, float]:
        """Evaluate a student as it is."""
        # A generator's state is part of a run, and scoring must not change it.
        state = torch.get_rng_state()
        checkpoint = replace(student.checkpoint, prompts=student.prompts, adapters={})
        encoder = TextEncoder(Encoder(checkpoint, StudentBackend(student)), show_progress_bar=False)
        scores = {}
        for name, data in self.sets:
            result = evaluate(encoder, name, data, [student.dim], ["float32"])
            measure, value = next(iter(result.scores[0].metrics.items()))
            scores[f"{name} {measure}"] = round(value, 6)
        torch.set_rng_state(state)
        return scores
