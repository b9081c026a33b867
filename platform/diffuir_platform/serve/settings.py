"""The settings of the endpoint: of `diffuir serve`, of jobs/serve.yaml, and of what `serve deploy` takes."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..config import Config

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ServeSettings(Config):
    """The settings of `diffuir serve`."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every one that this machine has."""
    port: int = Field(default=8000, ge=1, le=65_535)
    """Port to listen on."""
    address: str | None = None
    """A running Ray cluster to join; null starts one on this machine."""

    models: dict[str, str | None] = Field(default={"shipped": None}, min_length=1)
    """Name -> weights: a .safetensors of ours or a release .pt, as a path or a URI, models:/NAME@ALIAS of MLflow's
    registry, or null for those that ship. The first is the one that is used where a request names none."""
    models_memory: int = Field(default=2 * 2**30, ge=2**20)
    """Bytes of weights that a process holds at once: the first model, which stays, and others, at least one, of
    which the longest unused makes room."""
    steps: int = Field(default=3, ge=1, le=1000)
    """Sampling steps where a request names none."""
    most_steps: int = Field(default=10, ge=1, le=1000)
    """Most that a request may ask for."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: the faster one, measured where the model runs."""
    gpu_share: float = Field(default=1.0, gt=0, le=1)
    """Of a GPU that each process with a model takes, where there are GPUs."""
    model_cpus: float | None = Field(default=None, ge=0)
    """CPUs that each takes, and threads of its arithmetic; null for all of a machine of one's own, and 1 of a
    cluster's."""
    batch_wait: float = Field(default=0.005, ge=0, le=1)
    """Seconds that a photo waits for others of its size, where the model takes several at once and others come."""

    max_bytes: int = Field(default=32 * 2**20, ge=1)
    """Largest body."""
    max_pixels: int = Field(default=2**25, ge=1, le=89_478_485)
    """Largest photo, width x height."""
    max_side: int = Field(default=16_384, ge=1, le=32_768)
    """Largest width or height."""
    max_open: int = Field(default=128, ge=1)
    """Requests at once, of each gateway."""
    held_bytes: int = Field(default=2**30, ge=2**20)
    """Bodies and decoded photos that a gateway holds at once."""
    max_wait: float = Field(default=1.0, gt=0)
    """Seconds that a photo may have to wait for a model; one that would wait longer is refused at once."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds that a request may take once its body is there; a client may ask for less."""
    upload_timeout: float = Field(default=30.0, gt=0)
    """Seconds that a body may take to arrive."""

    gateways: int = Field(default=1, ge=1)
    """Processes that take requests, decode and encode."""
    min_replicas: int = Field(default=1, ge=0)
    """Processes with models that are always there; 0 ends the last when nothing was asked for a while."""
    max_replicas: int = Field(default=1, ge=1)
    """Most that there may be."""
    target_wait: float | None = Field(default=None, gt=0)
    """Seconds of work that may stand before each of them in the mean: more makes more of them; null for half of
    max_wait."""
    upscale_delay: float = Field(default=2.0, ge=0)
    """Seconds of too much work after which there are more."""
    downscale_delay: float = Field(default=60.0, ge=0)
    """Seconds of too little after which there are fewer."""

    require_key: bool = False
    """Refuse to start without API keys in DIFFUIR_API_KEYS or DIFFUIR_API_KEYS_FILE; where there are any, each
    request needs one."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Of each API key, at each gateway."""
    jobs_under: tuple[str, ...] = ()
    """Folders, s3://bucket/prefix or paths, that the jobs of /v1/jobs may read and write below; none: no jobs."""
    max_jobs: int = Field(default=4, ge=1)
    """Jobs at once, running or waiting."""

    @field_validator("models")
    @classmethod
    def _named_plainly(cls, models: dict[str, str | None]) -> dict[str, str | None]:
        for name in models:
            if not _MODEL_NAME.fullmatch(name):
                raise ValueError(f"{name!r} can't name a model: use letters, digits, '.', '_' and '-'")
        return models

    @model_validator(mode="after")
    def _fits_together(self) -> ServeSettings:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas = {self.max_replicas} is less than min_replicas")
        if self.steps > self.most_steps:
            raise ValueError(f"steps = {self.steps} is more than most_steps = {self.most_steps}")
        if self.target_wait is not None and self.target_wait > self.max_wait:
            raise ValueError(f"target_wait = {self.target_wait:g}: no work stands longer than max_wait")
        return self

    @property
    def wait_to_scale(self) -> float:
        """`target_wait` in seconds."""
        return self.max_wait / 2 if self.target_wait is None else self.target_wait

    @property
    def default_model(self) -> str:
        """The model of requests that name none."""
        return next(iter(self.models))
