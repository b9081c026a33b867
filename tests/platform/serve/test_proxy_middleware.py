"""Middleware of Serve's HTTP proxy: no header of a client steers Serve, and its errors are problems."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from diffuir_platform.serve.api.error_handlers import add_handlers
from diffuir_platform.serve.problems import Problem
from diffuir_platform.serve.transport.access_log import with_access_log
from diffuir_platform.serve.transport.proxy_middleware import ProxyMiddleware

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class Behind:
    """Serve's server behind the middleware: records each request, and responds as `answer` does."""

    answer: ASGIApp
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = scope["headers"]
        more = scope["type"] == "http"
        while more:
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await self.answer(scope, receive, send)

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


def ask(
    behind: Behind, headers: Headers = (), method: str = "POST", body: Sequence[bytes] = (b"",), **more: Any
) -> list[dict[str, Any]]:
    """The messages that are sent in response to a request."""
    sent: list[dict[str, Any]] = []
    parts = list(body)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/", "headers": list(headers), **more}
    asyncio.run(ProxyMiddleware(behind)(scope, receive, send))
    return sent


def problem(sent: list[dict[str, Any]], status: int, kind: str) -> dict[bytes, bytes]:
    """Check that the response is a problem; returns its headers."""
    start, body = sent
    headers = dict(start["headers"])
    told = json.loads(body["body"])
    assert start["status"] == told["status"] == status
    assert headers[b"content-type"] == b"application/problem+json"
    assert told["type"] == f"urn:diffuir:{kind}"
    assert told["request_id"] == headers[b"x-request-id"].decode() != ""
    assert told["title"]
    assert told["detail"]
    return headers


def fine() -> Behind:
    return Behind(Response(b"photo"))


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"x-session-id",
        b"x_session_id",
    ],
)
def test_no_header_of_a_client_steers_serve(name: bytes) -> None:
    behind = fine()
    ask(behind, [(b"accept", b"a"), (name, b"?1"), (b"authorization", b"b"), (name, b"\xff")])
    kept = [key for key, _ in behind.headers if key != b"x-request-id"]
    assert kept == [b"accept", b"authorization"]


def test_a_plain_request_id_is_kept() -> None:
    behind = fine()
    ask(behind, [(b"x-request-id", b"mine-1"), (b"x-request-id", b"mine-2")])
    assert behind.values(b"x-request-id") == [b"mine-1"]


@pytest.mark.parametrize("value", [b"", b"a b", b"\xff\xfe", b"a" * 129, b"a\tb"])
def test_an_id_that_cannot_be_written_everywhere_gives_way_to_one_that_can(value: bytes) -> None:
    behind = fine()
    ask(behind, [(b"x-request-id", value)])
    (given,) = behind.values(b"x-request-id")
    assert given != value
    assert given.isascii()
    assert given


def test_an_answer_goes_through_as_it_is() -> None:
    behind = fine()
    start, body = ask(behind, body=[b"one ", b"two"])
    assert behind.body == b"one two"
    assert (start["status"], body["body"]) == (200, b"photo")


def test_a_problem_of_the_api_goes_through_as_it_is() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        response = Problem(503, "busy-wait", "later", 7).response(Request(scope))
        response.headers["x-request-id"] = "mine"
        await response(scope, receive, send)

    headers = problem(ask(Behind(answer), [(b"x-request-id", b"mine")]), 503, "busy-wait")
    assert headers[b"retry-after"] == b"7"


NO_ROUTE = PlainTextResponse("Path '/v1/restore' not found. Ping http://.../-/routes", 404)


def test_what_serve_says_in_plain_text_becomes_a_problem() -> None:
    problem(ask(Behind(NO_ROUTE), path="*"), 404, "http")
    problem(ask(Behind(PlainTextResponse("timed out", 408))), 408, "http")


def test_where_the_application_is_not_there_the_answer_is_503_with_retry_after() -> None:
    """So it is while the endpoint shuts down: to a client a 404 would be final."""
    headers = problem(ask(Behind(NO_ROUTE), path="/v1/restore"), 503, "busy-server")
    assert int(headers[b"retry-after"]) > 0


def test_a_404_of_the_api_stays_one() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        response = Problem(404, "job", "there is no job with this id").response(Request(scope))
        response.headers["x-request-id"] = "mine"
        await response(scope, receive, send)

    problem(ask(Behind(answer), [(b"x-request-id", b"mine")]), 404, "job")


def test_where_no_gateway_is_there_the_answer_is_503_with_retry_after() -> None:
    headers = problem(ask(Behind(PlainTextResponse("unavailable", 503))), 503, "busy-server")
    assert int(headers[b"retry-after"]) > 0


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Send nothing, as Serve does where the process that had the request has died."""


async def _raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")


@pytest.mark.parametrize("answer", [_nothing, _raises, PlainTextResponse("Internal Server Error", 500)])
def test_a_request_that_was_lost_is_not_asked_for_again(
    answer: Callable[[Scope, Receive, Send], Awaitable[None]],
) -> None:
    """The process may have died because of its photo."""
    headers = problem(ask(Behind(answer)), 503, "lost")
    assert b"retry-after" not in headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_a_body_that_has_no_meaning_is_not_kept(method: str) -> None:
    behind = fine()
    ask(behind, method=method, body=[b"x" * 100] * 100)
    assert behind.body == b""


def test_a_response_of_the_middleware_itself_has_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The line leaves out the query; responses of a gateway are in the gateway's log."""
    caplog.set_level(logging.INFO)
    ask(fine())
    assert caplog.records == []
    ask(
        Behind(NO_ROUTE),
        [(b"x-request-id", b"mine")],
        path="/v1/a\nb",
        query_string=b"token=secret",
    )
    (line,) = [record.__dict__ for record in caplog.records]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/a%0Ab", 503)
    assert (line["kind"], line["request_id"]) == ("busy-server", "mine")
    assert line["ms"] >= 0
    assert "secret" not in str(line)


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [("GET", "/none", 404, "nothing is at this path"), ("POST", "/one", 405, "does not support the method")],
)
def test_what_no_route_takes_is_told_in_a_sentence(method: str, path: str, status: int, told: str) -> None:
    app = FastAPI()
    add_handlers(app)

    @app.get("/one")
    async def one() -> None: ...

    sent = ask(Behind(app), method=method, path=path, query_string=b"", raw_path=path.encode())
    assert sent[0]["status"] == status
    assert told in json.loads(sent[1]["body"])["detail"]


@pytest.mark.parametrize("kind", [None, "damaged"])
def test_each_answer_of_a_gateway_has_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture, kind: str | None
) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        said = Problem(422, kind, "no").response(Request(scope)) if kind else Response(b"photo")
        await said(scope, receive, send)

    caplog.set_level(logging.INFO)
    ask(Behind(with_access_log(answer)), path="/v1/restore")
    (line,) = [record.__dict__ for record in caplog.records]
    assert (line["method"], line["path"], line["kind"]) == ("POST", "/v1/restore", kind)
    assert line["status"] == (422 if kind else 200)
    assert line["request_id"]


def test_a_request_whose_client_has_gone_has_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    caplog.set_level(logging.INFO)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(
            with_access_log(gone)({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None)
        )  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.__dict__["status"] == 499


def test_a_websocket_is_refused_as_a_problem() -> None:
    behind = fine()
    sent = ask(behind, type="websocket", extensions={"websocket.http.response": {}})
    assert behind.headers == []
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    problem(sent, 404, "http")
