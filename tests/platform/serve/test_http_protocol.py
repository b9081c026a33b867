"""Everything but bodies is limited (heads, trailers, the lines between chunks), and invalid HTTP is a problem."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from diffuir_platform.serve.transport.http_protocol import MAX_HEAD, LimitedProtocol, install_protocol

START = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKS = START + b"Transfer-Encoding: chunked\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that records what was sent, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the number of bytes of the body, once all have arrived."""
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message.get("body", b""))
        more = message.get("more_body", False)
    await Response(str(total))(scope, receive, send)


def talk(
    pieces: Sequence[bytes], app: Callable[[Scope, Receive, Send], Awaitable[None]] = respond
) -> tuple[Wire, int]:
    """A connection after it received `pieces`, and how many of them were read."""

    async def run() -> tuple[Wire, int]:
        config = Config(app, lifespan="off", log_config=None)
        wire, read = Wire(), 0
        protocol = LimitedProtocol(config, ServerState(), {})
        protocol.connection_made(wire)
        for piece in pieces:
            if wire.closed:
                break
            protocol.data_received(piece)
            read += 1
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return wire, read

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (START + b"X-A: ", b"a" * 1000),
        (START, b"X: y\r\n" * 200),
        (b"POST /", b"a" * 1000),
        (b"", b"\r\n" * 500),
    ],
    ids=["header", "headers", "path", "nothing"],
)
def test_a_head_that_does_not_end_is_431_and_the_end(start: bytes, piece: bytes) -> None:
    wire, read = talk([start, *[piece] * 1000])
    assert wire.closed
    assert read * len(piece) <= MAX_HEAD + 3 * len(piece)
    refused(wire, 431, "head")


def refused(wire: Wire, status: int, kind: str) -> None:
    """Check that the response is a problem, and the connection closed."""
    assert wire.closed
    head, _, body = wire.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json" in head
    assert f"content-length: {len(body)}".encode() in head
    problem = json.loads(body)
    assert (problem["status"], problem["type"]) == (status, f"urn:diffuir:{kind}")
    assert f"x-request-id: {problem['request_id']}".encode() in head.lower()
    assert problem["request_id"]


@pytest.mark.parametrize(
    "sent",
    [
        b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
        START + b"Content-Length: 99999999999999999999\r\n\r\n",
        START + b"Content-Length: -1\r\n\r\n",
        START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKS + b"no number\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["method", "length", "negative", "two lengths", "length and chunks", "chunk", "connect", "tls"],
)
def test_what_is_no_request_is_a_problem_too(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wire, _ = talk([sent])
    refused(wire, 400, "http")
    assert b"HTTP/1.1" not in wire.sent[9:], "only one response"
    (line,) = [record for record in caplog.records if record.name == "ray.serve"]
    assert (line.__dict__["status"], line.__dict__["kind"]) == (400, "http")


def test_a_url_that_is_too_long_is_a_head_that_is() -> None:
    wire, _ = talk([b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"])
    refused(wire, 431, "head")


def test_nothing_is_put_into_the_middle_of_an_answer() -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.sleep(1)

    wire, _ = talk([START + b"Content-Length: 0\r\n\r\n", b"FOO / HTTP/1.1\r\n\r\n"], half)
    assert wire.closed
    assert wire.sent.endswith(b"4\r\nhalf\r\n")


@pytest.mark.parametrize(
    ("start", "piece"),
    [(CHUNKS + b"0\r\n", b"X: y\r\n" * 200), (CHUNKS + b"5;", b"a" * 1000)],
    ids=["trailers", "line"],
)
def test_what_goes_on_beside_a_body_ends_the_connection(start: bytes, piece: bytes) -> None:
    wire, read = talk([start, *[piece] * 1000])
    assert wire.closed
    assert read * len(piece) <= MAX_HEAD + 3 * len(piece)


def test_a_long_body_is_no_head() -> None:
    wire, read = talk([START + b"Content-Length: 1000000\r\n\r\n", *[b"a" * 1000] * 1000])
    assert read == 1001
    assert wire.sent.endswith(b"\r\n\r\n1000000")


def test_a_long_body_in_small_chunks_is_no_head() -> None:
    wire, _ = talk([CHUNKS, *[b"1\r\na\r\n"] * 20_000, b"0\r\n\r\n"])
    assert wire.sent.endswith(b"\r\n\r\n20000")


def test_many_requests_on_one_connection_are_no_head() -> None:
    request = START + b"X-A: " + b"a" * 1000 + b"\r\nContent-Length: 0\r\n\r\n"
    wire, _ = talk([request] * 200)
    assert wire.sent.count(b"200 OK") > 100
    assert b"431" not in wire.sent


def test_servers_of_this_process_are_of_this_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    from uvicorn.config import HTTP_PROTOCOLS

    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    install_protocol()
    config = Config(respond, log_config=None)
    config.load()
    assert config.http_protocol_class is LimitedProtocol
