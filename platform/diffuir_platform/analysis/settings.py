"""The settings of `diffuir analyse`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from diffuir_core.metrics import DEFAULT_PROTOCOL, ProtocolName

from ..config import Config, field_of
from ..restore.settings import Device, RestoreOptions

Analysis = Literal["table-2", "table-3", "batch-size", "steps", "features", "attention", "panels"]


class AnalyseSettings(Config):
    """The settings of `diffuir analyse`."""

    analysis: Analysis
    """Analysis. table-2, table-3 and batch-size are made of a finished sweep; steps: PSNR and SSIM by the number
    of sampling steps; features: Figure 5; attention: Figure 7; panels: as in Figures 2 to 4 and 6."""
    source: str
    """Folder of the sweep; for steps and panels one of pairs; for features one of pairs, or of clean photos that
    are degraded in five ways; for attention a photo."""
    out: Path = Path("analysis")
    """Folder for the table or the picture, and the figures behind it."""
    weights: str | None = field_of(RestoreOptions, "weights")
    without_sdt: str | None = None
    """Weights that were trained without SDT, for features; null takes the same network for both."""
    restorers: tuple[str, ...] = ()
    """Other restorers, as for `diffuir restore --restorer`, that panels show beside DiffUIR."""
    counts: tuple[int, ...] = (1, 2, 3, 4, 5, 10)
    """Numbers of sampling steps that steps compares."""
    images: int = Field(default=8, ge=1)
    """Most pairs of each set; for panels the first."""
    crops: int = Field(default=4, ge=1)
    """Crops of 128x128 pixels of each photo, for features."""
    device: Device = field_of(RestoreOptions, "device")
    seed: int = field_of(RestoreOptions, "seed")
    protocol: ProtocolName = DEFAULT_PROTOCOL
    """Definition of PSNR and SSIM."""
