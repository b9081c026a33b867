"""Whole or in tiles: what a restore takes of memory, and what there is."""

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
"""Feature maps as wide as the first level and as large as the image that exist at once, at most: two skips, the
first convolution's output and what it makes of I_in, two to concatenate, their concatenation, and what a
convolution makes of that."""

PLANES_AT_PEAK = 24
"""float32 planes as large as the image: I_t, I_in, the noise, the residual and what they are made of."""

BASE_BYTES = 2**28
"""What does not grow with the image: bands of linear attention, the libraries' own buffers."""

SMALLEST_TILE = 128
OVERLAP = 64
"""Pixels by which tiles overlap, or half a tile where that is less."""

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Plan:
    """How one image is restored. tiling: None for the whole image at once. needed, available: bytes."""

    tiling: Tiling | None
    needed: int
    available: int


def plan(
    size: Variant, height: int, width: int, itemsize: int, available: int, tile: int | None = None
) -> Plan:
    """The whole image where it fits, else the largest tiles that do, else the smallest.

    itemsize: bytes of an activation, 4 for float32, 2 for bfloat16. available: bytes that may be taken. tile: the
    side of the tiles, in place of what memory says; one that covers the image is the whole image.
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
    return Plan(tiles_of(height, width, tile), needed(min(tile, height), min(tile, width)), available)


def tiles_of(height: int, width: int, tile: int) -> Tiling:
    """Tiles of that side with the usual overlap."""
    return Tiling(height, width, tile, min(OVERLAP, tile // 2 // GRID * GRID))


def pixels_of(plan: Plan, height: int, width: int) -> int:
    """How many pixels the network sees at each step, padded.

    In tiles it sees the image once for the norms' statistics, and then again, more than once where tiles overlap.
    """
    if plan.tiling is None:
        return math.prod(padded_size(height, width))
    windows = plan.tiling.edge_to_edge.windows + plan.tiling.windows
    return sum(math.prod(padded_size(r.stop - r.start, c.stop - c.start)) for r, c in windows)


def smaller(height: int, width: int, tiling: Tiling | None) -> Tiling:
    """Tiles of half the side, for when the whole image (None) or these tiles ran out of memory all the same.

    Raises `UserError` where they are as small as they get.
    """
    side = tiling.tile if tiling else max(padded_size(height, width))
    if side <= SMALLEST_TILE:
        raise UserError(f"there is not the memory to restore {width}x{height} even in tiles of {side} pixels")
    return tiles_of(height, width, max(side // 2 // MULTIPLE * MULTIPLE, SMALLEST_TILE))


def available_memory(device: torch.device) -> int:
    """Bytes that this process may still take on `device`: what is free there and what it keeps of what it freed.

    On a CPU its cgroup may allow less than the machine has.
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
        return None  # no cgroup of that kind, or "max": no limit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out; on a CPU torch says so with a bare RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
