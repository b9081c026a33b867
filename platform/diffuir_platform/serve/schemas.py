"""Inputs and outputs of the API: the query of a restore, the body of a job, and the JSON of each route."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from ..config import field_of
from ..restore.settings import PhotoOptions, RestoreJob, RestoreOptions


class Parameters(PhotoOptions):
    """Options of each photo, in a request or a job."""

    model: str | None = Field(default=None, max_length=64)
    """Name of a model of GET /v1/models; null for the server's first one."""
    steps: int | None = field_of(
        RestoreOptions, "steps", default=None, description="Sampling steps; null for the server's own number."
    )


class RestoreQuery(Parameters):
    """The query of POST /v1/restore."""

    timeout: float | None = Field(default=None, gt=0, le=86_400)
    """Longest time until the response, seconds; null, or more than the server's own limit, for that limit."""


MOST_URIS = 10_000
"""Most URIs in a job."""
MOST_PATTERNS = 100
"""Most patterns of a kind in a job."""
_URI = {"type": "string", "maxLength": 4096}
SOURCE = WithJsonSchema({"anyOf": [_URI, {"type": "array", "items": _URI, "maxItems": MOST_URIS}]})
"""JSON Schema of a source: pydantic writes its one limit, of either type, as one of strings."""
Patterns = Annotated[tuple[str, ...], Field(max_length=MOST_PATTERNS)]


class JobRequest(Parameters):
    """The body of POST /v1/jobs: what `diffuir restore IN OUT` takes."""

    source: Annotated[str | list[str], SOURCE] = Field(max_length=MOST_URIS)
    """A photo, a folder or prefix, a pattern or a tar; or up to 10,000 URIs of photos."""
    target: str = Field(max_length=4096)
    """Folder or prefix of the results."""
    include: Patterns = field_of(RestoreOptions, "include")
    exclude: Patterns = field_of(RestoreOptions, "exclude")
    restart: bool = field_of(RestoreJob, "restart")
    retry_failed: bool = field_of(RestoreJob, "retry_failed")
    overwrite: bool = field_of(RestoreOptions, "overwrite")


Status = Literal["pending", "running", "done", "done-but-some-failed", "failed", "cancelled"]
"""State of a job."""


class _Response(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Health(_Response):
    """The response of GET /healthz."""

    status: Literal["ok"] = "ok"
    seconds: float
    """Time that it took to restore a tiny image, seconds."""


class Readiness(_Response):
    """The response of GET /readyz."""

    status: Literal["ok"] = "ok"
    models: float
    """Replicas of the model for each gateway."""


class ModelInfo(_Response):
    """One model of GET /v1/models."""

    name: str
    variant: str | None
    """Size of the network: T, S, B or L; null for another restorer than DiffUIR."""
    parameters: int | None
    """Number of the network's parameters; null for another restorer."""
    gflop_256: float | None
    """GFLOP of one pass over an image of 256x256; null for another restorer."""
    sha256: str
    """SHA-256 of the weights; for a restorer without any, of what tells it from others."""
    default: bool
    """Whether requests that name no model get this one."""


class ModelList(_Response):
    """The response of GET /v1/models."""

    models: list[ModelInfo]
    restorer: str | None
    """Restorer of all models; null for DiffUIR."""
    steps: int
    """Sampling steps of a request that asks for none."""
    most_steps: int
    """Most sampling steps that a request may ask for."""
    max_bytes: int
    """Largest body of a request, bytes."""
    max_pixels: int
    """Largest photo, width x height in pixels."""


class JobProgress(_Response):
    """Counts of a job, as its process writes them every few seconds."""

    done: int
    """Photos that this job has restored."""
    failed: int
    """Photos that failed, in this job or in an earlier one with the same target."""
    skipped: int
    """Photos that an earlier job with the same target had restored."""
    listed: int | None
    """Inputs found so far; null until the search begins, and where only failed photos are retried."""
    listing_ended: bool
    """Whether all inputs are found."""
    images_per_second: float
    """Throughput since the first photo was finished."""
    error: str | None
    """Why the job could not start or ended early, or why its only photo failed; null otherwise."""


class JobInfo(_Response):
    """The response of the routes of jobs."""

    id: str
    status: Status
    source: str
    """The requested source; for a list the number of its photos."""
    target: str
    """Folder or prefix of the results."""
    submitted: str | None
    """Time of the submission: ISO 8601, UTC."""
    ended: str | None
    """Time of the end: ISO 8601, UTC; null until then."""
    progress: JobProgress | None = None
    """Counts of the job; null until it has started."""
    report: dict[str, Any] | None = None
    """`run`, `output_holds` and `failed` of its report.json, once it has ended; null until then."""
