"""Errors of the API, all in one shape: application/problem+json (RFC 9457) with the request's id."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from diffuir_core.imaging import ImageError, MissingExtraError, TooLargeError, UnknownFormatError

TITLES = {
    400: "Malformed request",
    401: "API key required",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Upload timed out",
    413: "Too large",
    415: "Unsupported image format",
    422: "Invalid photo or parameter",
    429: "Rate limit exceeded",
    431: "Request head too large",
    500: "Internal error",
    503: "Service unavailable",
    504: "Restore timed out",
}

HTTP_DETAILS = {
    404: "nothing is at this path: see /openapi.json for the paths of this API",
    405: "this path does not support the method: the header Allow lists those it does",
}
"""Details of the problems for requests that match no route."""

KIND_HEADER = "Diffuir-Problem"
MEDIA_TYPE = "application/problem+json"
MAX_REQUEST_ID = 128
"""Most characters of a request's id that a problem repeats."""


class ProblemBody(BaseModel):
    """The JSON of every error."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = Field(examples=["urn:diffuir:busy-wait"])
    """URN of the kind of error, for programs."""
    title: str
    """The status in words."""
    status: int
    """The HTTP status."""
    detail: str
    """One sentence: what went wrong, and what to do about it."""
    request_id: str
    """The request's id, which is also in X-Request-ID and in the server's log."""


class Problem(Exception):  # noqa: N818 - the name in RFC 9457
    """An error for the client.

    kind: the last word of the problem's type. detail: one sentence. retry_after: seconds after which the client
    may send the request again; None where it should not.
    """

    def __init__(self, status: int, kind: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after

    def response(self, request: HTTPConnection) -> JSONResponse:
        """The response to `request`."""
        headers = {"Cache-Control": "no-store", KIND_HEADER: self.kind}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = ProblemBody(
            type=f"urn:diffuir:{self.kind}",
            title=TITLES.get(self.status, "Error"),
            status=self.status,
            detail=self.detail,
            request_id=request.headers.get("x-request-id", "")[:MAX_REQUEST_ID],
        )
        return JSONResponse(body.model_dump(), self.status, headers, media_type=MEDIA_TYPE)


def image_problem(error: ImageError) -> Problem:
    """The problem for a photo that cannot be read, or not written as the request asks."""
    if isinstance(error, MissingExtraError):
        return Problem(
            415, "unknown-format", f"this server has no support for {error.format}: use another format"
        )
    if isinstance(error, UnknownFormatError):
        return Problem(415, "unknown-format", f"{error}: send one of those")
    if isinstance(error, TooLargeError):
        return Problem(413, "too-large", str(error))
    return Problem(422, "damaged", str(error))
