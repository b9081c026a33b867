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
        statistics = step.statistics
        if statistics is None or statistics.gathering:
            out, mean, rstd = group_norm(x, gain, bias)
            if statistics is not None:
                statistics.add(self, mean[0].float(), rstd[0].float(), x[0, 0].numel())
            return out
        # With given statistics a group norm is a batch norm's inference.
        mean, variance = (moment.repeat_interleave(x.shape[1] // GROUPS) for moment in statistics.of(self))
        return F.batch_norm(x, mean, variance, gain.float(), bias.float(), eps=EPS)


def group_norm(x: Tensor, gain: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """GroupNorm 8 of (B, C, H, W), with mean and 1 / sqrt(variance + eps) of its groups, each (B, GROUPS).

    On a GPU torch's own kernel has one block of threads for each group, eight for one image, and wants another
    layout than the convolutions: of a pass over 1280x720 it takes two thirds with T, three quarters with L. Here
    each channel is summed up where it lies, by the whole GPU.
    """
    B, C, H, W = x.shape
    if not x.is_cuda:
        return torch.native_group_norm(x, gain, bias, B, C, H * W, GROUPS, EPS)
    means = x.mean((2, 3), dtype=torch.float32)
    squares = torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32).square() / (H * W)
    mean, square = (channels.unflatten(1, (GROUPS, -1)).mean(dim=2) for channels in (means, squares))
    rstd = ((square - mean.square()).clamp_(min=0) + EPS).rsqrt()
    scale = gain * rstd.repeat_interleave(C // GROUPS, dim=1)
    shift = bias - mean.repeat_interleave(C // GROUPS, dim=1) * scale
    out = torch.empty_like(x)  # in x's precision; scale and shift stay in float32
    torch.addcmul(shift[..., None, None], x, scale[..., None, None], out=out)
    return out, mean, rstd
