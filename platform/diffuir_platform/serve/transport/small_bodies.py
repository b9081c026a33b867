"""Request bodies on their way through Ray Serve's proxy: small ones travel with the head, meaningless ones not at
all.

Serve's proxy hands a gateway the head, and the gateway asks the proxy for the body. That second call between the
two processes takes two milliseconds, mostly for bytes that came together with the head.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 2**18
"""Largest body that travels with its head, bytes."""
SECONDS_TO_ARRIVE = 0.01
"""Longest wait for such a body, seconds; later ones are fetched by the gateway."""
BODY_KEY = "diffuir.body"
"""Key of the ASGI scope that holds the body."""


async def body_into_scope(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """The scope with the body in it, if Content-Length says that it is small and it has arrived; else unchanged.

    Also returns the `receive` to go on with.
    """
    size = Headers(scope=scope).get("content-length", "")
    if not size.isdecimal() or int(size[:20]) > MAX_BODY:
        return scope, receive
    received: list[Message] = []
    try:
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            while not received or received[-1].get("more_body"):
                received.append(await receive())
    except TimeoutError:
        return scope, _replay(received, receive)
    if received[-1]["type"] != "http.request":
        return scope, _replay(received, receive)
    whole = b"".join(message.get("body", b"") for message in received)
    return {**scope, BODY_KEY: whole}, _replay([_body(b"")], receive)


def without_body(receive: Receive, instead: bytes = b"") -> Receive:
    """A `receive` that gives `instead` as the body and drops the real one, which Serve would keep in memory."""

    async def rest() -> Message:
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return _replay([_body(instead)], rest)


class BodyFromScope:
    """ASGI middleware: hands `app` a body that is in the scope as if it had been received."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = scope.pop(BODY_KEY, None)
        if body is not None:
            receive = without_body(receive, instead=body)
        await self._app(scope, receive, send)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """A `receive` that gives `messages` first."""

    async def replayed() -> Message:
        return messages.pop(0) if messages else await receive()

    return replayed


def _body(data: bytes) -> Message:
    return {"type": "http.request", "body": data, "more_body": False}
