"""The guard: how much of the network's change of a photo is plausible.

A network trained on degraded photos also changes pictures that need nothing: it takes a night sky for a dark
photo, a white page for haze, letters and fences for rain. The guard looks at the photo and at the change, and asks
four questions.

- Is the photo drawn? In a screenshot, a page of text or a chart most pixels have exactly their neighbours' colour.
- Is it thin detail on an even ground, such as stars or print, rather than objects?
- Is a change of the even parts borne out by the rest? Where haze or darkness is taken away, contrast rises with
  it; a change of level without that, or where there is no detail at all, is a guess.
- Does what is taken for rain go on as lines through the picture? The streaks of rain are short, and lie anywhere.

Every answer is a share between 0 and 1 with a smooth transition, so that a grey level more or less, from another
machine's arithmetic, changes the result by no more than that. All measures but the first are taken on copies of at
most SIDE pixels, so they depend little on the photo's size. tests/benchmarks/good_photos.py measures the effect.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pixels import Pixels

Levels = NDArray[np.float32]

SIDE = 256
"""Longest side of the copies that are measured, pixels."""
WINDOW = 5
"""Side of the windows of the median, which removes thin detail, and of the deviation, pixels of the copy."""
FINE, COARSE = 8, 32
"""Sides of the blocks in which contrast before and after is compared, pixels of the copy."""
EVEN = 4.0
"""Standard deviation in a window below which a photo is even there, grey levels."""
BLACK = 16
"""Level up to which equal neighbours say nothing: a dark photo is black there."""
SAMPLED_PIXELS = 2**20
"""Most pixels whose neighbours are compared."""

DRAWN = "a drawn picture, such as text, a screenshot or one colour"
THIN = "thin detail on an even ground, such as stars or print"
UNSUPPORTED = "a photo without detail that bears it out"
LINES = "lines that go on through the picture, such as a fence"


@dataclass(frozen=True)
class Verdict:
    """The share of the network's change that is plausible, 0 .. 1, and for which kind of picture it is not."""

    share: float
    kind: str

    @property
    def note(self) -> str | None:
        """A sentence on what was held back; None if nothing was."""
        if self.share == 1:
            return None
        percent = min(99, max(1, round(100 * self.share)))
        left = "the photo is left as it was" if self.share == 0 else f"{percent}% of it is made"
        return f"the model's change was implausible for {self.kind}: {left} (guard=off makes all of it)"


def judge(photo: Pixels, restored: Pixels) -> Verdict:
    """The share of the change from `photo` to `restored`, both uint8 (H, W, 3), that is plausible."""
    before, after = _copy(photo), _copy(restored)
    x, change = _levels(before), _levels(after) - _levels(before)
    visible = _ramp(float(np.sqrt(np.mean(change**2))), 1.0, 3.0)
    if visible == 0:
        return Verdict(1.0, "")
    broad, broad_after = _without_thin_detail(before), _without_thin_detail(after)
    even = _deviation(x) < EVEN
    total = max(float(np.abs(change).sum()), 1e-3)
    removed = np.maximum(-change, 0)
    unsupported = 1 - _support(broad, broad_after)
    # Print is on light paper; in light haze and snow little is thin, in a dark photo noise and lamps are.
    thin = _thinness(x, broad) + 0.2 * _ramp(float(np.median(broad)), 110, 150)
    held_back = {
        DRAWN: _ramp(_equal_share(photo), 0.5, 0.65),
        THIN: _ramp(thin, 0.6, 0.8) * _ramp(float(even.mean()), 0.25, 0.4),
        UNSUPPORTED: unsupported * _ramp(float(np.abs(change[even]).sum()) / total, 0.2, 0.35),
        LINES: unsupported * _ramp(float(removed.sum()) / total, 0.5, 0.8) * _ramp(_lines(removed), 0.6, 0.8),
    }
    kind = max(held_back, key=lambda name: held_back[name])
    share = float(np.prod([1 - visible * part for part in held_back.values()]))
    return Verdict(_ramp(share, 0.05, 0.95), kind)


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on, straight between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _copy(pixels: Pixels) -> Image.Image:
    """A grey copy of at most SIDE pixels, each the mean of those that it stands for."""
    image = Image.fromarray(pixels)
    scale = min(1.0, SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX).convert("L")


def _levels(image: Image.Image) -> Levels:
    return np.asarray(image, dtype=np.float32)


def _equal_share(photo: Pixels) -> float:
    """The share of pixels that are not black and exactly equal to all four neighbours, from a sample of rows."""
    height, width = photo.shape[:2]
    if min(height, width) < 3:
        return 0.0
    rows = np.arange(1, height - 1, max(1, height * width // SAMPLED_PIXELS))
    lit = np.zeros((len(rows), width - 2), dtype=bool)
    equal = ~lit
    for channel in np.moveaxis(photo, -1, 0):  # all(-1) over three values takes ten times as long
        here = channel[rows]
        beside = here[:, 1:] == here[:, :-1]
        across = (here == channel[rows - 1]) & (here == channel[rows + 1])
        equal &= across[:, 1:-1] & beside[:, 1:] & beside[:, :-1]
        lit |= here[:, 1:-1] > BLACK
    return float((equal & lit).mean())


def _thinness(x: Levels, broad: Levels) -> float:
    """Contrast of thin detail relative to that of broad objects, without unit; `broad` is `x` without thin detail.

    The product of two ratios: of the standard deviations, and of the ranges.
    """
    thin = x - broad
    low, high = np.percentile(broad, (0.5, 99.5))
    deviations = np.sqrt(np.mean(thin**2)) / (broad.std() + 1)
    return float(deviations * np.percentile(np.abs(thin), 99.9) / (high - low + 8))


def _windows(x: NDArray[Any]) -> list[NDArray[Any]]:
    """The pixels of the window around each pixel, WINDOW^2 arrays (H, W); the edge is repeated outwards."""
    padded = np.pad(x, WINDOW // 2, "edge")
    places = itertools.product(range(WINDOW), repeat=2)
    return [padded[row : row + x.shape[0], column : column + x.shape[1]] for row, column in places]


def _without_thin_detail(copy: Image.Image) -> Levels:
    """The median of each window, (H, W) grey levels."""
    values = _windows(np.asarray(copy))
    # Odd-even transposition sort of whole arrays: five times as fast as Pillow's filter.
    for turn in range(len(values)):
        for i in range(turn % 2, len(values) - 1, 2):
            low, high = values[i : i + 2]
            values[i], values[i + 1] = np.minimum(low, high), np.maximum(low, high)
    return values[len(values) // 2].astype(np.float32)


def _deviation(x: Levels) -> Levels:
    """The standard deviation of each window, (H, W) grey levels."""
    values = _windows(x)
    mean = sum(values, np.float32(0)) / len(values)
    square = sum((value**2 for value in values), np.float32(0)) / len(values)
    deviation: Levels = np.sqrt(np.maximum(square - mean**2, 0))
    return deviation


def _support(before: Levels, after: Levels) -> float:
    """The degree, 0 .. 1, to which a rise of contrast in enough of the picture bears the change of level out."""
    fine, coarse = (_explained(before, after, side) for side in (FINE, COARSE))
    bright = float(np.percentile(before, 99.5))
    # A photo that has bright objects already is not dark as a whole: more of it has to speak for a brighter one.
    needed = 0.12 + (0.28 * _ramp(bright, 60, 180) if after.mean() > before.mean() else 0)
    return max(_ramp(fine, 0.115, 0.16), _ramp(coarse, needed, needed + 0.1))


def _explained(before: Levels, after: Levels, side: int) -> float:
    """The share of the picture whose change of level comes with the contrast that belongs to it, 0 .. 1.

    In blocks of side x side pixels with detail, the gain of the detail is compared with what the change of the
    block's mean m asks for. Darker by s: a veil of white light is removed, Eq. 1 of He et al. (CVPR 2009) with an
    airlight of 255, so the gain is 1 + s / (255 - m). Brighter: a power law that takes m to its new value.
    """
    x, y = _blocks(before, side), _blocks(after, side)
    mean, new_mean = x.mean(1), y.mean(1)
    x, y = _without_slope(x, side), _without_slope(y, side)
    variance = (x**2).mean(1)
    gain = (x * y).mean(1) / (variance + 1e-3)
    detailed = np.sqrt(variance) > np.clip(0.05 * mean, 0.6, 1.6)
    if not detailed.any():
        return 0.0
    shift = np.maximum(np.abs(new_mean - mean), 1e-3)
    low, high = np.minimum(mean, 253) + 2, np.clip(new_mean + 2, 3, 255)
    power_gain = np.maximum(np.log(high / 257) / np.log(low / 257) * high / low, 1.1)
    asked = np.where(new_mean > mean, power_gain - 1, shift / np.maximum(255 - mean, 1e-3))
    met = np.clip((gain - 1) / asked, 0, 1)
    weight = shift * detailed
    return float(detailed.mean() * (weight * met).sum() / weight.sum())


def _lines(removed: Levels) -> float:
    """The degree, 0 .. 1, to which the light that was removed forms upright or level lines through the picture.

    The mean correlation of the profiles of neighbouring bands, each COARSE pixels high, or wide for level lines.
    """
    return max(_profile_correlation(removed), _profile_correlation(removed.T))


def _profile_correlation(removed: Levels) -> float:
    """The correlation of each band's mean columns with those of the next, 0 .. 1, at the best of nine shifts."""
    bands, width = removed.shape[0] // COARSE, removed.shape[1]
    if bands < 3 or width < COARSE:
        return 0.0
    profiles = removed[: bands * COARSE].reshape(bands, COARSE, width).mean(1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(profiles, ((0, 0), (7, 7)), "edge"), 15, axis=1)
    profiles = profiles - around.mean(-1)
    upper, lower = profiles[:-1], profiles[1:]
    products = [
        (upper[:, max(0, by) : width + min(0, by)] * lower[:, max(0, -by) : width + min(0, -by)]).sum(1)
        for by in range(-4, 5)
    ]
    energy = np.sqrt((upper**2).sum(1) * (lower**2).sum(1))
    return float(np.max([*products, np.zeros_like(energy)], axis=0).sum() / max(float(energy.sum()), 1e-6))


def _blocks(x: Levels, side: int) -> Levels:
    """The whole blocks of side x side pixels, (N, side^2); a smaller picture is repeated at its edge."""
    short = [(0, max(0, side - length)) for length in x.shape]
    x = np.pad(x, short, "edge")
    rows, columns = x.shape[0] // side, x.shape[1] // side
    x = x[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return x.swapaxes(1, 2).reshape(-1, side * side)


def _without_slope(blocks: Levels, side: int) -> Levels:
    """Blocks (N, side^2) less the plane that fits each best: a gradient is no detail."""
    along = np.arange(side, dtype=np.float32) - (side - 1) / 2
    planes = np.stack([np.ones(side * side, np.float32), np.tile(along, side), np.repeat(along, side)])
    planes /= np.linalg.norm(planes, axis=1, keepdims=True)
    return blocks - blocks @ planes.T @ planes
