"""A request's body, taken in under limits while it streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import Request
from ray.exceptions import TaskCancelledError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ..problems import Problem
from .admission import Holding

FORM = "multipart/form-data"
OF_A_FORM = 2**14
"""Bytes that a form's own lines may have beside the photo."""
MOST_FIELDS = 100
"""Of a form, which are read to be told where they belong."""


async def read_photo(request: Request, limit: int, seconds: float, holding: Holding) -> bytes:
    """The photo in a body: the body itself, or the one file of a multipart form.

    limit: bytes; seconds: that it may take to arrive. What has come is on `holding`'s account. Raises `Problem`
    (400, 408, 413), `Refused` where the gateway's memory is taken, and ClientDisconnect.
    """
    is_form = request.headers.get("content-type", "").lower().startswith(FORM)
    most = limit + (OF_A_FORM if is_form else 0)
    try:
        async with asyncio.timeout(seconds):
            if is_form:
                return await _file_of_form(request, most, holding)
            return b"".join([chunk async for chunk in _limited(request, most, holding)])
    except TimeoutError:
        raise Problem(408, "upload", f"the body was not there after {seconds:g} s") from None


async def read_body(request: Request, limit: int, seconds: float, holding: Holding) -> bytes:
    """A body as it is; raises as `read_photo` does."""
    try:
        async with asyncio.timeout(seconds):
            return b"".join([chunk async for chunk in _limited(request, limit, holding)])
    except TimeoutError:
        raise Problem(408, "upload", f"the body was not there after {seconds:g} s") from None


async def _limited(request: Request, most: int, holding: Holding) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > most:
        raise _too_large(most)
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > most:
                raise _too_large(most)
            holding.add(len(chunk))
            yield chunk
    except TaskCancelledError as error:  # Serve's proxy has lost the client, and fetches no more
        raise ClientDisconnect from error


def _too_large(most: int) -> Problem:
    return Problem(413, "too-large", f"the body has more than the {most:,} bytes that are allowed")


async def _file_of_form(request: Request, most: int, holding: Holding) -> bytes:
    chunks = _limited(request, most, holding)
    parser = MultiPartParser(request.headers, chunks, max_files=1, max_fields=MOST_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(
            400, "form", f"the form can't be read ({error.message}): send one file in it"
        ) from error
    except UnicodeError as error:  # of charsets that Python has and that decode nothing
        raise Problem(400, "form", "the form's charset can't be read: leave it out") from error
    try:
        fields = [name for name, value in form.multi_items() if not isinstance(value, UploadFile)]
        if fields:
            detail = f"the form holds the text {fields[0][:64]!r}: options go in the query, as ?steps=3"
            raise Problem(400, "form", detail)
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Problem(400, "form", "the form holds no file: send one")
        return await files[0].read()
    finally:
        await form.close()
