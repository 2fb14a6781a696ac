"""What a client may do, and what becomes of it: 401, 408, 429, 504, a client that goes away, and a server that ends."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from serving import error_of, eventually, held, metric, running

from jv5kit.server.limits import Limits, is_loopback
from jv5kit.server.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jv5kit import Encoder

BODY = {"model": "tiny", "input": "a penguin swims"}


class Door:
    """Closed, it keeps the encoder from encoding."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.batches = 0

    def __call__(self, _: Sequence[Sequence[int]]) -> None:
        self.batches += 1
        assert self.opened.wait(60)


@pytest.fixture
def door() -> Door:
    return Door()


def post(url: str, **fields: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/embeddings", json=BODY | fields, timeout=60)


@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer wrong", "Bearer sécret", "Basic secret", "secret", "Bearer secre"]
)
def test_without_the_key(encoder: Encoder, given: str | None) -> None:
    with running(Service(encoder), key="secret") as url:
        headers = {} if given is None else {b"Authorization": given.encode()}
        for path in ("/v1/models", "/v1/models/tiny", "/v1/index", "/metrics"):
            assert httpx.get(url + path, headers=headers).status_code == 401
        for path in ("/v1/embeddings", "/v1/search"):
            response = httpx.post(url + path, json=BODY, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            error = error_of(response)
            assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
            assert error["message"].endswith("send the header 'Authorization: Bearer KEY'")
        for path in ("/", "/health", "/ready", "/openapi.json"):
            assert httpx.get(url + path).status_code == 200


def test_with_the_key(encoder: Encoder) -> None:
    with running(Service(encoder), key="sécret") as url:
        headers = {b"Authorization": "bearer sécret".encode()}
        assert httpx.post(f"{url}/v1/embeddings", json=BODY, headers=headers).status_code == 200
        assert httpx.get(f"{url}/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_which_addresses_are_those_of_this_machine_alone(host: str, own: bool) -> None:
    assert is_loopback(host) == own


def test_a_full_queue_is_429_and_what_was_accepted_is_answered(encoder: Encoder, door: Door) -> None:
    service = Service(held(encoder, door), limits=Limits(queue_tokens=40, batch_tokens=8))
    with running(service) as url, ThreadPoolExecutor(40) as pool:
        sent = [pool.submit(post, url) for _ in range(40)]
        eventually(lambda: sum(one.done() for one in sent) >= 25)
        door.opened.set()
        answers = [one.result() for one in sent]
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        error = error_of(refused)
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert "tokens wait to be encoded, and there is no room for more; try again in" in error["message"]
        assert metric(url, "jv5kit_requests_total", route="/v1/embeddings", code="429") == codes.count(429)
        assert post(url).status_code == 200


def test_too_many_requests_at_a_time(encoder: Encoder, door: Door) -> None:
    service = Service(held(encoder, door), limits=Limits(requests=3))
    with running(service) as url, ThreadPoolExecutor(3) as pool:
        sent = [pool.submit(post, url) for _ in range(3)]
        eventually(lambda: service.admission.requests == 3)
        response = post(url)
        assert response.status_code == 429
        assert "3 requests are being answered, which is as many as this server takes" in error_of(response)["message"]
        assert httpx.get(f"{url}/health").status_code == 200
        door.opened.set()
        assert [one.result().status_code for one in sent] == [200, 200, 200]
        eventually(lambda: service.admission.requests == 0)


def test_bodies_that_are_too_long_together(encoder: Encoder, door: Door) -> None:
    limits = Limits(body_bytes=10_000)
    service = Service(held(encoder, door), limits=limits)
    texts = ["a penguin " * 90] * 9
    with running(service) as url, ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(post, url, input=texts, truncate=True) for _ in range(8)]
        eventually(lambda: sum(one.done() for one in sent) == 4)
        door.opened.set()
        refused = [one.result() for one in sent if one.result().status_code != 200]
        assert [response.status_code for response in refused] == [429] * 4
        assert "bytes are being answered; try again in 1 s" in error_of(refused[0])["message"]
        eventually(lambda: service.admission.body_bytes == 0)
        assert post(url).status_code == 200


def test_the_deadline(encoder: Encoder, door: Door) -> None:
    service = Service(held(encoder, door), limits=Limits(deadline=0.3))
    with running(service) as url, ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        sent = [pool.submit(post, url), pool.submit(post, url, dimensions=8)]
        answers = [one.result() for one in sent]
        assert time.monotonic() - began < 5
        assert [answer.status_code for answer in answers] == [504, 504]
        error = error_of(answers[0])
        assert (error["type"], error["code"]) == ("server_error", "deadline_exceeded")
        assert "not done within 0.3 s and was dropped; send fewer texts at a time" in error["message"]
        door.opened.set()
        eventually(lambda: post(url).status_code == 200)
        # The one that waited was dropped: the batch of the first, and those of what came afterwards.
        assert metric(url, "jv5kit_batch_texts_count") == door.batches
        assert door.batches == 1 + metric(url, "jv5kit_requests_total", route="/v1/embeddings", code="200")


def test_the_work_of_a_client_that_went_away_is_dropped(encoder: Encoder, door: Door) -> None:
    service = Service(held(encoder, door))
    with running(service) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url)
        eventually(lambda: door.batches == 1)
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            body = b'{"model": "tiny", "input": ["one", "two"]}'
            client.sendall(
                b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            eventually(lambda: metric(url, "jv5kit_queue_requests") == 1)
            assert metric(url, "jv5kit_queue_tokens") > 0
        eventually(lambda: metric(url, "jv5kit_queue_requests") == 0)
        assert metric(url, "jv5kit_queue_tokens") == 0
        door.opened.set()
        assert first.result().status_code == 200
        assert door.batches == 1
        assert metric(url, "jv5kit_requests_total", route="/v1/embeddings", code="499") == 1


def test_a_client_that_goes_away_while_it_sends(encoder: Encoder) -> None:
    with running(Service(encoder)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            eventually(lambda: metric(url, "jv5kit_requests_in_flight") == 1)
        eventually(lambda: metric(url, "jv5kit_requests_in_flight") == 0)
        assert metric(url, "jv5kit_requests_total", route="/v1/embeddings", code="499") == 1


def test_a_body_that_does_not_come(encoder: Encoder) -> None:
    with running(Service(encoder, limits=Limits(deadline=0.3))) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            answer = b""
            while b"}}" not in answer and (part := client.recv(4096)):
                answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come within 0.3 s" in answer


def test_metrics(encoder: Encoder) -> None:
    with running(Service(encoder)) as url:
        for _ in range(3):
            assert post(url, input=["a", "b"]).status_code == 200
        assert post(url, input=[]).status_code == 400
        httpx.get(f"{url}/made/up")
        assert metric(url, "jv5kit_requests_total", route="/v1/embeddings", code="200") == 3
        assert metric(url, "jv5kit_requests_total", route="/v1/embeddings", code="400") == 1
        assert metric(url, "jv5kit_requests_total", route="other", code="404") == 1
        assert metric(url, "jv5kit_request_seconds_count", route="/v1/embeddings") == 4
        assert metric(url, "jv5kit_batch_texts_count") == 3
        assert metric(url, "jv5kit_batch_texts_sum") == 6
        # [CLS] document : a [SEP]
        assert metric(url, "jv5kit_batch_tokens_sum") == 3 * 2 * 5
        assert metric(url, "jv5kit_encoding_seconds_total") > 0
        assert metric(url, "jv5kit_queue_tokens") == metric(url, "jv5kit_requests_in_flight") == 0


def test_a_failure_of_the_server_is_logged_and_told(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Sequence[Sequence[int]]) -> None:
        raise RuntimeError("a broken wire")

    with running(Service(held(encoder, fail))) as url:
        response = post(url)
        assert response.status_code == 500
        assert error_of(response)["message"] == "the server failed; its log says why"
        assert "a broken wire" in caplog.text


def test_ready_until_it_drains(encoder: Encoder) -> None:
    service = Service(encoder)
    with running(service) as url:
        assert httpx.get(f"{url}/ready").json() == {"status": "ready"}
        service.draining = True
        response = httpx.get(f"{url}/ready")
        assert (response.status_code, response.json()) == (503, {"status": "draining"})
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
