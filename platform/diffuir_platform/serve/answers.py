"""What the routes answer in JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

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
