"""``jv5kit serve`` as a process: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from command import COMMAND, Inside, environment, fails, run

from jv5kit import Encoder
from jv5kit.server.running import listen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Process:
    """A server process, its address, and the lines that it has printed on stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        self.first = process.stderr.readline()
        found = re.search(r"http://(\S+:\d+)", self.first)
        assert found, self.first + process.stderr.read()
        self.url = found[0].rstrip(",")

    def end(self, sig: signal.Signals, code: int) -> str:
        """Send a signal; returns what is on stderr after the exit with a status."""
        self.process.send_signal(sig)
        _, err = self.process.communicate(timeout=60)
        assert self.process.returncode == code, err
        return err


@contextmanager
def serving(*arguments: str | os.PathLike[str], cwd: Path | None = None, **variables: str) -> Iterator[Process]:
    command = [*COMMAND, "serve", "--port", "0", *(os.fspath(argument) for argument in arguments)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd, env=environment(**variables)
    ) as process:
        try:
            yield Process(process)
        finally:
            process.kill()


def test_the_default_model_without_any_option() -> None:
    with serving() as server:
        assert re.fullmatch(r"serving pico at http://127\.0\.0\.1:\d+\n", server.first)
        answer = httpx.post(f"{server.url}/v1/embeddings", json={"model": "pico", "input": "a bird"}).json()
        expected = Encoder.from_pretrained("pico", device="cpu").encode("a bird", task="text-matching")
        assert answer["data"][0]["embedding"] == expected.tolist()
        assert server.end(signal.SIGTERM, 0) == ""


def test_an_index_brings_its_model(built: Path) -> None:
    with serving("--index", "docs.jv5", cwd=built) as server:
        assert re.fullmatch(r"serving tiny at http://127\.0\.0\.1:\d+, index docs\.jv5: 13 documents\n", server.first)
        printed = run("search", "penguin", "-i", "docs.jv5", "--json", cwd=built).stdout
        found = httpx.post(f"{server.url}/v1/search", json={"query": "penguin"}).json()
        assert found["hits"] == json.loads(printed)["hits"]
        assert server.end(signal.SIGINT, 130) == ""


def test_sigterm_drains(tiny_model: Path) -> None:
    """What was accepted is answered, nothing more is accepted, and the exit status is 0."""
    texts = ["the penguin swims in the cold sea " * 12] * 1500
    with serving("-m", tiny_model, "--batch-tokens", "128", "--queue-tokens", "1000000") as server:
        answers: list[int] = []

        def client() -> None:
            body = {"model": "tiny", "input": texts, "encoding_format": "base64"}
            answers.append(httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60).status_code)

        threads = [threading.Thread(target=client) for _ in range(2)]
        for thread in threads:
            thread.start()
        while "jv5kit_requests_in_flight 2.0" not in (text := httpx.get(f"{server.url}/metrics").text):
            assert not answers, text
        # In the queue, not only read.
        while "jv5kit_queue_tokens 0.0" in httpx.get(f"{server.url}/metrics").text:
            assert not answers
        server.process.send_signal(signal.SIGTERM)
        host, port = server.url.removeprefix("http://").split(":")
        refused = False
        while not refused and not answers:
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                time.sleep(0.02)
            except ConnectionRefusedError:
                refused = True
        assert refused, "it accepted to the end"
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        _, err = server.process.communicate(timeout=60)
        assert (server.process.returncode, err) == (0, "")


def test_beyond_this_machine_there_must_be_a_key(tiny_model: Path) -> None:
    for host in ("0.0.0.0", "::"):
        assert fails("serve", "-m", tiny_model, "--host", host, "--port", "0") == (
            f"--host {host} can be reached from other machines, so there must be an API key: "
            "put one into JV5KIT_API_KEY, or serve on 127.0.0.1"
        )
    with serving("-m", tiny_model, "--host", "0.0.0.0", JV5KIT_API_KEY="secret") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        server.end(signal.SIGTERM, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "--port 65536 is outside 0..65535"),
        (["--port", "-1"], "--port -1 is outside 0..65535"),
        (["--deadline", "0"], "--deadline 0.0: it must be above 0"),
        (["--deadline", "nan"], "--deadline nan: it must be above 0"),
        (["--queue-tokens", "0"], "--queue-tokens 0: it must be above 0"),
        (["--batch-tokens", "-5"], "--batch-tokens -5: it must be above 0"),
        (["--max-body", "0"], "--max-body 0: it must be above 0"),
        (["--index", "nowhere.jv5"], "nowhere.jv5 is no jv5kit index (it has no index.sqlite)"),
        (["-m", "no/such/model/here"], "model 'no/such/model/here' is neither a folder nor a hub id"),
    ],
)
def test_wrong_options(inside: Inside, options: list[str], message: str) -> None:
    outcome = inside("serve", *(["--port", "0"] if "--port" not in options else []), *options, code=2)
    assert message in outcome.stderr


def test_an_empty_key_is_no_key(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JV5KIT_API_KEY", " ")
    assert inside("serve", code=2).stderr == "jv5kit: JV5KIT_API_KEY is empty; put a key into it, or unset it\n"


def test_a_port_that_is_taken_and_a_host_that_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = run("serve", "--port", str(port), code=1)
        assert re.fullmatch(
            rf"jv5kit: cannot listen on 127\.0\.0\.1 port {port}: .*; choose another --host or --port\n", outcome.stderr
        )
    outcome = run("serve", "--host", "256.0.0.1", code=1, JV5KIT_API_KEY="k")
    assert outcome.stderr.startswith("jv5kit: cannot listen on 256.0.0.1 port 8000: ")


def test_answers_are_sent_at_once() -> None:
    """asyncio turns Nagle's algorithm off for sockets that say they are of TCP, and only for those."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def test_an_index_of_another_model_and_one_of_given_embeddings(
    inside: Inside, built: Path, other_model: Path, folder: Path
) -> None:
    outcome = inside("serve", "--port", "0", "-i", built / "docs.jv5", "-m", other_model, code=2)
    assert "was built with another model" in outcome.stderr
    inside("index", "--embeddings", folder / "x.npy", "-o", folder / "x.jv5")
    outcome = inside("serve", "--port", "0", "-i", folder / "x.jv5", code=2)
    assert "was built from given embeddings, not texts" in outcome.stderr


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "prometheus_client"])
def test_without_the_extra(package: str) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['jv5kit', 'serve']\n"
        "from jv5kit.cli import main; main()"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert outcome.returncode == 1
    assert re.fullmatch(rf"jv5kit: serving needs {package}[\w.]*: pip install 'jv5kit\[server\]'\n", outcome.stderr), (
        outcome.stderr
    )


def test_nothing_else_loads_the_packages_of_the_server(built: Path) -> None:
    script = (
        "import sys, jv5kit; from jv5kit.cli import main; sys.argv = ['jv5kit', 'search', 'a', '-i', 'docs.jv5']\n"
        "try: main()\n"
        "finally: print({'starlette', 'uvicorn', 'prometheus_client', 'jv5kit.server'} & set(sys.modules))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), cwd=built, check=True
    )
    assert outcome.stdout.splitlines()[-1] == "set()"
