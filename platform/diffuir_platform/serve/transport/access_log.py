"""One line of the log for each answer: what was asked, what came of it, and how long that took.

Serve's own lines name the route by which they found the application, which is the same for all of them.
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

LONGEST_PATH = 200
GONE = 499
"""nginx's word for a client that did not wait."""


def logged(app: ASGIApp) -> ASGIApp:
    """`app`, each of whose answers has its line."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        began = time.perf_counter()
        status, kind = GONE, None

        async def send_noted(message: Message) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status, kind = message["status"], Headers(raw=message["headers"]).get(KIND_HEADER)
            await send(message)

        try:
            await app(scope, receive, send_noted)
        except Exception:
            status = 500
            raise
        finally:
            log_answer(scope, status, kind, began)

    return answered


def log_answer(scope: Mapping[str, Any], status: int, kind: str | None, began: float) -> None:
    """Write the line; began: of `time.perf_counter`. What stands in a query is the client's own and left out."""
    method, path = scope.get("method", "-"), quote(scope.get("path", "-")[:LONGEST_PATH], errors="replace")
    ms = round((time.perf_counter() - began) * 1000, 1)
    what = {"method": method, "path": path, "status": status, "kind": kind, "ms": ms}
    # Where it is missing, Serve's own filter adds the one that it made.
    if request_id := dict(scope["headers"]).get(b"x-request-id"):
        what["request_id"] = request_id.decode("latin-1")
    logger.info(" ".join([method, path, str(status), *([kind] if kind else []), f"{ms} ms"]), extra=what)
