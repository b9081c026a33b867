"""Every error of the API in one shape: application/problem+json (RFC 9457) with the request's id."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from diffuir_core.imaging import ImageError, TooLargeError, UnknownFormatError

TITLES = {
    400: "The request is malformed",
    401: "An API key is needed",
    403: "That is not allowed here",
    404: "There is no such thing",
    405: "That method is not for this",
    408: "The body did not arrive in time",
    413: "That is too large",
    415: "That is no photo",
    422: "That can't be restored",
    429: "Too many requests of this key",
    431: "The head of the request is too long",
    500: "The restore failed",
    503: "There is no room at present",
    504: "It took too long",
}

OF_HTTP = {
    404: "there is nothing at this path: see /openapi.json for what there is",
    405: "this path does not take that method: the header Allow names those it takes",
}
"""What is told where no route is found."""

KIND_HEADER = "Diffuir-Problem"
MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it so
    """What the client is told: a status, one sentence, and a word that programs can tell it by."""

    def __init__(self, status: int, kind: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after

    def response(self, request: HTTPConnection) -> JSONResponse:
        """What goes out."""
        headers = {"Cache-Control": "no-store", KIND_HEADER: self.kind}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = {
            "type": f"urn:diffuir:{self.kind}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "request_id": request.headers.get("x-request-id", "")[:128],
        }
        return JSONResponse(body, self.status, headers, media_type=MEDIA_TYPE)


def of_image(error: ImageError) -> Problem:
    """What is told of a photo that cannot be read, or written as was asked."""
    if isinstance(error, UnknownFormatError):
        return Problem(415, "unknown-format", f"{error}: send one of those")
    if isinstance(error, TooLargeError):
        return Problem(413, "too-large", str(error))
    return Problem(422, "damaged", str(error))
