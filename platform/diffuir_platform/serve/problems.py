"""Every error of the API in one shape: application/problem+json (RFC 9457) with the request's id."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection

from diffuir_core.imaging import ImageError, TooLargeError, UnknownFormatError

from .admission import MEMORY, OPEN, WAIT, Refused

logger = logging.getLogger("ray.serve")

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

WHY = {
    OPEN: "as many requests are open as are allowed",
    MEMORY: "the memory for photos on their way is taken",
    WAIT: "it would have to wait longer than is allowed",
}
"""Of `Refused`."""

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


def of_refusal(refused: Refused) -> Problem:
    """What is told where there is no room."""
    why = WHY[refused.why]
    return Problem(
        503,
        f"busy-{refused.why}",
        f"{why}: send it again after {refused.retry_after} s",
        refused.retry_after,
    )


def add_handlers(app: FastAPI) -> None:
    """Let `app` answer with problems, whatever is raised."""

    async def of_problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response(request)

    async def of_refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return of_refusal(error).response(request)

    async def of_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return Problem(422, "parameter", sentence(error.errors()[0])).response(request)

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        detail = OF_HTTP.get(error.status_code, str(error.detail))
        response = Problem(error.status_code, "http", detail).response(request)
        response.headers.update(error.headers or {})
        return response

    async def of_nobody(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nginx's word for a client that has gone; nobody reads it

    async def of_anything(request: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed", exc_info=error)
        detail = "a fault of the server, which its log tells more of under this request's id"
        return Problem(500, "fault", detail).response(request)

    app.add_exception_handler(Problem, of_problem)
    app.add_exception_handler(Refused, of_refused)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(ClientDisconnect, of_nobody)
    app.add_exception_handler(Exception, of_anything)


def sentence(first: Any) -> str:
    """What pydantic says of one value, as one sentence that names it."""
    parts = [str(part) for part in first["loc"] if part not in ("query", "body")]
    name = ".".join(parts)
    if first["type"] == "extra_forbidden":
        return f"there is no parameter {name[:64]!r}: see /openapi.json for those there are"
    if parts[1:] == ["str"]:  # the first of the types that it may have
        return f"{parts[0]}: give a string or a list of strings"
    message = first["msg"].removeprefix("Value error, ")
    return f"{name or 'the body'}: {message[0].lower()}{message[1:]}"
