"""Bodies on their way through Serve's proxy: in whatever pieces they arrive, the gateway gets the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from diffuir_platform.serve.transport.small_bodies import (
    BODY_KEY,
    MAX_BODY,
    SECONDS_TO_ARRIVE,
    BodyFromScope,
    body_into_scope,
)

GONE: Message = {"type": "http.disconnect"}


def parts(*bodies: bytes) -> list[Message]:
    more = [True] * (len(bodies) - 1) + [False]
    return [{"type": "http.request", "body": b, "more_body": m} for b, m in zip(bodies, more, strict=True)]


def through(
    messages: Sequence[Message], length: int | None = None, pauses: Sequence[float] = ()
) -> tuple[Scope, list[Message]]:
    """The scope that goes to a gateway, and all messages that the gateway receives.

    pauses: seconds before each message.
    """
    coming, waits = [*messages, GONE], list(pauses)
    given: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(waits.pop(0) if waits else 0)
        return coming.pop(0)

    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        given.append(await receive())
        while given[-1]["type"] != "http.disconnect":
            given.append(await receive())

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async def go() -> Scope:
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        scope, rest = await body_into_scope({"type": "http", "headers": headers}, receive)
        seen = dict(scope)
        await BodyFromScope(gateway)(scope, rest, send)
        assert BODY_KEY not in scope
        return seen

    return asyncio.run(go()), given


def body_of(given: Sequence[Message]) -> bytes:
    assert [message.get("more_body") for message in given[:-1]][-1] is False
    return b"".join(message["body"] for message in given[:-1])


@pytest.mark.parametrize("messages", [parts(b"pixels"), parts(b"pix", b"els"), parts(b"pixels", b"")])
def test_a_small_body_that_is_there_goes_with_the_head(messages: list[Message]) -> None:
    scope, given = through(messages, length=6)
    assert scope[BODY_KEY] == b"pixels"
    assert given == [*parts(b"pixels"), GONE]


@pytest.mark.parametrize("length", [None, MAX_BODY + 1])
def test_what_is_large_or_does_not_say_its_size_comes_by_itself(length: int | None) -> None:
    messages = parts(b"pix", b"els")
    scope, given = through(messages, length)
    assert BODY_KEY not in scope
    assert given == [*messages, GONE]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_is_slow_comes_by_itself_and_whole(at: int) -> None:
    pauses: list[float] = [0, 0, 0]
    pauses[at] = 5 * SECONDS_TO_ARRIVE
    scope, given = through(parts(b"p", b"ixe", b"ls"), 6, pauses)
    assert BODY_KEY not in scope
    assert body_of(given) == b"pixels"


def test_a_client_that_goes_meanwhile_is_seen_to_go() -> None:
    scope, given = through(parts(b"pix", b"els")[:1], 6)
    assert BODY_KEY not in scope
    assert given == [*parts(b"pix", b"els")[:1], GONE]


@pytest.mark.parametrize("length", ["", "-1", "six", "6, 6", "٦", "9" * 5000])
def test_a_length_that_is_none_changes_nothing(length: str) -> None:
    async def receive() -> Message:
        raise AssertionError("it was read")

    scope: dict[str, Any] = {"type": "http", "headers": [(b"content-length", length.encode())]}
    assert asyncio.run(body_into_scope(scope, receive)) == (scope, receive)
