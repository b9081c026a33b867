"""uvicorn's HTTP with a limit on everything but bodies: heads, trailers, and the lines between chunks.

uvicorn limits them only with the slower of its two parsers. With the one that it prefers, a header that never ends
fills the memory of the process, and since it is copied with each piece, it takes the time of all other
requests. And what uvicorn itself refuses in plain text becomes a problem of the API.
"""

from __future__ import annotations

import time

from starlette.requests import HTTPConnection

from ...runtime.private import http_connection, set_http_protocol
from ..problems import Problem
from .access_log import log_response
from .headers import headers_for_serve, with_request_id

MAX_HEAD = 2**16
"""Most bytes that may come without completing a head and without being part of a body."""
HEAD_TOO_LARGE = Problem(
    431, "head", f"the request's head is larger than {MAX_HEAD:,} bytes: send fewer or shorter headers"
)
INVALID_HTTP = Problem(400, "http", "the data is not a valid HTTP request")


def install_protocol() -> None:
    """Have every uvicorn server of this process that names no other protocol use this one."""
    set_http_protocol(f"{__name__}:{LimitedProtocol.__name__}")


class LimitedProtocol(http_connection()):  # type: ignore[misc]
    """One connection; closed once it has sent `MAX_HEAD` bytes that are no part of a body."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not accept; uvicorn calls this."""
        self._refuse(HEAD_TOO_LARGE if self.target_bytes > MAX_HEAD else INVALID_HTTP)

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def _refuse(self, problem: Problem) -> None:
        # Not into the middle of another response, which with a pipeline may be an earlier request's.
        if not self.is_responding:
            self.write_response(problem.status, *refusal(problem))
        self.transport.close()


def refusal(problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body of the response to data that never becomes a request; logs it."""
    request = HTTPConnection({"type": "http", "headers": headers_for_serve([])})
    response = with_request_id(problem.response(request), request)
    log_response(request.scope, problem.status, problem.kind, time.perf_counter())
    return [*response.raw_headers, (b"connection", b"close")], bytes(response.body)
