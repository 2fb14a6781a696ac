"""What a record of training data holds: its kind by the names of its fields, and its values, checked.

The names are those of sentence-transformers; ``query`` and ``document``, ``question`` and ``answer`` are taken for
``anchor`` and ``positive``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jv5kit.documents import check_string, kind_of
from jv5kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["pairs", "scored", "labeled", "texts"]

ANCHORS = ("anchor", "query", "question")
POSITIVES = ("positive", "document", "answer")
LABELS = ("label", "labels")

NAMES = "anchor and positive (and negative, negative_1 …); sentence1, sentence2 and score; text and label; or text"


@dataclass(frozen=True, slots=True)
class Columns:
    """The fields that the records of a source have.

    Attributes:
        kind: of its rows.
        first: of ``anchor``, ``sentence1`` or ``text``.
        second: of ``positive``, ``sentence2``; none for texts.
        label: of the label or labels.
        textual: whether values are strings, to be read as numbers where there should be one, and empty for none.
        label_names: of labels that are numbers, as data sets of the hub have them.
    """

    kind: Kind
    first: str
    second: str = ""
    label: str = ""
    textual: bool = False
    label_names: Sequence[str] | None = None
    _negatives: dict[tuple[str, ...], list[str]] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls,
        record: Mapping[str, Any],
        origin: str,
        *,
        textual: bool = False,
        label_names: Sequence[str] | None = None,
    ) -> Columns:
        """The columns that a source has by its first record.

        Raises:
            InputError: the names of its fields tell no kind, or only half of one.
        """
        anchor = next((name for name in ANCHORS if name in record), None)
        positive = next((name for name in POSITIVES if name in record), None)
        if anchor and positive:
            return cls("pairs", anchor, positive, textual=textual)
        if "sentence1" in record or "sentence2" in record:
            for name in ("sentence1", "sentence2", "score"):
                if name not in record:
                    hint = "; name the sentences anchor and positive if there is none" if name == "score" else ""
                    raise InputError(f"{origin}: '{name}' is missing{hint}")
            return cls("scored", "sentence1", "sentence2", textual=textual)
        if anchor or (positive and "text" not in record):
            there, missing = (anchor, POSITIVES) if anchor else (positive, ANCHORS)
            raise InputError(f"{origin}: there is '{there}', but no '{missing[0]}' (or {', '.join(missing[1:])})")
        if "text" in record:
            label = next((name for name in LABELS if name in record), None)
            if label:
                return cls("labeled", "text", label=label, textual=textual, label_names=label_names)
            return cls("texts", "text", textual=textual)
        raise InputError(f"{origin}: the fields are {', '.join(record) or 'none'}; a row needs {NAMES}")

    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a record, under the names that rows have.

        Raises:
            ValueError: a field is missing, empty or of a wrong type.
        """
        first = _text(self.first, record)
        if self.kind == "texts":
            return {"text": first}
        if self.kind == "labeled":
            return {"text": first, "labels": self._labels(record)}
        second = _text(self.second, record)
        if self.kind == "scored":
            return {"sentence1": first, "sentence2": second, "score": self._score(record)}
        return {"anchor": first, "positive": second, "negatives": self._texts_against(record)}

    def _texts_against(self, record: Mapping[str, Any]) -> list[str]:
        names = tuple(record)
        fields = self._negatives.get(names)
        if fields is None:
            fields = self._negatives[names] = negative_fields(names)
        negatives = []
        for name in fields:
            value = record[name]
            if value is None or (self.textual and not value):
                continue
            if name == "negatives" and isinstance(value, list):
                negatives += [_text(f"negatives[{i}]", {f"negatives[{i}]": text}) for i, text in enumerate(value)]
            else:
                negatives.append(_text(name, record))
        return negatives

    def _score(self, record: Mapping[str, Any]) -> float:
        value = record.get("score")
        if self.textual:
            try:
                value = float(value or "")
            except ValueError:
                raise ValueError(f"'score' is {value!r}; it must be a number") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                "'score' is missing" if value is None else f"'score' is {kind_of(value)}; it must be a number"
            )
        try:
            score = float(value)
        except OverflowError:
            score = math.inf
        if not math.isfinite(score):
            raise ValueError(f"'score' is {score}; it must be finite")
        return score

    def _labels(self, record: Mapping[str, Any]) -> list[str]:
        value = record.get(self.label)
        if value is None or value == "":
            raise ValueError(f"'{self.label}' is missing or empty; every row needs one")
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError(f"'{self.label}' is an empty list; every row needs a label")
        # Each once, in their order.
        return list(dict.fromkeys(map(self._label, values)))

    def _label(self, value: object) -> str:
        if isinstance(value, int) and self.label_names is not None and 0 <= value < len(self.label_names):
            return self.label_names[value]
        if isinstance(value, str) and value.strip():
            check_string(self.label, value)
            return value
        if isinstance(value, int):
            return str(value)
        raise ValueError(
            f"'{self.label}' has {kind_of(value)}; a label is a string that is not empty, or a whole number"
        )


def negative_fields(names: Sequence[str]) -> list[str]:
    """The fields of negatives, in the order of their numbers."""
    numbered = [
        (int(match[1] or 0), match[0]) for name in names if (match := re.fullmatch(r"negative(?:_(\d+))?", name))
    ]
    return [name for _, name in sorted(numbered)] + [name for name in names if name == "negatives"]


def _text(name: str, record: Mapping[str, Any]) -> str:
    value = record.get(name)
    if value is None:
        raise ValueError(f"'{name}' is missing; every row needs a text there")
    if not isinstance(value, str):
        raise ValueError(f"'{name}' is {kind_of(value)}; it must be a string")
    if not value.strip():
        raise ValueError(f"'{name}' is empty; give it a text, or leave the row out")
    check_string(name, value)
    return value
