"""The group norms of a prepared network, which in tiles share the statistics of the whole image.

A group norm looks at all it is given. Tiles that each take their own mean and variance come out as differently
toned pictures; with the whole image's they agree (tests/benchmarks/tiles.py has the table).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import EPS, GROUPS


class ImageStatistics:
    """Mean and variance of every group norm over an image: gathered tile by tile, then used by all tiles.

    What a tile adds was computed with its own statistics in the layers before, so the sums are near those of the
    whole image and not equal to them.
    """

    def __init__(self) -> None:
        self.gathering = True
        self._sums: dict[nn.Module, Tensor] = defaultdict(lambda: torch.zeros(()))

    def add(self, norm: nn.Module, mean: Tensor, rstd: Tensor, positions: int) -> None:
        """Count a tile in: mean and 1 / sqrt(variance + eps) of its groups, (GROUPS,), over so many positions."""
        square = rstd.pow(-2) - EPS + mean.square()
        moments = torch.stack((torch.ones_like(mean), mean, square))
        self._sums[norm] = self._sums[norm] + moments * positions

    def of(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """Mean and variance of the groups, each (GROUPS,), over all positions that were counted."""
        positions, mean, square = self._sums[norm]
        mean = mean / positions
        return mean, (square / positions - mean.square()).clamp_(min=0)


@dataclass(frozen=True)
class Step:
    """What the blocks of a prepared network are told: the number of the sampling step, and for a tile the
    statistics it adds to or uses."""

    number: int
    statistics: ImageStatistics | None = None


class StepNorm(nn.Module):
    """GroupNorm 8 with a gain and a bias for each sampling step, then SiLU. gain, bias: (steps, C)."""

    def __init__(self, gain: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.gain: Tensor
        self.bias: Tensor
        self.register_buffer("gain", gain)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return F.silu(self._normed(x, step), inplace=True)

    def _normed(self, x: Tensor, step: Step) -> Tensor:
        gain, bias = self.gain[step.number], self.bias[step.number]
        if step.statistics is None:
            return F.group_norm(x, GROUPS, gain, bias, EPS)
        _, channels, height, width = x.shape
        if step.statistics.gathering:
            # As F.group_norm does it, which forgets the statistics.
            x = x.contiguous() if x.is_cuda else x
            positions = height * width
            out, mean, rstd = torch.native_group_norm(x, gain, bias, 1, channels, positions, GROUPS, EPS)
            step.statistics.add(self, mean[0].float(), rstd[0].float(), positions)
            return out
        # With given statistics a group norm is a batch norm's inference.
        mean, variance = (moment.repeat_interleave(channels // GROUPS) for moment in step.statistics.of(self))
        return F.batch_norm(x, mean, variance, gain.float(), bias.float(), eps=EPS)
