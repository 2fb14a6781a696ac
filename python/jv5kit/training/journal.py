"""What a run writes of itself: ``metrics.jsonl`` and ``train.png``, and what is seen as it goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jv5kit.logs import logger

if TYPE_CHECKING:
    from pathlib import Path


class Journal:
    """The lines of ``metrics.jsonl``: ``{"phase", "step", "loss", …}``, and ``{"phase", "step", "scores"}``.

    Args:
        folder: of the run.
        active: False in all processes but the first, which write nothing.
    """

    def __init__(self, folder: Path, *, active: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        self._active = active

    def write(self, record: dict[str, Any]) -> None:
        """Add a line."""
        if self._active:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def cut(self, phase: str, step: int) -> None:
        """Drop what was written of a phase after a step, which is done again."""
        if not self._active or not self.path.exists():
            return
        kept = [record for record in self.records() if not (record["phase"] == phase and record["step"] > step)]
        aside = self.path.with_suffix(".tmp")
        aside.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept), encoding="utf-8")
        aside.replace(self.path)

    def records(self) -> list[dict[str, Any]]:
        """All lines; one that was cut off in the midst of writing is left out."""
        records: list[dict[str, Any]] = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    records.append(json.loads(line))
                except ValueError:
                    logger.warning("%s has a line that is cut off: %.40s", self.path, line)
        return records

    def draw(self) -> None:
        """Draw the curves, as ``train.png`` beside the lines."""
        if self._active:
            from jv5kit.training.plots import draw_curves

            draw_curves(self.records(), self.path.with_name("train.png"))
