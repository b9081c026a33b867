"""What a gateway asks of a model, and what comes back.

Apart from both, so that gateways, which only read and write photos, do not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffuir_core.imaging import Pixels

MODEL = "Model"
"""The deployment that restores."""


BASE_PIXELS = 64 * 64
"""What a photo of no pixels would count as: a model has to be called for it, however small it is."""


def units(height: int, width: int, steps: int) -> float:
    """Of work that a photo is: pixels x steps."""
    return float((height * width + BASE_PIXELS) * steps)


@dataclass(frozen=True)
class Options:
    """Of one photo's restore; the names of the command line."""

    model: str
    steps: int
    seed: int
    strength: float
    equalise: bool

    @property
    def model_id(self) -> str:
        """What Serve knows their restorer by, where it is not the first one."""
        return f"{self.model}:{self.steps}"


@dataclass(frozen=True)
class Restored:
    """A restored photo, uint8 (H, W, 3), and how it came about.

    tiles: it was restored in, None: whole. queued, took: seconds of waiting in the model's process, and of its own
    time. batch: photos that went through together.
    """

    pixels: Pixels
    tiles: str | None
    precision: str
    queued: float
    took: float
    batch: int


class RestoreFailedError(Exception):
    """The model failed on this photo; one sentence."""
