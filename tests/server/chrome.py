"""Chromium without a window, driven by the DevTools protocol: a tab that is clicked, typed into and looked at."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser, or None where there is none."""

KEYS = {"ArrowDown": 40, "ArrowUp": 38, "ArrowRight": 39, "Home": 36, "End": 35, "Enter": 13, "Escape": 27, "Tab": 9}
"""Keys by their names, each with the code that Windows gave it."""

SECONDS = 30
"""How long anything may take."""


class Tab:
    """A tab of the browser.

    Attributes:
        problems: what the console said that is an error or a warning, and exceptions.
        requests: the addresses that were asked for, in order.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.problems: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and take up what happened until its answer."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, message
                answer: dict[str, Any] = message["result"]
                return answer
            self._take_up(message.get("method", ""), message.get("params", {}))

    def _take_up(self, event: str, facts: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(facts["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(facts["args"]))
        elif event == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")

    def do(self, code: str) -> Any:
        """The value of an expression, or of the promise that it gives."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, (code, answer)
        return answer["result"].get("value")

    def until(self, code: str) -> Any:
        """Wait until an expression is true; returns its value."""
        end = time.monotonic() + SECONDS
        while not (value := self.do(code)):
            assert time.monotonic() < end, (code, self.problems, self.do("document.body.innerText"))
            time.sleep(0.02)
        return value

    def open(self, url: str) -> None:
        """Go to an address, and wait until the page is there."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def text(self, selector: str) -> str:
        """What an element says, as it is displayed."""
        text: str = self.do(f"document.querySelector({json.dumps(selector)}).innerText")
        return text

    def texts(self, selector: str) -> list[str]:
        """What each of some elements says."""
        texts: list[str] = self.do(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText)")
        return texts

    def click(self, selector: str) -> None:
        """Click in the middle of an element with the mouse."""
        x, y = self.do(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); "
            "one.scrollIntoView({ block: 'center' }); const box = one.getBoundingClientRect(); "
            "return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key, by its name or its character."""
        code = KEYS.get(key, ord(key[0]))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def write(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Give the tab a size, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def color_scheme(self, name: str) -> None:
        """Prefer ``light`` or ``dark``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def offline(self, *, away: bool) -> None:
        """Take the network away, or give it back."""
        self.call(
            "Network.emulateNetworkConditions", offline=away, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def roles(self) -> list[tuple[str, str]]:
        """The accessibility tree, flat: the role and the name of each node that a screen reader is told of."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]

    def screenshot(self, path: Path) -> None:
        """Write what is to be seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """Run the browser while the block runs; gives the address of its DevTools.

    Args:
        profile: an empty folder.
    """
    assert CHROMIUM is not None
    # As root, and where user namespaces are not to be had, its sandbox cannot be; it only meets our own page.
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
    command = [CHROMIUM, *options, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if found := re.match(r"DevTools listening on ws://([\d.:]+)/", line):
                    break
            else:
                raise AssertionError("".join(said))
            yield f"http://{found[1]}"
        finally:
            process.terminate()
            # It ends when the pipe is read; what it says at its end is of no interest.
            process.communicate(timeout=SECONDS)


@contextmanager
def new_tab(devtools: str) -> Iterator[Tab]:
    """A tab of its own, with a session of its own, closed after the block."""
    facts = httpx.put(f"{devtools}/json/new?about:blank", timeout=SECONDS).json()
    with connect(facts["webSocketDebuggerUrl"], max_size=None, open_timeout=SECONDS) as connection:
        try:
            yield Tab(connection)
        finally:
            httpx.get(f"{devtools}/json/close/{facts['id']}", timeout=SECONDS)
