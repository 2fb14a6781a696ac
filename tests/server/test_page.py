"""The page at ``/`` in headless Chromium, against a server over a small index of the packaged model."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

import httpx
import pytest
from browsing import QUERY, ids, needs_chromium, refused, search

from jv5kit.server.page import PAGE

if TYPE_CHECKING:
    from chrome import Tab

pytest_plugins = ("browsing",)


def test_it_may_run_what_is_in_it_and_nothing_else(page: str) -> None:
    response = httpx.get(page)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["img-src"] == "data:"
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"


def test_it_asks_for_nothing_from_elsewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[^'\"\s]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"['\"(=]//\w", text)
    markup, _, script = text.partition("<script>")
    # What the policy would keep from working: attributes with code or style.
    assert not re.search(r"\s(on\w+|style|src)=", markup)
    links = re.findall(r"href=\"(.*?)\"", markup)
    assert all(link.startswith(("#", "data:image/svg+xml,", "/openapi.json")) for link in links)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|new Function|import\(|localStorage", script)


@needs_chromium
def test_hits_with_marked_words(tab: Tab, page: str) -> None:
    search(tab, page)
    answer = httpx.post(f"{page}/v1/search", json={"query": QUERY}).json()
    assert ids(tab) == [hit["id"] for hit in answer["hits"]]
    assert tab.texts(".hit h3") == [hit["title"] for hit in answer["hits"]]
    assert tab.texts(".score") == [f"score\n{hit['score']:.3f}" for hit in answer["hits"]]
    widths = tab.do("[...document.querySelectorAll('.bar i')].map(one => parseFloat(one.style.width))")
    assert widths == [pytest.approx(100 * hit["score"], abs=0.01) for hit in answer["hits"]]
    # "do" and "where" say nothing; an ending more or less is the same word.
    assert {mark.lower() for mark in tab.texts("mark")} == {"penguin", "penguins", "fish"}
    assert re.fullmatch(
        r"10 hits by bits \+ int8: searched in [\d.]+\sms, answered in [\d.]+\sms", tab.text("#status")
    ), tab.text("#status")
    tab.click("#further")
    tab.until("document.querySelectorAll('.hit').length === 20")
    assert ids(tab)[:10] == [hit["id"] for hit in answer["hits"]]
    tab.until("document.activeElement.id === 'hit-10'")


@needs_chromium
def test_accents_and_letters_of_any_size_are_marked_and_markup_is_text(tab: Tab, page: str) -> None:
    search(tab, page, "CAFE zoë 東京")
    assert {"café", "Zoe", "東京"} <= set(tab.texts("mark"))
    search(tab, page, "markup as a title")
    assert "<b>Markup</b> & more" in tab.texts(".hit h3")
    assert tab.do("document.querySelectorAll('.hit b, .hit img').length") == 0


@needs_chromium
def test_long_texts_are_folded_around_the_words(tab: Tab, page: str) -> None:
    search(tab, page, "the lighthouse keeper")
    place = ids(tab).index("long")
    text, more = f"#hit-text-{place}", f"#hit-{place} .more"
    folded = tab.text(text)
    assert 200 < len(folded) < 420
    assert folded.startswith("… ")
    assert "lighthouse keeper" in folded
    assert tab.do(f"document.querySelector('{more}').getAttribute('aria-expanded')") == "false"
    assert re.fullmatch(r"Show all [\d,]+ characters", tab.text(more))
    tab.click(more)
    assert len(tab.text(text)) > 2000
    assert tab.text(more) == "Show less"
    assert tab.do(f"document.querySelector('{more}').getAttribute('aria-expanded')") == "true"
    tab.click(more)
    assert tab.text(text) == folded


@needs_chromium
def test_modes_and_what_they_cost(tab: Tab, page: str) -> None:
    search(tab, page)
    costs = dict(zip(["float32", "int8", "ubinary", "ubinary+int8"], tab.texts(".choice small"), strict=True))
    assert costs["float32"] == "not stored; needs\n--precision float32"
    assert costs["int8"] == "388 bytes a document\nnot used yet"
    assert re.fullmatch(r"436 bytes a document\n[\d.]+\sms", costs["ubinary+int8"])
    disabled = tab.do("[...document.querySelectorAll('[name=mode]')].map(one => one.disabled)")
    assert disabled == [True, False, False, False]
    tab.click("[value=ubinary]")
    tab.until("'ubinary' in used && shown.hits.length")
    answer = httpx.post(f"{page}/v1/search", json={"query": QUERY, "mode": "ubinary"}).json()
    assert ids(tab) == [hit["id"] for hit in answer["hits"]]
    assert re.fullmatch(r"48 bytes a document\n[\d.]+\sms", tab.texts(".choice small")[2])
    # The search alone: neither encoding nor reading the documents.
    total = sum(answer["milliseconds"].values())
    assert 0 < tab.do("used.ubinary") < total


@needs_chromium
def test_modes_compared(tab: Tab, page: str) -> None:
    search(tab, page)
    tab.click("#compare")
    tab.until("!at('comparison').hidden")
    found = {}
    for mode in ("int8", "ubinary+int8", "ubinary"):
        answer = httpx.post(f"{page}/v1/search", json={"query": QUERY, "mode": mode}).json()
        found[mode] = {hit["id"] for hit in answer["hits"]}
    rows: list[list[str]] = tab.do(
        "[...document.querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    assert [[row[0], *row[2:]] for row in rows] == [
        ["int8", "388", "10 of 10"],
        ["bits + int8", "436", f"{len(found['int8'] & found['ubinary+int8'])} of 10"],
        ["bits", "48", f"{len(found['int8'] & found['ubinary'])} of 10"],
    ]
    assert all(re.fullmatch(r"[\d.]+\sms", row[1]) for row in rows)
    assert "int8, the most exact mode" in tab.text("caption")
    # It is of this query.
    search(tab, page, "another question")
    assert tab.do("at('comparison').hidden")


@needs_chromium
def test_filters(tab: Tab, page: str) -> None:
    search(tab, page)
    options = tab.do("[...document.querySelectorAll('datalist option')].map(one => one.value)")
    assert "legs = 2" in options
    assert 'tags = "a \\"quoted\\" one"' in options
    assert {option.split(" =")[0] for option in options} == {"kind", "legs", "tags", "year"}
    tab.click(".chips button")
    tab.until("at('where').value && shown.where")
    condition = tab.do("at('where').value")
    answer = httpx.post(f"{page}/v1/search", json={"query": QUERY, "filter": condition}).json()
    assert ids(tab) == [hit["id"] for hit in answer["hits"]]
    # Another one comes on top; the same one does not.
    tab.do("addFilter('legs = 4')")
    tab.do("addFilter('legs = 4')")
    assert tab.do("at('where').value") == f"{condition} and legs = 4"
    tab.do("(at('where').value = 'legs = 2 or legs = 4', addFilter('year > 2000'))")
    assert tab.do("at('where').value") == "(legs = 2 or legs = 4) and year > 2000"
    tab.until("shown.where === at('where').value && shown.hits.every(hit => hit.metadata.year > 2000)")
    tab.do("at('where').select()")
    tab.click("#where")
    tab.do("at('where').select()")
    tab.write("year >")
    tab.press("Enter")
    tab.until("!at('where-wrong').hidden")
    refusal = httpx.post(f"{page}/v1/search", json={"query": QUERY, "filter": "year >"}).json()["error"]["message"]
    assert tab.text("#where-wrong")[1:] == refusal[1:]
    assert tab.do("at('where').getAttribute('aria-invalid')") == "true"
    assert tab.do("at('problem').hidden")
    tab.do("at('where').select()")
    tab.write("year > 9000")
    tab.press("Enter")
    tab.until("!at('none').hidden")
    assert tab.text("#none-why") == "No document passes the filter."
    assert tab.do("at('where-wrong').hidden")
    tab.click("#unfilter")
    tab.until("document.querySelectorAll('.hit').length === 10")
    refused(tab)


@needs_chromium
def test_the_address_leads_back(tab: Tab, page: str) -> None:
    search(tab, page)
    first = ids(tab)
    tab.do("(choose('ubinary'), at('where').value = 'legs = 2', at('query').value = 'songs & sounds', told(search))")
    tab.until("shown.query === 'songs & sounds'")
    second = ids(tab)
    address = tab.do("location.href")
    assert address == f"{page}/#q=songs+%26+sounds&mode=ubinary&where=legs+%3D+2"
    tab.do("history.back()")
    tab.until(f"shown.query === {QUERY!r}")
    assert (ids(tab), tab.do("at('where').value"), tab.do("chosen()")) == (first, "", "ubinary+int8")
    tab.do("history.forward()")
    tab.until("shown.query === 'songs & sounds'")
    tab.open(address)
    tab.until("shown?.hits.length")
    assert (ids(tab), tab.do("chosen()")) == (second, "ubinary")
    assert tab.do("document.title") == "songs & sounds \N{EN DASH} jv5kit search"


@needs_chromium
def test_the_map(tab: Tab, page: str) -> None:
    search(tab, page)
    facts = httpx.get(f"{page}/v1/map").json()
    assert tab.do("document.querySelectorAll('.dot').length") == 63
    numbers = tab.do("[...document.querySelectorAll('.pin')].map(pin => pin.textContent)")
    # The first is drawn last, over the others.
    assert numbers == [str(i) for i in range(10, 0, -1)]
    share = 100 * sum(facts["explained"])
    assert f"All 63 documents in the plane that keeps the most of their differences (PCA: {share:.0f} % of" in tab.text(
        "#map-caption"
    )
    tab.do("document.querySelector('#hit-2').focus()")
    assert tab.text("#tip") == tab.text("#hit-2 h3")
    assert tab.do("document.querySelector('.pin.here').dataset.hit") == "2"
    tab.click("[data-hit='6'] text")
    assert tab.do("document.activeElement.id") == "hit-6"
    # Pins do not cover one another, and are within the frame.
    boxes = tab.do(
        "[...document.querySelectorAll('.pin')].map(pin => pin.transform.baseVal[0].matrix).map(({ e, f }) => [e, f])"
    )
    for i, (x, y) in enumerate(boxes):
        assert 9 <= x <= 391
        assert 9 <= y <= 311
        assert all((x - a) ** 2 + (y - b) ** 2 > 17**2 for a, b in boxes[:i])
