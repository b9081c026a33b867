"""What OpenAPI says of the routes beyond what FastAPI sees of them: headers, problems, bodies."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from ..problems import KIND_HEADER, MEDIA_TYPE, TITLES
from ..schemas import JobRequest

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
}
PHOTO = {"type": "string", "format": "binary"}
PHOTOS = {media_type: {"schema": PHOTO} for media_type in MEDIA_TYPES.values()}
ANYWHERE = (400, 405, 431, 500, 503)
"""Statuses that any request may get: for its method or its head, or where a process is missing or at fault."""


def _header(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


REQUEST_ID = {
    "X-Request-ID": _header("The request's own where it has a plain one; it stands in the server's log.")
}
OF_RESTORED = {
    **REQUEST_ID,
    "Diffuir-Model": _header("The model's name."),
    "Diffuir-Weights": _header("SHA-256 of its weights."),
    "Diffuir-Steps": _header("Sampling steps.", "integer"),
    "Diffuir-Seed": _header("What the noise was drawn from, with the photo.", "integer"),
    "Diffuir-Precision": _header("Of the arithmetic: float32 or bfloat16."),
    "Diffuir-Tiles": _header("The tiles that it was restored in, or whole."),
    "Diffuir-Notes": _header(
        "What of the photo could not be kept, where there is such: phrases with ; between."
    ),
    "Server-Timing": _header("Milliseconds of upload, decode, queue, restore, hop, encode, and whole."),
}
OF_PROBLEM = {**REQUEST_ID, KIND_HEADER: _header("The last word of the problem's type.")}
RETRY_AFTER = {"Retry-After": _header("Seconds after which to send it again; missing: do not.", "integer")}
OF_STATUS = {
    401: {"WWW-Authenticate": _header("Bearer.")},
    405: {"Allow": _header("The methods that the path takes.")},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
"""Headers that problems of a status have besides."""
BODY = {
    MEDIA_TYPE: {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "request_id"],
            "properties": {
                "type": {"type": "string", "example": "urn:diffuir:busy-wait"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }
    }
}
RESTORED = {"description": "The restored photo", "headers": OF_RESTORED, "content": PHOTOS}
PHOTO_WANTED = {
    "requestBody": {
        "required": True,
        "content": {
            **PHOTOS,
            # What it is, is seen from its content: curl calls it a form, whatever it is.
            "*/*": {"schema": PHOTO},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"photo": PHOTO}, "required": ["photo"]}
            },
        },
    }
}
JOB_WANTED = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": JobRequest.model_json_schema()}},
    }
}


def answers(success: int, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of an operation: its success, whose body FastAPI describes, and the problems it may end in."""
    described: dict[int | str, dict[str, Any]] = {success: {"headers": REQUEST_ID}}
    for status in sorted({*statuses, *ANYWHERE}):
        headers = {**OF_PROBLEM, **OF_STATUS.get(status, {})}
        described[status] = {"description": TITLES[status], "headers": headers, "content": BODY}
    return described


def complete(app: FastAPI, most_steps: int) -> None:
    """Describe `app` once it has its routes, with what only the settings tell."""
    description = app.openapi()
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    for operation in operations:
        # FastAPI's own, of what it checks: it says it of paths too, whose parts may be anything.
        if "HTTPValidationError" in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
    schemas = description["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    restore, jobs = (description["paths"][path]["post"] for path in ("/v1/restore", "/v1/jobs"))
    (of_query,) = (one["schema"] for one in restore["parameters"] if one["name"] == "steps")
    of_job = jobs["requestBody"]["content"]["application/json"]["schema"]["properties"]["steps"]
    for steps in (of_query, of_job):
        steps["anyOf"][0]["maximum"] = most_steps
