"""Whatever a route raises, as a problem."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..gateway.admission import MEMORY, OPEN, WAIT, Refused
from ..problems import OF_HTTP, Problem

logger = logging.getLogger("ray.serve")

WHY = {
    OPEN: "as many requests are open as are allowed",
    MEMORY: "the memory for photos on their way is taken",
    WAIT: "it would have to wait longer than is allowed",
}
"""Of `Refused`."""


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


def of_refusal(refused: Refused) -> Problem:
    """What is told where there is no room."""
    why = WHY[refused.why]
    return Problem(
        503,
        f"busy-{refused.why}",
        f"{why}: send it again after {refused.retry_after} s",
        refused.retry_after,
    )
