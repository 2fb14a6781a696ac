"""What the tests of the page share: a browser, a server over a small index of the packaged model, and a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chrome
import pytest
from chrome import Tab, chromium, new_tab
from corpus import documents
from serving import running

from jv5kit import Encoder, Index
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_chromium = pytest.mark.skipif(chrome.CHROMIUM is None, reason="there is no Chromium (on Debian: chromium)")

QUERY = "where do penguins fish"


@pytest.fixture(scope="session")
def pico() -> Encoder:
    return Encoder.from_pretrained("pico", device="cpu")


@pytest.fixture(scope="session")
def animals(tmp_path_factory: pytest.TempPathFactory, pico: Encoder) -> Iterator[Index]:
    with Index.build(tmp_path_factory.mktemp("page") / "animals.jv5", documents(), pico) as opened:
        yield opened


@pytest.fixture(scope="session")
def page(animals: Index, pico: Encoder) -> Iterator[str]:
    with running(Service(pico, animals)) as address:
        yield address


@pytest.fixture(scope="session")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture
def tab(devtools: str) -> Iterator[Tab]:
    """A tab, which must have met no problem at its end, and asked for nothing from elsewhere."""
    with new_tab(devtools) as opened:
        opened.size(1280, 900)
        yield opened
        opened.do("0")
        assert opened.problems == []
        origins = {one.split("/")[2].split(":")[0] for one in opened.requests if one.startswith(("http", "ws"))}
        assert origins == {"127.0.0.1"}


def search(tab: Tab, url: str, query: str = QUERY) -> None:
    """Open the page and search, until the hits are on the map as well."""
    tab.open(url)
    tab.until("index && sample")
    tab.do("at('query').focus()")
    tab.write(query)
    tab.press("Enter")
    tab.until(f"shown?.query === {query!r} && document.querySelectorAll('.pin').length === shown.hits.length")


def refused(tab: Tab) -> None:
    """Forget that the browser told of answers that are errors, as it should have."""
    tab.do("0")
    assert tab.problems
    assert all("Failed to load resource" in problem for problem in tab.problems)
    tab.problems.clear()


def ids(tab: Tab) -> list[str]:
    """The ids of the hits on the page."""
    found: list[str] = tab.do("shown.hits.map(hit => hit.id)")
    return found
