"""The settings of an endpoint: of `diffuir serve`, of jobs/serve.yaml, and of what `serve deploy` takes."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from ..config import Config, field_of
from ..inference import NamedRestorer, RestorerName
from ..restore.settings import Device, Precision, RestoreOptions

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ServeSettings(Config):
    """The settings of an endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all addresses of this machine."""
    port: int = Field(default=8000, ge=1, le=65_535)
    """Port to listen on."""
    address: str | None = None
    """Ray cluster to join (auto, HOST:PORT); null for RAY_ADDRESS, and without that for a Ray started on this
    machine."""

    restorer: NamedRestorer = field_of(RestoreOptions, "restorer")
    models: dict[str, str | None] = Field(default={"shipped": None}, min_length=1)
    """Weights of each model, by its name: a .safetensors of ours or a published .pt, as a path or a URI,
    models:/NAME@ALIAS of MLflow's registry, or null for those that ship. The first is that of requests that name
    none. With module:factory as the restorer, files for the factory; any other restorer is the only model."""
    models_memory: int = Field(default=2 * 2**30, ge=2**20)
    """Bytes of weights that a replica holds at once: the first model always, and at least one other; the least
    recently used one makes room for the next."""
    steps: int = field_of(
        RestoreOptions, "steps", description="Sampling steps of a request that asks for none."
    )
    most_steps: int = Field(default=10, ge=1, le=1000)
    """Most sampling steps that a request may ask for."""
    device: Device = field_of(RestoreOptions, "device")
    precision: Precision = field_of(RestoreOptions, "precision")
    gpu_share: float = field_of(
        RestoreOptions, "gpu_share", description="Share of a GPU that each replica takes."
    )
    model_cpus: float | None = Field(default=None, ge=0)
    """CPUs that each replica takes, and threads of its arithmetic; null for the whole machine where Ray is started
    here, and 1 on a cluster."""
    batch_wait: float = Field(default=0.005, ge=0, le=1)
    """Longest wait of a photo for others of its size to share a batch with, seconds; only where the model takes
    several at once and other requests are arriving."""

    max_bytes: int = Field(default=32 * 2**20, ge=1)
    """Largest body of a request, bytes."""
    max_pixels: int = Field(default=2**25, ge=1)
    """Largest photo, width x height in pixels."""
    max_side: int = Field(default=16_384, ge=1, le=65_535)
    """Largest width or height of a photo, pixels."""
    max_open: int = Field(default=128, ge=1)
    """Most requests at once in each gateway."""
    held_bytes: int = Field(default=2**30, ge=2**20)
    """Most bytes of bodies and decoded photos at once in each gateway."""
    max_wait: float = Field(default=1.0, gt=0)
    """Longest wait of a photo for a model, seconds; one that would wait longer is refused at once."""
    timeout: float = Field(default=60.0, gt=0)
    """Longest time of a request once its body has arrived, seconds; a client may ask for less."""
    upload_timeout: float = Field(default=30.0, gt=0)
    """Longest time for a body to arrive, seconds."""

    gateways: int = Field(default=1, ge=1)
    """Gateways: processes that take requests, decode and encode."""
    min_replicas: int = Field(default=1, ge=0)
    """Fewest replicas (processes that hold models); with 0 the last one ends after a while without requests."""
    max_replicas: int = Field(default=1, ge=1)
    """Most replicas."""
    target_wait: float | None = Field(default=None, gt=0)
    """Target backlog of a replica, seconds of work; above it, scale up. null for half of max_wait."""
    upscale_delay: float = Field(default=2.0, ge=0)
    """Seconds above the target before replicas are added."""
    downscale_delay: float = Field(default=60.0, ge=0)
    """Seconds below the target before replicas are removed."""

    require_key: bool = False
    """Refuse to start without API keys in DIFFUIR_API_KEYS or DIFFUIR_API_KEYS_FILE. With keys in either, each
    request needs one, whatever this says."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Most requests per minute of an API key in each gateway; null for no limit."""
    jobs_under: tuple[str, ...] = ()
    """Folders, s3://bucket/prefix or paths, below which the jobs of /v1/jobs may read and write; empty takes no
    jobs."""
    max_jobs: int = Field(default=4, ge=1)
    """Most jobs at once, running or pending."""

    @field_validator("models")
    @classmethod
    def _check_names(cls, models: dict[str, str | None]) -> dict[str, str | None]:
        for name in models:
            if not _MODEL_NAME.fullmatch(name):
                raise ValueError(f"{name!r} can't name a model: use letters, digits, '.', '_' and '-'")
        return models

    @model_validator(mode="before")
    @classmethod
    def _name_model(cls, values: Any) -> Any:
        """Name the only model of another restorer "default", where none is named."""
        if isinstance(values, dict) and values.get("restorer") and "models" not in values:
            return {**values, "models": {"default": None}}
        return values

    @model_validator(mode="after")
    def _check_restorer(self) -> ServeSettings:
        name = None if self.restorer is None else RestorerName.parse(self.restorer)
        if name is not None and name.kind == "results":
            raise ValueError(
                f"restorer = {self.restorer!r}: results are found by the names of photos, which a request has "
                "not; use diffuir restore"
            )
        if name is not None and name.kind != "factory" and any(self.models.values()):
            raise ValueError(f"the restorer {self.restorer} takes no weights: leave out models")
        return self

    @model_validator(mode="after")
    def _check_together(self) -> ServeSettings:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas = {self.max_replicas} is less than min_replicas")
        if self.steps > self.most_steps:
            raise ValueError(f"steps = {self.steps} is more than most_steps = {self.most_steps}")
        if self.target_wait is not None and self.target_wait > self.max_wait:
            raise ValueError(
                f"target_wait = {self.target_wait:g} is more than max_wait: no backlog grows so long"
            )
        return self

    @property
    def target_backlog(self) -> float:
        """Target backlog of a replica, seconds."""
        return self.max_wait / 2 if self.target_wait is None else self.target_wait

    @property
    def default_model(self) -> str:
        """Name of the model of requests that name none."""
        return next(iter(self.models))
