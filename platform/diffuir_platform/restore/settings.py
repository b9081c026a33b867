"""The settings of a restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from diffuir_core.imaging import ExifPolicy

from ..config import Config

if TYPE_CHECKING:
    from diffuir_core import Restorer


class RestoreOptions(Config):
    """The options of `diffuir restore`."""

    weights: str | None = None
    """A weights file: .safetensors of ours or a release .pt; null for those that ship."""
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
    batch_size: int = Field(default=4, ge=1, le=1024)
    """Photos handed to the model at once."""

    truncated: bool = False
    """Take JPEG, PNG and BMP files that end too early as far as they go, instead of counting them as failed."""
    exif: ExifPolicy = "without-gps"
    """What is kept of the EXIF."""
    format: Literal["jpeg", "png", "webp", "tiff", "bmp"] | None = None
    """Of the results; null for each photo's own."""
    quality: int = Field(default=95, ge=1, le=100)
    """Of JPEG and lossy WebP."""

    address: str | None = None
    """A running Ray cluster to join; null starts one on this machine."""

    def restorer(self) -> Restorer:
        """The restorer they describe; raises UserError for weights that can't be used."""
        from diffuir_core import Restorer

        return Restorer(
            self.weights,
            device=self.device,
            precision=self.precision,
            steps=self.steps,
            seed=self.seed,
            tile=self.tile,
            strength=self.strength,
            equalise=self.equalise,
        )
