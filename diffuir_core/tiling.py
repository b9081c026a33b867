"""Large images in overlapping tiles, blended where they meet.

GroupNorm and both attentions look at all they are given, so a tile is an approximation of the whole image; the
norms of all tiles share its statistics (norms.py). What is blended is the residual of every sampling step, not the
restored tiles: each step starts all tiles from one image, and a tile cannot drift away from its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

GRID = 8
"""Tiles start at multiples of this: where the network's three halvings fall as they do in the whole image."""


@dataclass(frozen=True)
class Tiling:
    """Square tiles over an image. height, width: of the image; tile: side; overlap: of neighbours, at least.

    All in pixels. Raises `ValueError` for a tile that is not a multiple of 16, or an overlap that is not one of
    8 or is more than half of it.
    """

    height: int
    width: int
    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if self.tile < 16 or self.tile % 16:
            raise ValueError(f"tile is {self.tile}: it must be a multiple of 16")
        if not 0 <= self.overlap <= self.tile // 2 or self.overlap % GRID:
            raise ValueError(
                f"overlap is {self.overlap}: it must be a multiple of {GRID} in 0 .. {self.tile // 2}"
            )

    @property
    def windows(self) -> list[tuple[slice, slice]]:
        """The rows and columns of each tile, which together cover the image."""
        rows, columns = (_spans(side, self.tile, self.overlap) for side in (self.height, self.width))
        return [(row, column) for row in rows for column in columns]

    @property
    def edge_to_edge(self) -> Tiling:
        """Tiles of the same side that overlap no more than they must to cover the image."""
        return replace(self, overlap=0)

    def __len__(self) -> int:
        return len(self.windows)

    def __str__(self) -> str:
        return f"{len(self)} tiles of {self.tile} pixels that overlap by {self.overlap} or more"

    def blend(self, predict: Callable[[slice, slice], Tensor], like: Tensor) -> Tensor:
        """What `predict` gives for each window, (B, C, h, w), as one (B, C, H, W) in the shape of `like`.

        A pixel is the mean of the tiles it lies in, each weighed by how deep inside that tile it is.
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
        """(span,) weights in (0, 1]: a raised cosine over the overlap at each end that is not the image's own."""
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
    """The fewest spans of `tile` that cover `side` and overlap by at least `overlap`, spread evenly."""
    if side <= tile:
        return [slice(0, side)]
    last = math.ceil((side - tile) / GRID)
    steps = math.ceil(last / ((tile - overlap) // GRID))
    starts = [last * i // steps * GRID for i in range(steps + 1)]
    return [slice(start, min(start + tile, side)) for start in starts]
