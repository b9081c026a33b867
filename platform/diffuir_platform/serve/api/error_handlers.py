"""Handlers that turn every exception of a route into a problem."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..gateway.admission import LimitError
from ..problems import HTTP_DETAILS, Problem

logger = logging.getLogger("ray.serve")

LIMITS = {
    "open": "as many requests are open as this server allows",
    "memory": "the memory for photos under way is full",
    "wait": "the photo would wait longer for a model than this server allows",
}
"""Description of each limit that `LimitError` names."""


def add_handlers(app: FastAPI) -> None:
    """Make `app` respond with a problem to whatever its routes raise."""

    async def on_problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response(request)

    async def on_limit(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LimitError)
        return limit_problem(error).response(request)

    async def on_invalid_query(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return Problem(422, "parameter", validation_message(error.errors()[0])).response(request)

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        detail = HTTP_DETAILS.get(error.status_code, str(error.detail))
        response = Problem(error.status_code, "http", detail).response(request)
        response.headers.update(error.headers or {})
        return response

    async def on_disconnect(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nginx's status for a client that has gone; only the log gets it

    async def on_fault(request: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed", exc_info=error)
        detail = "the server failed: its log has the reason under this request's id"
        return Problem(500, "fault", detail).response(request)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(LimitError, on_limit)
    app.add_exception_handler(RequestValidationError, on_invalid_query)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_fault)


def validation_message(error: Any) -> str:
    """One of pydantic's errors as a sentence that names the parameter."""
    parts = [str(part) for part in error["loc"] if part not in ("query", "body")]
    name = ".".join(parts)
    if error["type"] == "extra_forbidden":
        return f"there is no parameter {name[:64]!r}: see /openapi.json for those there are"
    if parts[1:] == ["str"]:  # the first of the types that it may have
        return f"{parts[0]}: give a string or a list of strings"
    message = error["msg"].removeprefix("Value error, ")
    return f"{name or 'the body'}: {message[0].lower()}{message[1:]}"


def limit_problem(error: LimitError) -> Problem:
    """The problem for a request that the gateway has no room for."""
    detail = f"{LIMITS[error.limit]}: send it again after {error.retry_after} s"
    return Problem(503, f"busy-{error.limit}", detail, error.retry_after)
