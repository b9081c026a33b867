"""The parts of the OpenAPI description that FastAPI cannot see in the routes: headers, problems, bodies."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from ..problems import KIND_HEADER, MEDIA_TYPE, TITLES, ProblemBody
from ..schemas import JobRequest

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "HEIC": "image/heic",
    "AVIF": "image/avif",
    "JXL": "image/jxl",
}
PHOTO = {"type": "string", "format": "binary"}
PHOTOS = {media_type: {"schema": PHOTO} for media_type in MEDIA_TYPES.values()}
COMMON_STATUSES = (400, 405, 431, 500, 503)
"""Statuses that any request may get: for its method or its head, or where a process is missing or has failed."""


def _header(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


REQUEST_ID = {
    "X-Request-ID": _header(
        "Id of the request, also in the server's log: the client's own, or a new one where that is missing or is "
        "not 1 to 128 printable ASCII characters."
    )
}
RESTORED_HEADERS = {
    **REQUEST_ID,
    "Diffuir-Model": _header("Name of the model."),
    "Diffuir-Weights": _header("SHA-256 of the model's weights."),
    "Diffuir-Restorer": _header("Another restorer than DiffUIR; then steps and seed are missing."),
    "Diffuir-Steps": _header("Sampling steps.", "integer"),
    "Diffuir-Seed": _header(
        "Seed that the noise was drawn from, together with the photo's content.", "integer"
    ),
    "Diffuir-Precision": _header("Precision of the model's arithmetic, float32 or bfloat16."),
    "Diffuir-Tiles": _header("Tiles that the photo was restored in, or whole."),
    "Diffuir-Notes": _header(
        "What of the photo could not be kept, and what the guard held back, separated by semicolons; missing if "
        "nothing."
    ),
    "Server-Timing": _header(
        "Milliseconds of upload, decode, queue, restore, hop and encode, and of the whole."
    ),
}
PROBLEM_HEADERS = {**REQUEST_ID, KIND_HEADER: _header("Last word of the problem's type.")}
RETRY_AFTER = {
    "Retry-After": _header(
        "Seconds after which to send the request again; do not send it again where this is missing.",
        "integer",
    )
}
STATUS_HEADERS = {
    401: {"WWW-Authenticate": _header("Bearer.")},
    405: {"Allow": _header("Methods that the path supports.")},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
"""Further headers of the problems of a status."""
PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema()}}
RESTORED_RESPONSE = {"description": "The restored photo", "headers": RESTORED_HEADERS, "content": PHOTOS}
PHOTO_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            **PHOTOS,
            # The format is read from the content: curl labels any body as a form.
            "*/*": {"schema": PHOTO},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"photo": PHOTO}, "required": ["photo"]}
            },
        },
    }
}
JOB_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": JobRequest.model_json_schema()}},
    }
}


def responses(success: int, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of an operation: its success, whose body FastAPI describes, and its possible problems."""
    found: dict[int | str, dict[str, Any]] = {success: {"headers": REQUEST_ID}}
    for status in sorted({*statuses, *COMMON_STATUSES}):
        headers = {**PROBLEM_HEADERS, **STATUS_HEADERS.get(status, {})}
        found[status] = {"description": TITLES[status], "headers": headers, "content": PROBLEM_CONTENT}
    return found


def complete(app: FastAPI, most_steps: int) -> None:
    """Complete the description of `app`, which has all its routes, with the limits that the settings give."""
    description = app.openapi()
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    for operation in operations:
        # FastAPI adds its own 422 wherever it reads parameters, even to paths, whose parts may be any text.
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
