"""Bodies on their way through Serve's proxy: a small one goes with its request's head, a senseless one not at all.

Serve's proxy hands a gateway the head, and the gateway asks the proxy for the body: a call more between two
processes, two milliseconds, for what has mostly arrived with the head.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST = 2**18
"""Bytes that go with a head."""
SECONDS = 0.01
"""That they are waited for."""
KEY = "diffuir.body"
"""Of the scope."""


async def with_body(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """The scope with the body in it, if that says that it is small and is there already; and what comes then."""
    size = Headers(scope=scope).get("content-length", "")
    if not size.isdecimal() or int(size[:20]) > MOST:
        return scope, receive
    came: list[Message] = []
    try:
        async with asyncio.timeout(SECONDS):
            while not came or came[-1].get("more_body"):
                came.append(await receive())
    except TimeoutError:
        return scope, _first(came, receive)
    if came[-1]["type"] != "http.request":
        return scope, _first(came, receive)
    whole = b"".join(message.get("body", b"") for message in came)
    return {**scope, KEY: whole}, _first([_body(b"")], receive)


def without_body(receive: Receive, instead: bytes = b"") -> Receive:
    """`instead` for a body, whatever comes: Serve would keep all of it until the answer is there."""

    async def rest() -> Message:
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return _first([_body(instead)], rest)


class Unpacked:
    """An ASGI application before `app`, which gets a body in the scope as if it had come by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = scope.pop(KEY, None)
        if body is not None:
            receive = without_body(receive, instead=body)
        await self._app(scope, receive, send)


def _first(messages: list[Message], receive: Receive) -> Receive:
    """`messages`, and then what `receive` gives."""

    async def received() -> Message:
        return messages.pop(0) if messages else await receive()

    return received


def _body(data: bytes) -> Message:
    return {"type": "http.request", "body": data, "more_body": False}
