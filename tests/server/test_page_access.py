"""The page for whoever uses it: by keyboard, light and dark, on a phone, with a screen reader; and what goes wrong."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from browsing import QUERY, ids, needs_chromium, refused, search
from corpus import documents
from serving import held, running

from jv5kit import Encoder, Index
from jv5kit.server.limits import Limits
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chrome import Tab

pytest_plugins = ("browsing",)

pytestmark = needs_chromium

CONTRASTS = """
(() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(one => one / 255)
    .map(one => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4)
    .reduce((sum, one, i) => sum + one * [.2126, .7152, .0722][i], 0);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(one).backgroundColor);
      if (alpha === 1) return [r, g, b];
      if (alpha !== 0) throw new Error(`a background that shines through: ${one.outerHTML}`);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()) || one.matches("input.field");
    if (!own || !one.checkVisibility({ visibilityProperty: true }) || one.closest(".unseen")) continue;
    const drawn = one instanceof SVGElement;
    const pin = one.closest(".pin");
    const back = light(pin ? numbers(getComputedStyle(pin.querySelector("circle")).fill) : behind(one));
    const texts = [getComputedStyle(one)[drawn ? "fill" : "color"]];
    if (one.matches("input")) texts.push(getComputedStyle(one, "::placeholder").color);
    for (const text of texts) {
      const front = light(numbers(text));
      const ratio = (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
      const kind = one.getAttribute("class") ?? "";
      found.push([ratio, `${one.tagName} ${one.id} ${kind}: ${one.textContent.slice(0, 40)}`]);
    }
  }
  return found;
})()
"""
"""The contrast (WCAG 2) of each text that is to be seen, with what it is."""


def focus(tab: Tab) -> str:
    """The id, or else the name, of the element with the focus."""
    found: str = tab.do("document.activeElement.id || document.activeElement.name || document.activeElement.tagName")
    return found


def walk(tab: Tab, key: str, wanted: str, *, most: int = 30) -> None:
    """Press a key until something has the focus, each of whose predecessors shows that it has it."""
    for _ in range(most):
        tab.press(key)
        assert ring(tab), focus(tab)
        if tab.do(f"document.activeElement.matches({wanted!r})"):
            return
    raise AssertionError(f"the focus never was on {wanted}")


def ring(tab: Tab) -> bool:
    """Whether a ring can be seen around what has the focus."""
    shown: bool = tab.do(
        "(() => { const one = document.activeElement, around = one.matches('[type=radio]') ? one.parentElement : one; "
        "const style = getComputedStyle(around); "
        "return style.outlineStyle === 'solid' && parseFloat(style.outlineWidth) >= 2; })()"
    )
    return shown


def test_by_keyboard_alone(tab: Tab, page: str) -> None:
    tab.open(page)
    tab.until("index && sample")
    assert focus(tab) == "query"
    tab.write(QUERY)
    tab.press("Enter")
    tab.until("shown?.hits.length")
    tab.press("ArrowDown")
    assert focus(tab) == "hit-0"
    assert ring(tab)
    tab.press("ArrowDown")
    tab.press("ArrowDown")
    assert focus(tab) == "hit-2"
    tab.press("End")
    assert focus(tab) == "hit-9"
    tab.press("ArrowDown")
    assert focus(tab) == "hit-9"
    tab.press("Home")
    tab.press("ArrowUp")
    assert focus(tab) == "query"
    # A mode, by its arrows.
    walk(tab, "Tab", "[name=mode]")
    tab.press("ArrowLeft")
    tab.until("chosen() === 'ubinary' && 'ubinary' in used")
    walk(tab, "Tab", "#compare")
    tab.press("Enter")
    tab.until("!at('comparison').hidden")
    # The hits are one stop of Tab; their buttons come after.
    walk(tab, "Tab", ".hit")
    walk(tab, "Tab", "button.chip")
    tab.press("Enter")
    tab.until("shown.where")
    tab.press("/")
    assert focus(tab) == "query"
    tab.press("Escape")
    assert tab.do("at('query').value") == ""
    assert tab.do("document.querySelectorAll('.hit').length") == 0
    assert tab.do("location.hash").startswith("#where=")
    walk(tab, "Tab", "#where")
    tab.press("Escape")
    assert tab.do("at('where').value") == ""
    # A slash in a field is a slash.
    tab.press("/")
    assert focus(tab) == "where"


def test_a_long_text_is_opened_by_keyboard(tab: Tab, page: str) -> None:
    search(tab, page, "the lighthouse keeper")
    place = ids(tab).index("long")
    tab.do(f"goTo({place})")
    folded = len(tab.text(f"#hit-text-{place}"))
    tab.press("Enter")
    assert len(tab.text(f"#hit-text-{place}")) > 2 * folded
    tab.press("Enter")
    assert len(tab.text(f"#hit-text-{place}")) == folded


def test_links_lead_past_the_form(tab: Tab, page: str) -> None:
    search(tab, page)
    address = tab.do("location.href")
    for name in ("results", "map"):
        tab.do(f"document.querySelector('.skip [href=\"#{name}\"]').focus()")
        assert tab.do("document.activeElement.getBoundingClientRect().top >= 0")
        tab.press("Enter")
        assert focus(tab) == name
    assert tab.do("location.href") == address


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(tab: Tab, page: str, scheme: str) -> None:
    tab.color_scheme(scheme)
    search(tab, page)
    tab.click("#compare")
    tab.until("!at('comparison').hidden")
    tab.do("(filterWrong('wrong'), tell(new Error('wrong'), start), document.querySelector('#hit-1').focus())")
    tab.until("!at('tip').hidden")
    found: list[tuple[float, str]] = tab.do(CONTRASTS)
    kinds = " ".join(name for _, name in found)
    for name in (
        "INPUT query",
        "INPUT where",
        "MARK",
        "score",
        "rank",
        "chip",
        "CAPTION",
        "tip",
        "axis",
        "wrong",
        "TD",
    ):
        assert name in kinds
    assert [one for one in found if one[0] < 4.5] == []
    background = tab.do("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(247, 248, 250)", "dark": "rgb(16, 19, 23)"}[scheme]


def test_on_a_phone_nothing_is_wider_than_it(tab: Tab, page: str) -> None:
    tab.size(360, 740, phone=True)
    search(tab, page, "markup as a title, where Zoe's lighthouse keeper keeps twelve cats")
    tab.click("#compare")
    tab.until("!at('comparison').hidden")
    table = tab.do("[at('comparison').clientWidth, at('comparison').scrollWidth]")
    assert table[0] == table[1]
    tab.do("(at('where').value = 'kind = \"food\" and legs = 2 and ' + 'x'.repeat(200), told(search))")
    tab.until("!at('where-wrong').hidden")
    assert tab.do("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    beyond = "[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > 361 && "
    beyond += "!one.closest('.skip, .unseen')).map(one => one.outerHTML.slice(0, 99))"
    assert tab.do(beyond) == []
    small = (
        "[...document.querySelectorAll('button, input:not([type=radio]), .choice')].filter(one => one.checkVisibility()"
    )
    small += " && one.getBoundingClientRect().height < 24).map(one => one.outerHTML.slice(0, 99))"
    assert tab.do(small) == []
    refused(tab)


def test_landmarks_and_names(tab: Tab, page: str) -> None:
    search(tab, page)
    roles = tab.roles()
    landmarks = {"banner", "search", "main", "complementary", "contentinfo", "navigation"}
    assert {role for role, _ in roles} >= landmarks
    assert all([role for role, _ in roles].count(name) == 1 for name in landmarks)
    for named in (
        ("main", "Results"),
        ("complementary", "Map"),
        ("searchbox", "Query"),
        ("combobox", "Filter"),
        ("button", "Search"),
        ("button", "Compare"),
        ("heading", "jv5kit search"),
    ):
        assert named in roles
    radios = [name for role, name in roles if role == "radio"]
    assert [name.partition(" ")[0] for name in radios] == ["float", "int8", "bits", "bits"]
    assert [name for role, name in roles if role == "article"] == tab.texts(".hit h3")
    assert ("status", "") in roles
    # The map says what it shows by its caption; everything in it is in the list.
    assert not any("PCA 1" in name for role, name in roles if role != "StaticText" or "variance" not in name)
    unnamed = [one for one in roles if one[0] in ("button", "link", "radio", "searchbox", "combobox") and not one[1]]
    assert unnamed == []


def test_an_index_of_float_rows_says_what_it_lacks(tab: Tab, tmp_path: Path, pico: Encoder) -> None:
    with (
        Index.build(tmp_path / "f.jv5", documents(), pico, dim=64, precision="float32") as index,
        running(Service(pico, index)) as url,
    ):
        search(tab, url)
        assert tab.texts(".choice small")[1:] == [
            "not stored; needs\n--precision int8",
            "not stored; needs\n--binary",
            "not stored; needs\n--binary --rescore int8",
        ]
        assert tab.do("[chosen(), at('compare').disabled]") == ["float32", True]
        assert tab.do("at('compare').title") == "This index has one mode only"


def test_the_passage_of_a_hit(tab: Tab, tmp_path: Path, pico: Encoder) -> None:
    with Index.build(tmp_path / "p.jv5", documents(), pico, passages=48) as index, running(Service(pico, index)) as url:
        search(tab, url, "a lighthouse keeper with his dog")
        (hit,) = index.search("a lighthouse keeper with his dog", 1)
        assert hit.passage is not None
        assert tab.text("#hit-0 .where") == (
            f"long, passage {hit.passage.number}, characters {hit.passage.start:,}\N{EN DASH}{hit.passage.end:,}"
        )
        assert tab.do("document.querySelector('#hit-0 .text').matches('.passage')")
        assert "passages" in tab.text("#facts")


def test_without_an_index(tab: Tab, pico: Encoder) -> None:
    with running(Service(pico)) as url:
        tab.open(url)
        tab.until("!at('no-index').hidden")
        assert "jv5kit serve --index docs.jv5" in tab.text("#no-index")
        shown = tab.do(
            "[...document.querySelectorAll('input, button')].filter(one => one.checkVisibility()).map(one => one.id)"
        )
        assert shown == []
        assert not tab.do("at('map').checkVisibility()")
        refused(tab)


def test_an_empty_index(tab: Tab, tmp_path: Path, pico: Encoder) -> None:
    with Index.build(tmp_path / "e.jv5", [], pico) as index, running(Service(pico, index)) as url:
        tab.open(url)
        tab.until("index && sample")
        assert "no documents yet" in tab.text("#status")
        assert not tab.do("at('map').checkVisibility()")
        tab.write("anything")
        tab.press("Enter")
        tab.until("!at('none').hidden")
        assert tab.text("#none-why") == "The index has no documents."


def test_the_key_is_asked_for_and_kept_by_the_tab_alone(tab: Tab, animals: Index, pico: Encoder) -> None:
    with running(Service(pico, animals), "sécret") as url:
        tab.open(url)
        tab.until("!at('key-form').hidden")
        assert focus(tab) == "key"
        assert not tab.do("at('form').checkVisibility()")
        tab.write("wrong")
        tab.press("Enter")
        tab.until("at('key-why').textContent.includes('not the API key')")
        tab.do("at('key').select()")
        tab.write("sécret")
        tab.press("Enter")
        tab.until("index && sample")
        assert not tab.do("at('key-form').checkVisibility()")
        refused(tab)
        search(tab, url)
        assert tab.do("[Object.values(sessionStorage), localStorage.length, document.cookie]") == [["sécret"], 0, ""]
        assert "cret" not in tab.do("location.href")


def test_a_server_that_is_gone_and_comes_back(tab: Tab, page: str) -> None:
    search(tab, page)
    tab.offline(away=True)
    tab.do("(at('query').value = 'another', told(search))")
    tab.until("!at('problem').hidden")
    assert "does not answer" in tab.text("#problem")
    assert ("alert", "") in tab.roles()
    tab.offline(away=False)
    tab.click("#problem button")
    tab.until("shown.query === 'another'")
    assert tab.do("at('problem').hidden")
    refused(tab)


def test_a_server_without_room(tab: Tab, animals: Index, pico: Encoder) -> None:
    with running(Service(pico, animals, Limits(requests=0))) as url:
        tab.open(url)
        tab.until("index && sample")
        tab.write("anything")
        tab.press("Enter")
        tab.until("!at('problem').hidden")
        assert tab.text("#problem p") == "The server has no room for more at the moment. Try again in 1 s."
        assert tab.do("document.querySelector('#problem button').disabled")
        tab.until("!document.querySelector('#problem button').disabled")
        refused(tab)


def test_a_search_that_is_too_late(tab: Tab, animals: Index, pico: Encoder) -> None:
    let = threading.Event()

    def wait(_: Sequence[Sequence[int]]) -> None:
        let.wait()

    slow = held(pico, wait)
    with running(Service(slow, animals, Limits(deadline=0.5))) as url:
        tab.open(url)
        tab.until("index && sample")
        tab.write("anything")
        tab.press("Enter")
        tab.until("!at('problem').hidden")
        assert "not done by the server's deadline" in tab.text("#problem")
        let.set()
        tab.click("#problem button")
        tab.until("shown?.hits.length")
        refused(tab)


def test_other_refusals_are_told_as_they_are(tab: Tab, page: str) -> None:
    search(tab, page)
    tab.do("told(() => ask('/v1/search', { query: 'x', top_k: 0 }))")
    tab.until("!at('problem').hidden")
    assert tab.text("#problem p") == "Top_k is 0; it must be 1..1000."
    refused(tab)


def test_the_last_search_counts(tab: Tab, page: str) -> None:
    """An answer that comes after the next question is not shown."""
    search(tab, page)
    tab.do("(() => { for (const one of ['a', 'b', 'c']) { at('query').value = one; told(search); } })()")
    tab.until("shown.query === 'c'")
    tab.do("new Promise(done => setTimeout(done, 300))")
    assert tab.do("shown.query") == "c"
    assert tab.do("at('problem').hidden")


def test_documents_that_come_while_the_page_is_open(tab: Tab, tmp_path: Path, pico: Encoder) -> None:
    with Index.build(tmp_path / "c.jv5", documents(), pico) as index, running(Service(pico, index)) as url:
        search(tab, url)
        with Index.open(index.path) as writing:
            writing.use_encoder(pico)
            writing.add([{"id": "new", "title": "New", "text": "Where do penguins fish? Off the cape.", "cape": 1}])
        tab.press("Enter")
        tab.until("sample.points.length === 64 && document.querySelectorAll('.pin').length === 10")
        assert ids(tab)[0] == "new"
        assert tab.text("#facts").startswith("64 documents")
        assert "cape" in tab.text("#where-help")
