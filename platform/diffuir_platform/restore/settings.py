"""The settings of a restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from diffuir_core.imaging import ExifPolicy

from ..config import Config
from .inputs import Choice

if TYPE_CHECKING:
    from diffuir_core import Restorer


class RestoreOptions(Config):
    """The options of `diffuir restore`."""

    weights: str | None = None
    """A weights file, .safetensors of ours or a release .pt, as a path or a URI, or models:/NAME@ALIAS of MLflow's
    registry; null for those that ship."""
    steps: int = Field(default=3, ge=1, le=1000)
    """Sampling steps."""
    strength: float = Field(default=1.0, ge=0, le=1)
    """How much of the change is made."""
    equalise: bool = False
    """Equalise each photo's histogram first, as published weights expect of low light."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """With a photo's own content, what its noise is drawn from."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: the faster one, measured where the model runs."""
    tile: int | None = Field(default=None, ge=128, multiple_of=16)
    """Side of the tiles that larger photos are restored in, in pixels; null for whole photos, and for the largest
    tiles that fit where memory is short."""
    batch_size: int | None = Field(default=None, ge=1, le=256)
    """Most photos handed to the model at once; null for about a second's work. It changes no result."""
    models: int | None = Field(default=None, ge=1)
    """Processes that hold a model; null for as many as the cluster has room for, now and later. More than that
    also make a cluster's autoscaler start nodes."""
    gpu_share: float = Field(default=1.0, gt=0, le=1)
    """Of a GPU that each of them takes, where there are GPUs: small models fill one together."""
    attempts: int = Field(default=3, ge=1, le=20)
    """Deaths of its own process after which a photo counts as failed."""

    truncated: bool = False
    """Take JPEG, PNG and BMP files that end too early as far as they go, instead of counting them as failed."""
    exif: ExifPolicy = "without-gps"
    """What is kept of the EXIF."""
    format: Literal["jpeg", "png", "webp", "tiff", "bmp"] | None = None
    """Of the results; null for each photo's own."""
    quality: int = Field(default=95, ge=1, le=100)
    """Of JPEG and lossy WebP."""

    include: tuple[str, ...] = ()
    """Patterns of keys that are taken, * matches / too; none for all."""
    exclude: tuple[str, ...] = ()
    """Patterns of keys that are not."""
    column: str = "uri"
    """Of a Parquet table of inputs."""

    address: str | None = None
    """A running Ray cluster to join; null starts one on this machine."""

    @property
    def choice(self) -> Choice:
        """Which inputs are taken."""
        return Choice(include=self.include, exclude=self.exclude, column=self.column)

    def restorer(self, weights: Path | None = None) -> Restorer:
        """The restorer they describe, of these weights; raises UserError for weights that can't be used."""
        from diffuir_core import Restorer

        return Restorer(
            weights,
            device=self.device,
            precision=self.precision,
            steps=self.steps,
            seed=self.seed,
            tile=self.tile,
            strength=self.strength,
            equalise=self.equalise,
        )

    def of_results(self, weights_sha256: str) -> dict[str, Any]:
        """What a result depends on: two runs that agree in it may share an output."""
        names = (
            *("steps", "strength", "equalise", "seed", "device", "precision", "tile"),
            *("truncated", "exif", "format", "quality"),
        )
        return {"weights": weights_sha256, **self.model_dump(mode="json", include=set(names))}
