"""uvicorn's HTTP with a bound on what is no body: heads, trailers, and the lines between chunks.

uvicorn has one for its slower parser only. With the one that it prefers, a header that never ends fills the memory
of the process and, since it is put together anew with each piece, takes its time from all other requests.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .front import headers_for_serve, with_id
from .problems import Problem

MOST = 2**16
"""Bytes that may come without completing a head and without any of a body."""


def install() -> None:
    """Let every server of this process that names no other be of this kind."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _since = 0

    def data_received(self, data: bytes) -> None:
        self._since += len(data)
        super().data_received(data)
        if self._since > MOST and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        self._since = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._since = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._since = 0
        super().on_message_complete()

    def _refuse(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(refusal())
        self.transport.close()


def refusal() -> bytes:
    """The whole answer to a head that is too long."""
    request = HTTPConnection({"type": "http", "headers": headers_for_serve([])})
    detail = f"the head of the request has more than the {MOST:,} bytes that are allowed"
    response = with_id(Problem(431, "head", detail).response(request), request)
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return STATUS_LINE[431] + lines + b"\r\n" + bytes(response.body)
