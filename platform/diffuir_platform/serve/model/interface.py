"""The messages between a gateway and a model.

In a module of its own, so that gateways, which only decode and encode photos, do not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffuir_core.imaging import Pixels

MODEL = "Model"
"""Name of the deployment of the model replicas."""

BASE_PIXELS = 64 * 64
"""Pixels added to those of every photo: a call of the model costs time, however small the photo is."""


def work_units(height: int, width: int, steps: int) -> float:
    """The work of restoring one photo, pixels x steps."""
    return float((height * width + BASE_PIXELS) * steps)


@dataclass(frozen=True)
class ModelOptions:
    """Options of one photo's restore, with the names of the command line."""

    model: str
    steps: int
    seed: int
    strength: float
    equalise: bool
    guard: bool

    @property
    def model_id(self) -> str:
        """Id under which Ray Serve multiplexes the restorer, where it is not the default one."""
        return f"{self.model}:{self.steps}"


@dataclass(frozen=True)
class Restored:
    """A restored photo, and how it was restored.

    pixels: uint8 (H, W, 3) RGB. tiles: the tiling, None where the photo was restored whole. note: what the guard
    held back, None for nothing. queued: seconds in the replica's queue. took: the photo's share of its batch's
    seconds in the model. batch: photos in the batch.
    """

    pixels: Pixels
    tiles: str | None
    note: str | None
    precision: str
    queued: float
    took: float
    batch: int


class RestoreFailedError(Exception):
    """The model failed on this photo; the message is one sentence."""
