"""Building blocks of the degradations: checks, seeded generators, random fields, points between pixels, sRGB.

All of it is NumPy on one thread, so that a seed gives the same bytes whatever the state of PyTorch's generator
or the number of threads.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..pixels import Pixels, is_rgb

Field = NDArray[np.float32]
"""A picture of real numbers: float32 (H, W) or (H, W, 3)."""

# The curve from linear light to sRGB is a table over sqrt(linear): dense where the curve is steep, and exact to
# 0.01 grey levels.
_CURVE_STEPS = 1 << 15

NEARLY_NONE = 0.15
"""Share of random draws, in each degradation, that hardly change the photo.

A network that isn't told the task learns from them to leave good photos alone.
"""


def check_photo(clean: Any) -> Pixels:
    """Return `clean` if it is uint8 of shape (H, W, 3) with H, W >= 1; raise ValueError otherwise."""
    if not is_rgb(clean):
        actual = f"{clean.dtype} {clean.shape}" if isinstance(clean, np.ndarray) else type(clean).__name__
        raise ValueError(
            f"a photo must be a uint8 array of shape (H, W, 3) with at least one pixel, not {actual}"
        )
    return clean


def require_range(owner: object, name: str, low: float, high: float) -> None:
    """Raise ValueError unless low <= owner.name <= high; for a tuple, each of its values is checked."""
    value = getattr(owner, name)
    for item in value if isinstance(value, tuple) else (value,):
        if not low <= item <= high:
            raise ValueError(f"{type(owner).__name__}.{name} must be in [{low:g}, {high:g}], not {item:g}")


def generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Two independent generators from one seed >= 0: one for the parameters, one for the picture.

    So the picture's randomness stays the same if parameters are given or drawn differently.
    """
    return np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number in [low, high] whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def to_photo(levels: Field) -> Pixels:
    """Round float grey levels to uint8, clipped to [0, 255]."""
    rounded: Pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return rounded


def resize(field: Field, height: int, width: int) -> Field:
    """Resize a (h, w) field to (height, width), bilinear, with antialiasing when it shrinks."""
    picture = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def smooth_field(rng: np.random.Generator, height: int, width: int, cells: float) -> Field:
    """Smooth noise, (height, width) float32 in [0, 1], with about `cells` bumps along the longer side."""
    longer = max(height, width)
    rows = max(2, round(cells * height / longer) + 1)
    columns = max(2, round(cells * width / longer) + 1)
    coarse = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    fine = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(fine, dtype=np.float32), 0.0, 1.0)


def gaussian_blur(field: Field, sigma: float) -> Field:
    """Blur a (H, W) field by a Gaussian of `sigma` pixels, edges replicated; a sigma below 0.2 changes nothing."""
    if sigma < 0.2:
        return field
    radius = max(1, int(np.ceil(2.5 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        size = field.shape[axis]
        padding = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(field, padding, mode="edge")
        total = np.zeros_like(field)
        for i, tap in enumerate(taps):
            total += tap * (padded[i : i + size] if axis == 0 else padded[:, i : i + size])
        field = total
    return field


def clipped_lights(photo: Pixels) -> Field:
    """Share of each pixel that is a clipped light, (H, W) float32 in [0, 1].

    All 0 where over 3% of the photo is white: then it is sky, snow or fur, which was hardly brighter than white.
    """
    lights = np.clip((photo.min(-1).astype(np.float32) - 248) / 7, 0, 1)
    return lights if lights.mean() <= 0.03 else np.zeros_like(lights)


def smooth_noise(noise: Field, smoothing: float) -> Field:
    """Mix (H, W, 3) noise with its neighbours above and to the left, keeping its variance; smoothing: 0 to 1."""
    if smoothing <= 0:
        return noise
    share = np.float32(smoothing / 2)
    keep = np.float32(1 / np.hypot(1 - share, share))
    for axis in (0, 1):
        noise = keep * ((1 - share) * noise + share * np.roll(noise, 1, axis))
    return noise


def splat(height: int, width: int, y: NDArray[Any], x: NDArray[Any], weight: NDArray[Any]) -> Field:
    """Draw points between pixels: (height, width) float32.

    y, x: the points' positions, pixels. weight: their brightness, which is shared by the four pixels around each.
    All three have one shape, any. Points outside the picture are dropped.
    """
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x, weight = y[inside], x[inside], weight[inside]
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    dy, dx = y - row, x - column
    stride = width + 2
    corner = (row + 1) * stride + column + 1
    canvas = np.zeros((height + 2) * stride)
    shares: Iterable[tuple[int, NDArray[Any]]] = (
        (0, (1 - dy) * (1 - dx)),
        (1, (1 - dy) * dx),
        (stride, dy * (1 - dx)),
        (stride + 1, dy * dx),
    )
    for offset, share in shares:
        canvas += np.bincount(corner + offset, weights=weight * share, minlength=canvas.size)
    return canvas.reshape(height + 2, stride)[1:-1, 1:-1].astype(np.float32)


def _to_linear(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _to_srgb(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


_LINEAR = _to_linear(np.arange(256) / 255.0).astype(np.float32)
_LEVELS = (255 * _to_srgb((np.arange(_CURVE_STEPS + 1) / _CURVE_STEPS) ** 2)).astype(np.float32)


def to_linear(photo: Pixels) -> Field:
    """Convert uint8 sRGB to linear light in [0, 1], float32 (IEC 61966-2-1)."""
    linear: Field = _LINEAR[photo]
    return linear


def from_linear(linear: Field) -> Field:
    """Convert linear light, clipped to [0, 1], to sRGB levels in [0, 255], float32, not rounded (IEC
    61966-2-1)."""
    index = np.rint(np.sqrt(np.clip(linear, 0.0, 1.0)) * _CURVE_STEPS).astype(np.int32)
    levels: Field = _LEVELS[index]
    return levels
