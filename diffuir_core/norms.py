"""The group norms of a prepared network; tiles of one image share its statistics.

A group norm depends on its whole input. Tiles with a mean and variance of their own come out in different tones;
with those of the whole image they agree (tests/benchmarks/README.md has the table).
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

    While gathering, the earlier layers of a tile still use the tile's own statistics, so the sums approximate
    those of the whole image.
    """

    def __init__(self) -> None:
        self.gathering = True
        """True while tiles are counted; False once their sums are to be used."""
        self._sums: dict[nn.Module, Tensor] = defaultdict(lambda: torch.zeros(()))

    def add(self, norm: nn.Module, mean: Tensor, rstd: Tensor, positions: int) -> None:
        """Count a tile.

        mean, rstd: mean and 1 / sqrt(variance + eps) of its groups, each (GROUPS,). positions: its number of
        positions.
        """
        square = rstd.pow(-2) - EPS + mean.square()
        moments = torch.stack((torch.ones_like(mean), mean, square))
        self._sums[norm] = self._sums[norm] + moments * positions

    def moments(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """Mean and variance of the groups, each (GROUPS,), over all counted positions."""
        positions, mean, square = self._sums[norm]
        mean = mean / positions
        return mean, (square / positions - mean.square()).clamp_(min=0)


@dataclass(frozen=True)
class Step:
    """The argument of a prepared network's blocks."""

    number: int
    """Number of the sampling step, from 0."""
    statistics: ImageStatistics | None = None
    """For a tile, the image's statistics, which it adds to or uses; None for a whole image."""


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
        # With given statistics a group norm is a batch norm in eval mode.
        mean, variance = (
            moment.repeat_interleave(x.shape[1] // GROUPS) for moment in statistics.moments(self)
        )
        return F.batch_norm(x, mean, variance, gain.float(), bias.float(), eps=EPS)


def group_norm(x: Tensor, gain: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """GroupNorm 8 of (B, C, H, W), with mean and 1 / sqrt(variance + eps) of its groups, each (B, GROUPS).

    On a GPU torch's kernel has one thread block for each group, eight for one image, and needs another layout than
    the convolutions: it takes two thirds of a pass of T over 1280x720, and three quarters of one of L. Here each
    channel is summed in place, by the whole GPU.
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
    out = torch.empty_like(x)  # in x's dtype, while scale and shift stay in float32
    torch.addcmul(shift[..., None, None], x, scale[..., None, None], out=out)
    return out, mean, rstd
