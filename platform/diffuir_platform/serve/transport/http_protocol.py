"""uvicorn's HTTP with a bound on what is no body: heads, trailers, and the lines between chunks.

uvicorn has a bound for its slower parser only. With the one that it prefers, a header that never ends fills the
memory of the process and, since it is put together anew with each piece, takes its time from all other requests.
And what uvicorn itself refuses, in plain text, is told in the API's shape.
"""

from __future__ import annotations

import time

from starlette.requests import HTTPConnection
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..problems import Problem
from .access_log import log_answer
from .headers import headers_for_serve, with_id

MOST = 2**16
"""Bytes that may come without completing a head and without any of a body."""
TOO_LONG = Problem(431, "head", f"the head of the request has more than the {MOST:,} bytes that are allowed")
NO_HTTP = Problem(400, "http", "what came can't be read as an HTTP request")


def install_protocol() -> None:
    """Let every server of this process that names no other be of this kind."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _since = 0
    url = b""  # uvicorn sets it only where a request begins

    def data_received(self, data: bytes) -> None:
        self._since += len(data)
        super().data_received(data)
        if self._since > MOST and not self.transport.is_closing():
            self._refuse(TOO_LONG)

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this for what its parser does not take."""
        self._refuse(TOO_LONG if len(self.url) > MOST else NO_HTTP)

    def on_headers_complete(self) -> None:
        self._since = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._since = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._since = 0
        super().on_message_complete()

    def _refuse(self, problem: Problem) -> None:
        cycle = self.cycle
        # Not into the middle of an answer, which with a pipeline may be an earlier one's.
        if not self.pipeline and (cycle is None or cycle.response_complete or not cycle.response_started):
            self.transport.write(refusal(problem))
        self.transport.close()


def refusal(problem: Problem) -> bytes:
    """The whole answer to what never becomes a request."""
    request = HTTPConnection({"type": "http", "headers": headers_for_serve([])})
    response = with_id(problem.response(request), request)
    log_answer(request.scope, problem.status, problem.kind, time.perf_counter())
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body)
