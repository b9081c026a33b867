"""The settings of a training run; the defaults are the published recipe (section 4.2, Algorithm 1)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from diffuir_core import UserError
from diffuir_core.conditions import Condition

from ..config import ClusterAddress, Config
from ..data import SHARES, DataConfig, Folder, TrainingStage, quotas
from ..tracking.registry import check_name

Variant = Literal["T", "S", "B", "L"]


class StageConfig(Config):
    """A part of the training with one crop size, so that cheap small crops can come before large ones."""

    steps: int = Field(gt=0)
    """Optimiser steps of the stage."""
    crop: int = Field(default=256, ge=16, le=2048)
    """Side of the square crops, in pixels; a multiple of 16 wastes nothing on padding."""
    batch: int = Field(default=10, gt=0)
    """Images in a global batch, over all workers; the share of each task in it must be a whole number."""

    whole: float = Field(default=0.0, ge=0, le=1)
    """Share of the crops for which the photo is made smaller first, until the crop holds nearly all of it: how
    bright a scene should be shows in the whole of it."""


class DrawsConfig(Config):
    """Shares of the photos without a degraded counterpart that are not degraded by their task alone."""

    second: float = Field(default=0.0, ge=0, le=1)
    """Share with a second degradation, such as rain at night."""
    traces: float = Field(default=0.0, ge=0, le=1)
    """Share with a camera's own traces: noise, sharpening, JPEG."""
    good: float = Field(default=0.0, ge=0, le=1)
    """Share with nothing wrong: photos as they are, and drawn night skies, text, screens and flat frames."""


class EmaConfig(Config):
    """The exponential moving average of the weights, which is exported."""

    decay: float = Field(default=0.995, ge=0, lt=1)
    """Share of the average that an update keeps; the rest is the current weights."""
    every: int = Field(default=10, gt=0)
    """Steps between two updates."""


class ValidationConfig(Config):
    """Held-out pairs that the averaged weights are measured on at every checkpoint, while training goes on."""

    index: tuple[str, ...] = ()
    """Indexes made by `diffuir index`, as paths or URIs."""
    split: str = "test"
    """Split of the indexes to measure on."""
    datasets: tuple[str, ...] = ()
    """Data sets of the indexes to measure on; empty for all."""
    pairs: dict[str, tuple[Folder, ...]] = Field(default_factory=dict)
    """Folders with `degraded/` and `clean/`, by task."""
    images: int = Field(default=8, gt=0)
    """Most pairs of each task, spread evenly over those there are."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of a validation; 0 validates on a CPU."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to validate on."""
        return bool(self.index or self.pairs)


class TrainConfig(Config):
    """The settings of a training run."""

    name: str = Field(default="diffuir", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: its folder under `storage` and its name in MLflow. The same name resumes it."""
    storage: str = "runs"
    """Folder for checkpoints and exported weights: a local path, or s3://bucket/path."""
    tracking_uri: str = ""
    """Address of the MLflow server; empty for MLFLOW_TRACKING_URI, and without that for SQLite in `storage` (in
    ./runs where that is a bucket)."""
    experiment: str = "diffuir"
    """Name of MLflow's experiment."""
    registered_model: str | None = None
    """Name in MLflow's registry under which the exported weights become a version, with run-NAME as its alias;
    null for diffuir-t, -s, -b or -l by variant."""

    variant: Variant = "T"
    """Size of the network: T has 0.9 million parameters, S 3.3, B 12.4, L 36.3."""
    delta_end: float = Field(default=1.8e-3, ge=0, le=1)
    """Last increment of delta_bar: 1.8e-3 gives delta_bar_T = 0.9005."""
    condition: Condition = "full"
    """Condition of the ablation in Table 2: full, no-sdt (RDDM), no-ec-sdt (conditional DDPM) or no-ic-sdt."""
    init_from: str | None = None
    """Weights to start from: a path, a URI, or models:/NAME@ALIAS of the registry of the run's MLflow; null for
    random ones."""

    data: DataConfig = Field(default_factory=DataConfig)
    validation: ValidationConfig = ValidationConfig()
    mixture: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=lambda: dict(SHARES))
    """Share of each task in every global batch."""
    draws: DrawsConfig = DrawsConfig()

    stages: tuple[StageConfig, ...] = (StageConfig(steps=300_000),)
    """Stages of the training, one after the other."""
    accumulate: int = Field(default=2, gt=0)
    """Global batches whose gradients are accumulated for one optimiser step."""
    learning_rate: float = Field(default=8e-5, gt=0, lt=1)
    """Learning rate of Adam, after the warm-up."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """Schedule of the learning rate; cosine falls to zero at the last step."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from zero."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    """Decay rates of Adam's two moments."""
    sampled_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the batches whose I_t is not made from the clean photo (Eq. 4), but by the network's own sampling
    loop: it learns to correct its earlier steps instead of trusting them."""
    sampled_steps: int = Field(default=3, gt=0, le=1000)
    """Steps of that sampling loop; each such batch uses one of these steps, drawn at random."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Norm to which larger gradients are clipped."""
    ema: EmaConfig = EmaConfig()
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the initial weights and of everything that is drawn in training."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the network's arithmetic, by autocast (weights stay float32); auto takes bfloat16 on a GPU,
    else float32."""

    compile: bool | None = None
    """Compile the network with torch.compile, which takes minutes at the start and makes a step on a GPU many
    times faster; null compiles on a GPU if the node has a C compiler."""

    workers: int = Field(default=1, gt=0)
    """Training processes (DDP)."""
    max_workers: int | None = Field(default=None, gt=0)
    """Most training processes of an elastic run, which has at least `workers` and as many more as the cluster has
    room for; null for always `workers`."""
    gpus: bool | None = None
    """Give each worker a GPU; null where the cluster has any."""
    address: ClusterAddress = None
    threads: int | None = Field(default=None, gt=0)
    """Torch threads of each worker on a CPU; null shares the machine's cores among the workers."""
    data_tasks: int | None = Field(default=None, gt=0)
    """Ray tasks that load and degrade images for each worker at once; null for two on a CPU, and with GPUs for as
    many as one GPU's share of the cluster's CPUs has room for."""
    log_every: int = Field(default=50, gt=0)
    """Steps between two points in MLflow."""
    checkpoint_every: int = Field(default=1000, gt=0)
    """Steps between two checkpoints."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Checkpoints to keep: the last, and the best of the others by validation PSNR (without it, the newest)."""
    panels_every: int = Field(default=2000, gt=0)
    """Steps between two sample panels (degraded, restored, clean) in MLflow."""
    stop_after: float | None = Field(default=None, gt=0)
    """Minutes after which the run saves a checkpoint and ends, unfinished, for a machine that is lent; the same
    command goes on. Null for no limit."""
    max_failures: int = Field(default=3, ge=-1)
    """Failures of workers after which the run gives up; -1 for never."""

    @field_validator("registered_model")
    @classmethod
    def _is_registrable(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                check_name(name, None)
            except UserError as error:
                raise ValueError(str(error)) from error
        return name

    @model_validator(mode="after")
    def _fits(self) -> Self:
        unknown = sorted(set(self.mixture) - set(SHARES))
        if unknown:
            raise ValueError(f"mixture: no task {unknown[0]!r}, choose among {', '.join(SHARES)}")
        for stage in self.stages:
            quotas(stage.batch, self.mixture)
            if self.most_workers > stage.batch:
                key = "workers" if self.max_workers is None else "max_workers"
                raise ValueError(
                    f"{key} = {self.most_workers} is more than the {stage.batch} images of a batch"
                )
        if not self.stages:
            raise ValueError("stages is empty: name at least one")
        if self.most_workers < self.workers:
            raise ValueError(f"max_workers = {self.max_workers} is less than workers = {self.workers}")
        return self

    @property
    def most_workers(self) -> int:
        """Most training processes."""
        return self.max_workers or self.workers

    @property
    def tasks(self) -> list[str]:
        """The tasks that have a share of the batches."""
        return [task for task, share in self.mixture.items() if share]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return sum(stage.steps for stage in self.stages)

    def batch_stages(self) -> list[TrainingStage]:
        """The stages in global batches instead of steps."""
        return [TrainingStage(s.steps * self.accumulate, s.batch, s.crop, s.whole) for s in self.stages]


OPERATIONAL = frozenset(
    (
        *("storage", "tracking_uri", "experiment", "registered_model"),
        *("workers", "max_workers", "gpus", "address", "threads", "data_tasks", "validation", "compile"),
        *("log_every", "checkpoint_every", "keep_checkpoints", "panels_every", "stop_after", "max_failures"),
    )
)
"""Settings that may change when a run is resumed: they say where and how it runs, not what it computes."""
