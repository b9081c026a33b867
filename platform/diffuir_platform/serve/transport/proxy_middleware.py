"""Middleware of Ray Serve's HTTP proxies, in their processes.

No header of a client steers Serve: some would switch a request's time limit off, keep a restore running for a
client that has gone, or end in a 500. And what Serve itself refuses becomes a problem of the API.
"""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..problems import HTTP_DETAILS, MEDIA_TYPE, Problem
from .access_log import log_response
from .headers import headers_for_serve, with_request_id
from .http_protocol import install_protocol
from .small_bodies import body_into_scope, without_body

logger = logging.getLogger("ray.serve")

_METHODS_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "DELETE")
_SERVE_PROBLEMS: dict[int, tuple[str, str, int | None]] = {
    404: ("http", HTTP_DETAILS[404], None),
    500: ("lost", "the process that handled the request has ended, perhaps because of this photo", None),
    503: ("busy-server", "no process accepts requests at present: send it again", 1),
}
"""Kind, detail and Retry-After in seconds for the statuses that Serve itself sends. It sends 500 where the process
that handled a request has died."""


def middlewares() -> list[Middleware]:
    """The middlewares of this process; Serve calls this before it starts its server.

    `commands.SERVE_ENVIRONMENT` names it in the environment.
    """
    install_protocol()
    return [Middleware(ProxyMiddleware)]


class ProxyMiddleware:
    """ASGI middleware: clean headers in, problems of the API out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        scope = {**scope, "headers": headers_for_serve(scope["headers"])}
        if scope["type"] != "http":
            refusal = Problem(404, "http", "this server has no websockets: use HTTP, see /openapi.json")
            return await _respond(refusal, scope, receive, send, began)
        has_responded = False
        problem: Problem | None = None

        async def send_checked(message: Message) -> None:
            nonlocal has_responded, problem
            if message["type"] == "http.response.start":
                problem = problem_instead(message, scope["path"])
            if problem is None:
                has_responded = True
                await send(message)

        try:
            if scope["method"] in _METHODS_WITHOUT_BODY:
                receive = without_body(receive)
            else:
                scope, receive = await body_into_scope(scope, receive)
            await self._app(scope, receive, send_checked)
        except Exception:
            logger.exception("a request failed in Ray Serve's HTTP proxy")
        if not has_responded:
            await _respond(problem or _serve_problem(500), scope, receive, send, began)


async def _respond(problem: Problem, scope: Scope, receive: Receive, send: Send, began: float) -> None:
    request = HTTPConnection(scope)
    await with_request_id(problem.response(request), request)(scope, receive, send)
    log_response(scope, problem.status, problem.kind, began)


def problem_instead(start: Message, path: str) -> Problem | None:
    """The problem to send instead of a response that starts with `start`; None to send the response itself."""
    headers = Headers(raw=start["headers"])
    if start["status"] < 400 or headers.get("content-type") == MEDIA_TYPE:
        return None
    # Gateways have a route for every path: Serve finds none where they have not started yet, or have ended.
    no_gateway = start["status"] == 404 and path.startswith("/")
    return _serve_problem(503 if no_gateway else start["status"])


def _serve_problem(status: int) -> Problem:
    kind, detail, retry_after = _SERVE_PROBLEMS.get(status, ("http", "Ray Serve refused the request", None))
    return Problem(503 if status == 500 else status, kind, detail, retry_after)
