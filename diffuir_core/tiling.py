"""Overlapping tiles of a large image, blended at their borders.

GroupNorm and both attentions depend on their whole input, so tiles approximate the whole image; the norms of all
tiles share its statistics (norms.py). Tiles are blended in the residual of every sampling step, not in the result:
each step starts all tiles from one image, so that no tile drifts away from its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

GRID = 8
"""Tiles start at multiples of this, in pixels, so that the network's three halvings fall as in the whole image."""


@dataclass(frozen=True)
class Tiling:
    """Square tiles over an image.

    Raises `ValueError` for a tile that is not a multiple of 16, or an overlap that is not a multiple of 8 or is
    more than half a tile.
    """

    height: int
    """Height of the image, pixels."""
    width: int
    """Width of the image, pixels."""
    tile: int
    """Side of a tile, pixels."""
    overlap: int
    """Least overlap of neighbouring tiles, pixels."""

    def __post_init__(self) -> None:
        if self.tile < 16 or self.tile % 16:
            raise ValueError(f"tile is {self.tile}: it must be a multiple of 16")
        if not 0 <= self.overlap <= self.tile // 2 or self.overlap % GRID:
            raise ValueError(
                f"overlap is {self.overlap}: it must be a multiple of {GRID} in 0 .. {self.tile // 2}"
            )

    @property
    def windows(self) -> list[tuple[slice, slice]]:
        """The rows and columns of each tile; together the tiles cover the image."""
        rows, columns = (_spans(side, self.tile, self.overlap) for side in (self.height, self.width))
        return [(row, column) for row in rows for column in columns]

    @property
    def edge_to_edge(self) -> Tiling:
        """The fewest tiles of the same side that cover the image."""
        return replace(self, overlap=0)

    def __len__(self) -> int:
        return len(self.windows)

    def __str__(self) -> str:
        return f"{len(self)} tiles of {self.tile} pixels that overlap by {self.overlap} or more"

    def blend(self, predict: Callable[[slice, slice], Tensor], like: Tensor) -> Tensor:
        """Blend the (B, C, h, w) tiles that `predict` returns for the windows into a (B, C, H, W) like `like`.

        A pixel is the mean of the tiles that it lies in, weighted by its distance from the tiles' borders.
        """
        total = torch.zeros_like(like)
        weights = like.new_zeros((self.height, self.width))
        for rows, columns in self.windows:
            weight = self._weight(rows, self.height)[:, None] * self._weight(columns, self.width)
            weight = weight.to(like)
            total[..., rows, columns] += predict(rows, columns) * weight
            weights[rows, columns] += weight
        return total.div_(weights)

    def _weight(self, span: slice, side: int) -> Tensor:
        """Weights of a span, (length,) in (0, 1]: a raised cosine over its overlaps, 1 at the image's edges."""
        length = span.stop - span.start
        weight = torch.ones(length, dtype=torch.float64)
        if self.overlap:
            ramp = torch.sin((torch.arange(self.overlap) + 0.5) / self.overlap * (math.pi / 2)) ** 2
            if span.start > 0:
                weight[: self.overlap] *= ramp
            if span.stop < side:
                weight[-self.overlap :] *= ramp.flip(0)
        return weight


def _spans(side: int, tile: int, overlap: int) -> list[slice]:
    """The fewest evenly spread spans of `tile` pixels that cover `side` and overlap by at least `overlap`."""
    if side <= tile:
        return [slice(0, side)]
    last = math.ceil((side - tile) / GRID)
    steps = math.ceil(last / ((tile - overlap) // GRID))
    starts = [last * i // steps * GRID for i in range(steps + 1)]
    return [slice(start, min(start + tile, side)) for start in starts]
