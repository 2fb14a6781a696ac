"""Documents that the page is tried on: of animals, and some that are hard to show."""

from __future__ import annotations

from typing import Any

ANIMALS = {
    "penguin": 2, "eagle": 2, "owl": 2, "nightingale": 2, "wolf": 4, "elephant": 4, "cat": 4, "frog": 4, "bee": 6,
    "ant": 6,
}  # fmt: skip
"""Each with its legs."""

HABITS = {
    "food": "What the {0} eats: it looks for fish, seeds or whatever there is; {0}s share the food with the young.",
    "home": "The {0} builds its home in spring. Most {0}s come back to the same place every year.",
    "sound": "A {0} is heard before it is seen; its sounds warn the others, and songs of a {0} last for minutes.",
    "winter": "How the {0} gets through the winter: it stays warm in a group, or sleeps until the snow melts.",
    "young": "The young of the {0} learn from both parents, and leave after some months.",
    "travel": "The {0} travels far; a {0} was followed by satellite over two thousand kilometres of open sea and ice.",
}

HARD: list[dict[str, Any]] = [
    {
        "id": "markup",
        "title": "<b>Markup</b> & more",
        "text": "Markup as a title: <img src=x onerror=alert(1)> is text.",
    },
    {"id": "accents", "text": "A small café in 東京 where Zoe keeps twelve cats.", "tags": ['a "quoted" one', "b"]},
    {
        "id": "long",
        "title": "The lighthouse",
        "text": "The sea was calm that night, and nothing was to be seen. " * 20
        + "On the rock lived a lighthouse keeper with his dog. "
        + "The light went round and round until the morning. " * 30,
        "tags": ["c"],
    },
]


def documents() -> list[dict[str, Any]]:
    """63 of them."""
    return [
        {
            "id": f"{animal}-{habit}",
            "title": f"{animal.capitalize()}: {habit}",
            "text": text.format(animal),
            "kind": habit,
            "legs": legs,
            "year": 1990 + 3 * i + j,
        }
        for i, (animal, legs) in enumerate(ANIMALS.items())
        for j, (habit, text) in enumerate(HABITS.items())
    ] + HARD
