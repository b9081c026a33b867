"""The settings of a training run; the defaults are the published recipe (section 4.2, Algorithm 1)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from diffuir_core import UserError
from diffuir_core.schedule import Condition

from ..config import Config
from ..data import SHARES, DataConfig, Folder, Stage, quotas
from ..tracking.registry import check_name

Variant = Literal["T", "S", "B", "L"]


class StageConfig(Config):
    """A stretch of training with one crop size, so that cheap small crops can come before large ones."""

    steps: int = Field(gt=0)
    """Optimiser steps."""
    crop: int = Field(default=256, ge=16, le=2048)
    """Side of the square crops, in pixels; a multiple of 16 wastes nothing on padding."""
    batch: int = Field(default=10, gt=0)
    """Images in a global batch, over all workers; each task's share of it must be a whole number."""


class EmaConfig(Config):
    """The exponential moving average of the weights, which is what is exported."""

    decay: float = Field(default=0.995, ge=0, lt=1)
    every: int = Field(default=10, gt=0)
    """Steps between two updates."""


class ValidationConfig(Config):
    """Held-out pairs that the averaged weights are measured on at every checkpoint, beside the training."""

    index: tuple[str, ...] = ()
    """Indexes made by `diffuir index`."""
    split: str = "test"
    """Of the indexes' rows those of this split."""
    datasets: tuple[str, ...] = ()
    """Of the indexes' rows those of these data sets; empty for all."""
    pairs: dict[str, tuple[Folder, ...]] = Field(default_factory=dict)
    """Folders with `degraded/` and `clean/` by task."""
    images: int = Field(default=8, gt=0)
    """Pairs of each task at most, spread evenly over those there are."""
    gpus: float = Field(default=0, ge=0)
    """GPUs that a validation may take."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to validate on."""
        return bool(self.index or self.pairs)


class TrainConfig(Config):
    """Everything a training run depends on."""

    name: str = Field(default="diffuir", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: its folder under `storage` and its name in MLflow. The same name resumes it."""
    storage: str = "runs"
    """Folder of checkpoints and exports: a local path, or s3://bucket/path."""
    tracking_uri: str = ""
    """MLflow's address; empty for MLFLOW_TRACKING_URI, and without that SQLite in `storage` (in ./runs where that
    is a bucket)."""
    experiment: str = "diffuir"
    """MLflow's experiment."""
    registered_model: str | None = None
    """Name in MLflow's registry under which the exported weights become a version, with run- and the run's name as
    its alias; null for diffuir- and the variant."""

    variant: Variant = "T"
    delta_end: float = Field(default=1.8e-3, ge=0, le=1)
    """The last increment of delta_bar: 1.8e-3 gives delta_bar_T = 0.9005."""
    condition: Condition = "full"
    """Of the ablation in Table 2: full, no-sdt (RDDM), no-ec-sdt (conditional DDPM) or no-ic-sdt."""
    init_from: str | None = None
    """A weights file to start from instead of random ones, local or in a bucket."""

    data: DataConfig = Field(default_factory=DataConfig)
    validation: ValidationConfig = ValidationConfig()
    mixture: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=lambda: dict(SHARES))
    """The share of each task in every global batch."""

    stages: tuple[StageConfig, ...] = (StageConfig(steps=300_000),)
    """What is trained in turn."""
    accumulate: int = Field(default=2, gt=0)
    """Global batches whose gradients make one step."""
    learning_rate: float = Field(default=8e-5, gt=0, lt=1)
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """Cosine falls to zero at the last step."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from zero."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    """Adam's."""
    sampled_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the batches whose I_t is not made of the clean photo (Eq. 4), but is what the network's own earlier
    steps of sampling have left: it learns to correct them instead of trusting them."""
    sampled_steps: int = Field(default=3, gt=0, le=1000)
    """Steps of that loop; each such batch is at one of them."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema: EmaConfig = EmaConfig()
    seed: int = Field(default=0, ge=0, lt=2**63)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the network's arithmetic, by autocast (weights stay float32); auto: bfloat16 on a GPU, else float32."""

    compile: bool | None = None
    """Have torch.compile make the network's kernels, which takes minutes at the start; null: on a GPU, where it
    makes a step many times faster, if the node has the C compiler that it takes."""

    workers: int = Field(default=1, gt=0)
    """Training processes (DDP)."""
    max_workers: int | None = Field(default=None, gt=0)
    """Elastic training: as many processes as the cluster has room for, from `workers` to this many."""
    gpus: bool | None = None
    """One GPU per worker; None: where the cluster has them."""
    address: str | None = None
    """A Ray cluster to join; None starts one on this machine."""
    threads: int | None = Field(default=None, gt=0)
    """Torch threads of each worker on a CPU; None shares the machine's cores among the workers."""
    data_tasks: int | None = Field(default=None, gt=0)
    """Tasks that load and degrade images for each worker at once; null: on a CPU two, on GPUs as many as a GPU's
    share of the cluster's CPUs has room for."""
    log_every: int = Field(default=50, gt=0)
    """Steps between two points in MLflow."""
    checkpoint_every: int = Field(default=1000, gt=0)
    """Steps between two checkpoints."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Checkpoints that are kept: the last, and of the others the best by validation PSNR (without: the latest)."""
    panels_every: int = Field(default=2000, gt=0)
    """Steps between two sample panels (degraded, restored, clean) in MLflow."""
    max_failures: int = Field(default=3, ge=-1)
    """Worker failures after which the run gives up; -1 for never."""

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
        """Training processes at most."""
        return self.max_workers or self.workers

    @property
    def tasks(self) -> list[str]:
        """Those that have a share of the batches."""
        return [task for task, share in self.mixture.items() if share]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return sum(stage.steps for stage in self.stages)

    def batch_stages(self) -> list[Stage]:
        """The stages in global batches instead of steps."""
        return [Stage(s.steps * self.accumulate, s.batch, s.crop) for s in self.stages]


OPERATIONAL = frozenset(
    (
        *(
            "storage",
            "tracking_uri",
            "experiment",
            "registered_model",
            "workers",
            "max_workers",
            "gpus",
            "address",
            "threads",
        ),
        *("data_tasks", "validation", "compile"),
        *("log_every", "checkpoint_every", "keep_checkpoints", "panels_every", "max_failures"),
    )
)
"""Settings that may differ when a run is resumed: they say where and how it runs, not what it computes."""
