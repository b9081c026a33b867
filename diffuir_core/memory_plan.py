"""The decision between a whole image and tiles: the memory that a restore needs, and the memory there is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from .allocator import kept_bytes
from .errors import UserError
from .tiling import GRID, Tiling
from .unet import MULTIPLE, padded_size
from .variants import Variant

WIDTHS_AT_PEAK = 9.0
"""Most feature maps of the first level's width and the image's size that exist at once: two skips, the first
convolution's output and its part from I_in, two to concatenate, their concatenation (twice as wide), and the
output of a convolution over it."""

PLANES_AT_PEAK = 24
"""Most float32 planes of the image's size at once: I_t, I_in, the noise, the residual, and intermediates."""

BASE_BYTES = 2**28
"""Bytes that do not depend on the image: bands of linear attention, the libraries' own buffers."""

SMALLEST_TILE = 128
"""Smallest side of a tile, pixels."""
OVERLAP = 64
"""Overlap of neighbouring tiles, pixels; half a tile where that is less."""

CGROUP = Path("/sys/fs/cgroup")
"""Folder of this process's cgroup (version 2), as a container sees it."""


@dataclass(frozen=True)
class Plan:
    """The way one image is restored."""

    tiling: Tiling | None
    """Its tiles; None for the whole image at once."""
    needed: int
    """Memory needed, bytes."""
    available: int
    """Memory available, bytes."""


def plan(
    size: Variant, height: int, width: int, itemsize: int, available: int, tile: int | None = None
) -> Plan:
    """Choose the whole image if it fits into memory, else the largest tiles that do, else the smallest.

    height, width: size of the image, pixels. itemsize: bytes of an activation, 4 for float32, 2 for bfloat16.
    available: bytes that may be used. tile: side of the tiles, whatever the memory; a tile that covers the image
    is the whole image.
    """
    planes = height * width * PLANES_AT_PEAK * 4
    per_pixel = WIDTHS_AT_PEAK * size.dim * itemsize

    def needed(height: int, width: int) -> int:
        padded_height, padded_width = padded_size(height, width)
        return BASE_BYTES + planes + int(padded_height * padded_width * per_pixel)

    longest = max(padded_size(height, width))
    if tile is None:
        sides = range(longest, SMALLEST_TILE - 1, -4 * MULTIPLE)
        fitting = (side for side in sides if needed(min(side, height), min(side, width)) <= available)
        tile = next(fitting, SMALLEST_TILE)
    if tile >= longest:
        return Plan(None, needed(height, width), available)
    return Plan(
        overlapping_tiles(height, width, tile), needed(min(tile, height), min(tile, width)), available
    )


def overlapping_tiles(height: int, width: int, tile: int) -> Tiling:
    """Tiles with sides of `tile` pixels and the default overlap."""
    return Tiling(height, width, tile, min(OVERLAP, tile // 2 // GRID * GRID))


def pixels_per_step(plan: Plan, height: int, width: int) -> int:
    """Pixels that go through the network at each step, with padding.

    Tiles go through it twice: once without overlap for the norms' statistics, once with overlap for the result.
    """
    if plan.tiling is None:
        return math.prod(padded_size(height, width))
    windows = plan.tiling.edge_to_edge.windows + plan.tiling.windows
    return sum(math.prod(padded_size(r.stop - r.start, c.stop - c.start)) for r, c in windows)


def halved_tiles(height: int, width: int, tiling: Tiling | None) -> Tiling:
    """Tiles of half the side, for when these tiles, or the whole image (None), ran out of memory.

    Raises `UserError` if they already have the smallest side.
    """
    side = tiling.tile if tiling else max(padded_size(height, width))
    if side <= SMALLEST_TILE:
        raise UserError(
            f"there is not enough memory to restore {width}x{height}, even in tiles of {side} pixels: "
            "free some, or use a smaller variant"
        )
    return overlapping_tiles(height, width, max(side // 2 // MULTIPLE * MULTIPLE, SMALLEST_TILE))


def available_memory(device: torch.device) -> int:
    """Bytes that this process can still use on `device`: free memory, and freed memory that it keeps.

    On a CPU the limit of its cgroup counts too.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = int(psutil.virtual_memory().available)
    limit, used = (_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    left = free if limit is None or used is None else min(free, max(limit - used, 0))
    return left + kept_bytes()


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # no cgroup of version 2, or "max", which is no limit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory ran out; on a CPU torch raises a plain RuntimeError for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
