"""One log line for each response: method, path, status, kind of problem, and duration.

Ray Serve's own access log names the route of the application, which is the same for all requests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..problems import KIND_HEADER

logger = logging.getLogger("ray.serve")

MAX_PATH = 200
"""Longest path in a line, characters; the rest is cut off."""
CLIENT_CLOSED_REQUEST = 499
"""Status in the log, as nginx has it, of a request whose client did not wait."""


def with_access_log(app: ASGIApp) -> ASGIApp:
    """`app`, with a log line for each of its responses."""

    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        began = time.perf_counter()
        status, kind = CLIENT_CLOSED_REQUEST, None

        async def send_observed(message: Message) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status, kind = message["status"], Headers(raw=message["headers"]).get(KIND_HEADER)
            await send(message)

        try:
            await app(scope, receive, send_observed)
        except Exception:
            status = 500
            raise
        finally:
            log_response(scope, status, kind, began)

    return logged


def log_response(scope: Mapping[str, Any], status: int, kind: str | None, began: float) -> None:
    """Write the line of one response, without the query, which may hold secrets.

    began: `time.perf_counter` when the request came.
    """
    method, path = scope.get("method", "-"), quote(scope.get("path", "-")[:MAX_PATH], errors="replace")
    ms = round((time.perf_counter() - began) * 1000, 1)
    fields = {"method": method, "path": path, "status": status, "kind": kind, "ms": ms}
    # Without one, Serve's own log filter adds the id that it made.
    if request_id := dict(scope["headers"]).get(b"x-request-id"):
        fields["request_id"] = request_id.decode("latin-1")
    logger.info(" ".join([method, path, str(status), *([kind] if kind else []), f"{ms} ms"]), extra=fields)
