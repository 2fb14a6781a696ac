"""What the commands encode with."""

from pathlib import Path

import pytest

from jv5kit import Encoder


@pytest.fixture(scope="session")
def encoder(tiny_model: Path) -> Encoder:
    """The encoder of ``tiny_model`` as the commands load it: in the default type of this processor."""
    return Encoder.from_pretrained(tiny_model)
