"""Headers of requests on their way to Ray Serve, and the id that every request has."""

from __future__ import annotations

import re
import uuid

from starlette.requests import HTTPConnection
from starlette.responses import Response

OF_SERVE = (
    b"x_request_timeout_seconds",
    b"x_request_disconnect_disabled",
    b"serve_multiplexed_model_id",
    b"x_session_id",
)
"""Headers that Serve takes for its own, however their words are joined."""
REQUEST_ID = b"x-request-id"
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def with_id(response: Response, request: HTTPConnection) -> Response:
    """With the request's id in a header, as Serve's own have it."""
    response.headers["X-Request-ID"] = request.headers["x-request-id"]
    return response


def headers_for_serve(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those that Serve may see: none of its own, and one id that is plain enough to be written anywhere."""
    ids = [value for name, value in headers if name == REQUEST_ID and _REQUEST_ID.fullmatch(value)]
    kept = [(name, value) for name, value in headers if name.replace(b"-", b"_") not in OF_SERVE]
    kept = [(name, value) for name, value in kept if name != REQUEST_ID]
    return [*kept, (REQUEST_ID, ids[0] if ids else str(uuid.uuid4()).encode())]
