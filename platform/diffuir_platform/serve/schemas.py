"""What the API takes and answers: the query of a restore, the body of a job, and the JSON of each route."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from diffuir_core.imaging import ExifPolicy


class Parameters(BaseModel):
    """Of a restore, whichever way it is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: str | None = Field(default=None, max_length=64)
    """A name of GET /v1/models; the server's first one where there is none."""
    steps: int | None = Field(default=None, ge=1, le=1000)
    """Sampling steps; the server's own number where there is none."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """With the photo's own content, what its noise is drawn from."""
    strength: float = Field(default=1.0, ge=0, le=1)
    """How much of the change is made."""
    equalise: bool = False
    """Equalise the histogram first, as published weights expect of low light."""
    format: Literal["jpeg", "png", "webp", "tiff", "bmp"] | None = None
    """Of the result; the photo's own where there is none."""
    quality: int = Field(default=95, ge=1, le=100)
    """Of JPEG and lossy WebP."""
    exif: ExifPolicy = "without-gps"
    """What is kept of the EXIF."""
    truncated: bool = False
    """Take a JPEG, PNG or BMP that ends too early as far as it goes."""


class RestoreQuery(Parameters):
    """The query of POST /v1/restore."""

    timeout: float | None = Field(default=None, gt=0, le=86_400)
    """Seconds after which the answer is of no use; the server's own limit where that is less."""


MOST_URIS = 10_000
_URI = {"type": "string", "maxLength": 4096}
SOURCE = WithJsonSchema({"anyOf": [_URI, {"type": "array", "items": _URI, "maxItems": MOST_URIS}]})
"""As JSON Schema says it: pydantic writes its one limit, of either type, as one of strings."""


class JobRequest(Parameters):
    """The body of POST /v1/jobs: what `diffuir restore SOURCE TARGET` takes."""

    source: Annotated[str | list[str], SOURCE] = Field(max_length=MOST_URIS)
    """A photo, a folder or prefix, a pattern or a tar; or up to 10,000 URIs of photos."""
    target: str = Field(max_length=4096)
    """The folder or prefix that the results go to."""
    include: list[str] = Field(default=[], max_length=100)
    """Patterns of keys that are taken; none for all."""
    exclude: list[str] = Field(default=[], max_length=100)
    """Patterns of keys that are not."""
    restart: bool = False
    """Begin anew, whatever an earlier job left in `target`."""
    retry_failed: bool = False
    """Try only what failed before, once more."""


Status = Literal["pending", "running", "done", "done-but-some-failed", "failed", "cancelled"]
"""Of a job."""


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Health(_Answer):
    """Of GET /healthz."""

    status: Literal["ok"] = "ok"
    seconds: float
    """Until a tiny image was restored."""


class Readiness(_Answer):
    """Of GET /readyz."""

    status: Literal["ok"] = "ok"
    models: float
    """Processes with models, of which each gateway has its share."""


class ModelShown(_Answer):
    """One model of GET /v1/models."""

    name: str
    variant: str
    """T, S, B or L."""
    parameters: int
    gflop_256: float
    """Of one pass over 256x256."""
    sha256: str
    """Of the weights."""
    default: bool
    """Whether it is taken where a request names none."""


class ModelsShown(_Answer):
    """Of GET /v1/models."""

    models: list[ModelShown]
    steps: int
    """Where a request names none."""
    most_steps: int
    max_bytes: int
    """Of a body."""
    max_pixels: int
    """Of a photo."""


class JobShown(_Answer):
    """Of the routes of jobs."""

    id: str
    status: Status
    source: str
    target: str
    submitted: str | None
    """ISO 8601, UTC."""
    ended: str | None
    progress: str | None = None
    """The newest line of its log that says how far it is, or what ended it; null until there is one."""
    report: dict[str, Any] | None = None
    """At its end, of report.json: `run`, `output_holds` and `failed`."""
