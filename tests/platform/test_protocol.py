"""What is no body is bounded: heads, trailers, and the lines between chunks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from diffuir_platform.serve.protocol import MOST, BoundedProtocol, install

START = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKS = START + b"Transfer-Encoding: chunked\r\n\r\n"


class Wire(asyncio.Transport):
    """What went out, and whether it was closed."""

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


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """With the number of bytes of the body, once they are all there."""
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message.get("body", b""))
        more = message.get("more_body", False)
    await Response(str(total))(scope, receive, send)


def talk(
    pieces: Sequence[bytes], app: Callable[[Scope, Receive, Send], Awaitable[None]] = answer
) -> tuple[Wire, int]:
    """What became of a connection on which these come, and how many of them were read."""

    async def run() -> tuple[Wire, int]:
        config = Config(app, lifespan="off", log_config=None)
        wire, read = Wire(), 0
        protocol = BoundedProtocol(config, ServerState(), {})
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
    assert read * len(piece) <= MOST + 3 * len(piece)
    head, _, body = wire.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"content-type: application/problem+json" in head
    assert f"content-length: {len(body)}".encode() in head
    problem = json.loads(body)
    assert (problem["status"], problem["type"]) == (431, "urn:diffuir:head")
    assert problem["request_id"].encode() in head


@pytest.mark.parametrize(
    ("start", "piece"),
    [(CHUNKS + b"0\r\n", b"X: y\r\n" * 200), (CHUNKS + b"5;", b"a" * 1000)],
    ids=["trailers", "line"],
)
def test_what_goes_on_beside_a_body_ends_the_connection(start: bytes, piece: bytes) -> None:
    wire, read = talk([start, *[piece] * 1000])
    assert wire.closed
    assert read * len(piece) <= MOST + 3 * len(piece)


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
    install()
    config = Config(answer, log_config=None)
    config.load()
    assert config.http_protocol_class is BoundedProtocol
