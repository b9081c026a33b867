"""Reading a request's body under limits while it streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import Request
from ray.exceptions import TaskCancelledError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ..problems import Problem
from .admission import Reservation

FORM = "multipart/form-data"
FORM_OVERHEAD = 2**14
"""Bytes that a form may have beside the photo."""
MAX_FIELDS = 100
"""Most fields of a form that are read, to name the first in the problem."""


async def read_photo(request: Request, limit: int, seconds: float, memory: Reservation) -> bytes:
    """The photo in a body: the body itself, or the one file of a multipart form.

    limit: largest photo, bytes. seconds: longest time for the body to arrive. memory: accounts for what has
    arrived. Raises `Problem` (400, 408, 413), `LimitError` where the gateway's memory is full, and
    ClientDisconnect.
    """
    is_form = request.headers.get("content-type", "").lower().startswith(FORM)
    limit += FORM_OVERHEAD if is_form else 0
    try:
        async with asyncio.timeout(seconds):
            if is_form:
                return await _file_of_form(request, limit, memory)
            return b"".join([chunk async for chunk in _limited_chunks(request, limit, memory)])
    except TimeoutError:
        raise _upload_timeout(seconds) from None


async def read_body(request: Request, limit: int, seconds: float, memory: Reservation) -> bytes:
    """The whole body; parameters and errors as in `read_photo`."""
    try:
        async with asyncio.timeout(seconds):
            return b"".join([chunk async for chunk in _limited_chunks(request, limit, memory)])
    except TimeoutError:
        raise _upload_timeout(seconds) from None


async def _limited_chunks(request: Request, limit: int, memory: Reservation) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > limit:
                raise _too_large(limit)
            memory.add(len(chunk))
            yield chunk
    except TaskCancelledError as error:  # Serve's proxy has lost the client and fetches nothing more
        raise ClientDisconnect from error


def _too_large(limit: int) -> Problem:
    detail = f"the body is larger than the {limit:,} bytes that this server accepts: send a smaller one"
    return Problem(413, "too-large", detail)


def _upload_timeout(seconds: float) -> Problem:
    detail = f"the body did not arrive within {seconds:g} s: send a smaller one, or over a faster connection"
    return Problem(408, "upload", detail)


async def _file_of_form(request: Request, limit: int, memory: Reservation) -> bytes:
    chunks = _limited_chunks(request, limit, memory)
    parser = MultiPartParser(request.headers, chunks, max_files=1, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(
            400, "form", f"the form can't be read ({error.message}): send one file in it"
        ) from error
    except UnicodeError as error:  # charsets that Python knows but that decode no text
        raise Problem(400, "form", "the form's charset can't be read: leave it out") from error
    try:
        fields = [name for name, value in form.multi_items() if not isinstance(value, UploadFile)]
        if fields:
            detail = f"the form has the text field {fields[0][:64]!r}: options go in the query, as ?steps=3"
            raise Problem(400, "form", detail)
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Problem(400, "form", "the form has no file: send one")
        return await files[0].read()
    finally:
        await form.close()
