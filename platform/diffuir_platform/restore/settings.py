"""The settings of a restore: the only place that defines them.

`PhotoOptions` can be asked for one photo, of an endpoint too. `RestoreOptions` add how and where photos are
restored, `RestoreJob` adds which photos, and how one run treats the runs before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from diffuir_core.imaging import ExifPolicy

from ..config import ClusterAddress, Config

if TYPE_CHECKING:
    from diffuir_core import Restorer

    from .inputs import Choice

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


class PhotoOptions(Config):
    """Options for restoring and writing a photo, with any model."""

    strength: float = Field(default=1.0, ge=0, le=1)
    """Share of the model's change that is made: 0 leaves the photo as it is, 1 restores it in full."""
    equalise: bool = False
    """Equalise the photo's histogram first, as published weights for low light expect."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the noise, which also depends on the photo's own content."""
    format: Literal["jpeg", "png", "webp", "tiff", "bmp"] | None = None
    """File format of the result; null for the photo's own."""
    quality: int = Field(default=95, ge=1, le=100)
    """Quality of a result in JPEG or lossy WebP."""
    exif: ExifPolicy = "without-gps"
    """EXIF that the result keeps: all but the GPS position, all, or none."""
    truncated: bool = False
    """Restore a JPEG, PNG or BMP file that ends too early as far as it goes, instead of failing on it."""


class RestoreOptions(PhotoOptions):
    """Options for restoring photos: which model, where it runs, and which inputs it gets."""

    weights: str | None = None
    """Weights: a .safetensors of ours or a published .pt, as a path or a URI, or models:/NAME@ALIAS of MLflow's
    registry; null for those that ship."""
    steps: int = Field(default=3, ge=1, le=1000)
    """Sampling steps."""
    device: Device = "auto"
    """Device of the model; auto takes a GPU where there is one."""
    precision: Precision = "auto"
    """Precision of the model's arithmetic; auto takes the faster one, measured where the model runs."""
    tile: int | None = Field(default=None, ge=128, multiple_of=16)
    """Side of the tiles, in pixels, that larger photos are restored in; null restores photos whole, and in the
    largest tiles that fit where memory is short."""
    batch_size: int | None = Field(default=None, ge=1, le=256)
    """Most photos in a batch of the model; null for about one second of work. Results do not depend on it."""
    models: int | None = Field(default=None, ge=1)
    """Processes that hold a model; null for as many as the cluster has room for at any time. A larger number makes
    a cluster's autoscaler start nodes."""
    gpu_share: float = Field(default=1.0, gt=0, le=1)
    """Share of a GPU that each of these processes takes: several small models fill a GPU together."""
    attempts: int = Field(default=3, ge=1, le=20)
    """Give up on a photo after it has crashed this many processes."""

    include: tuple[str, ...] = ()
    """Patterns of keys to restore, where * matches / too; empty for all."""
    exclude: tuple[str, ...] = ()
    """Patterns of keys to leave out, where * matches / too."""
    column: str = "uri"
    """Column of a .parquet list that holds the paths or URIs."""

    address: ClusterAddress = None

    @property
    def choice(self) -> Choice:
        """The rule which inputs are restored."""
        from .inputs import Choice

        return Choice(include=self.include, exclude=self.exclude, column=self.column)

    def restorer(self, weights: Path | None = None) -> Restorer:
        """The restorer that these options describe, with the weights of a file (None: those that ship).

        Raises UserError for weights that can't be used.
        """
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

    def result_settings(self, weights_sha256: str) -> dict[str, Any]:
        """The settings that a result depends on: two runs that agree in them may share an output."""
        names = (
            *("steps", "strength", "equalise", "seed", "device", "precision", "tile"),
            *("truncated", "exif", "format", "quality"),
        )
        values = self.model_dump(mode="json", include=set(names))
        return {"weights": weights_sha256, **{name: values[name] for name in names}}


class RestoreJob(RestoreOptions):
    """A restore as a command, a YAML file or a job has it."""

    source: str
    """A photo; a folder or s3:// prefix; a pattern; a .txt or .parquet list of paths or URIs; or .tar shards."""
    target: str
    """Folder or s3:// prefix of the results, or for one photo also a file."""
    restart: bool = False
    """Begin anew, and discard what an earlier run made in the same target."""
    retry_failed: bool = False
    """Restore only the photos that failed in earlier runs."""
    progress_file: str | None = None
    """URI of a JSON file that the run keeps up to date with its counts, and at its end with what ended it; null
    writes none."""
