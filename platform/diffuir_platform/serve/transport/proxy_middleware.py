"""What stands before Ray Serve's own HTTP server, in its process.

No header of a client's steers Serve: some would take a request's time limit away, keep a restore going for nobody,
or end in a 500. And what Serve itself refuses is told in the API's shape.
"""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..problems import MEDIA_TYPE, OF_HTTP, Problem
from .access_log import log_answer
from .headers import headers_for_serve, with_id
from .http_protocol import install_protocol
from .small_bodies import with_body, without_body

logger = logging.getLogger("ray.serve")

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "DELETE")
_OF_SERVER: dict[int, tuple[str, str, int | None]] = {
    404: ("http", OF_HTTP[404], None),
    500: ("lost", "the process that had it has ended, perhaps of this photo", None),
    503: ("busy-server", "no process takes requests at present: send it again", 1),
}
"""Of Serve's own statuses: kind, detail and seconds to wait. Serve itself says 500 of a process that died."""


def middlewares() -> list[Middleware]:
    """Serve calls this before it starts its server, where `commands.FOR_SERVE` is in its environment."""
    install_protocol()
    return [Middleware(Front)]


class Front:
    """An ASGI application before `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        scope = {**scope, "headers": headers_for_serve(scope["headers"])}
        if scope["type"] != "http":
            refusal = Problem(404, "http", "there are no websockets here")
            return await _refuse(refusal, scope, receive, send, began)
        answered = False
        problem: Problem | None = None

        async def answer(message: Message) -> None:
            nonlocal answered, problem
            if message["type"] == "http.response.start":
                problem = problem_of(message, scope["path"])
            if problem is None:
                answered = True
                await send(message)

        try:
            if scope["method"] in _WITHOUT_BODY:
                receive = without_body(receive)
            else:
                scope, receive = await with_body(scope, receive)
            await self._app(scope, receive, answer)
        except Exception:
            logger.exception("a request failed in Serve's HTTP server")
        if not answered:
            await _refuse(problem or _problem(500), scope, receive, send, began)


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send, began: float) -> None:
    request = HTTPConnection(scope)
    await with_id(problem.response(request), request)(scope, receive, send)
    log_answer(scope, problem.status, problem.kind, began)


def problem_of(start: Message, path: str) -> Problem | None:
    """What to answer instead of an answer that begins so, if anything."""
    headers = Headers(raw=start["headers"])
    if start["status"] < 400 or headers.get("content-type") == MEDIA_TYPE:
        return None
    # The gateways have every path: Serve finds none for it where they are not there yet, or no more.
    no_gateway = start["status"] == 404 and path.startswith("/")
    return _problem(503 if no_gateway else start["status"])


def _problem(status: int) -> Problem:
    kind, detail, retry_after = _OF_SERVER.get(status, ("http", "it was refused", None))
    return Problem(503 if status == 500 else status, kind, detail, retry_after)
