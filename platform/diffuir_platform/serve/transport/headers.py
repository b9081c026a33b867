"""Request headers that may reach Ray Serve, and the id of each request."""

from __future__ import annotations

import re
import uuid

from starlette.requests import HTTPConnection
from starlette.responses import Response

from ...runtime.private import SERVE_HEADERS

REQUEST_ID = b"x-request-id"
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def with_request_id(response: Response, request: HTTPConnection) -> Response:
    """`response` with the id of `request` in X-Request-ID, as Ray Serve's own responses have it."""
    response.headers["X-Request-ID"] = request.headers["x-request-id"]
    return response


def headers_for_serve(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`headers` without those that Ray Serve takes as instructions, and with exactly one request id.

    A client's id is kept if it is up to 128 printable ASCII characters, which can be written into any log.
    """
    ids = [value for name, value in headers if name == REQUEST_ID and _REQUEST_ID.fullmatch(value)]
    kept = [(name, value) for name, value in headers if name.replace(b"-", b"_") not in SERVE_HEADERS]
    kept = [(name, value) for name, value in kept if name != REQUEST_ID]
    return [*kept, (REQUEST_ID, ids[0] if ids else str(uuid.uuid4()).encode())]
