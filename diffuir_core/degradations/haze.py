"""Haze by the atmospheric scattering model, over a synthetic depth.

    I = J t + A (1 - t),    t = exp(-beta d)

J is the clean photo, A the airlight, d in [0, 1] the depth, beta the optical depth of the farthest point
(Koschmieder 1924; Narasimhan & Nayar, IJCV 2002). It is applied to the 8 bit sRGB values, as the data sets of
RESIDE do (Li et al., "Benchmarking Single-Image Dehazing and Beyond", IEEE TIP 2019).

A photo has no depth, so one is synthesised: it grows towards the top, up to a horizon at a random height, with a
smooth relief and a part that follows the brightness of large regions. A guided filter (He & Sun, "Fast Guided
Filter", arXiv 1505.00996) then aligns its steps with the edges of the photo. Real haze is not even: its density
varies in patches, and at night each light has a glow (Li et al., "Nighttime Haze Removal with Glow and Multiple
Light Colors", ICCV 2015, Eq. 3), which is the light of the photo, spread by the haze in front of it.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..pixels import Pixels
from ._fields import (
    NEARLY_NONE,
    Field,
    check_photo,
    gaussian_blur,
    generators,
    log_uniform,
    require_range,
    resize,
    smooth_field,
    to_photo,
)

# Points along the longer side of the grid on which the depth is synthesised and filtered.
_GRID = 48


@dataclass(frozen=True, kw_only=True)
class HazeParams:
    """Parameters of a haze. Raises ValueError with the name of a field that is out of its range."""

    beta: float
    """Optical depth at d = 1, [0, 5]: 0 is clear air."""
    airlight: tuple[float, float, float]
    """Colour of the haze, RGB as shares of full white, each [0.2, 1]."""
    near: float
    """Least depth in the photo, [0, 1]."""
    far: float
    """Greatest depth in the photo, [near, 1]; equal to `near` for a flat scene."""
    gradient: float
    """Weight of the part of the depth that grows towards the top, [0, 1]."""
    relief: float
    """Weight of the smooth random part, [0, 1]."""
    regions: float
    """Weight of the part that follows the brightness of the photo, [-1, 1]; positive makes bright regions far."""
    horizon: float
    """Height of the horizon, as a share of the photo's height from the top, [-2, 0.95]; negative is above it."""
    unevenness: float = 0.0
    """Variation of the density in patches, [0, 1]."""
    glow: float = 0.0
    """Brightness of the glow of bright lights, [0, 2]."""

    def __post_init__(self) -> None:
        require_range(self, "beta", 0, 5)
        require_range(self, "airlight", 0.2, 1)
        require_range(self, "near", 0, 1)
        require_range(self, "far", self.near, 1)
        require_range(self, "gradient", 0, 1)
        require_range(self, "relief", 0, 1)
        require_range(self, "regions", -1, 1)
        require_range(self, "horizon", -2, 0.95)
        require_range(self, "unevenness", 0, 1)
        require_range(self, "glow", 0, 2)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a haze: hardly any in a share `NEARLY_NONE` of draws, light to dense in the others.

        One draw in twelve is over a flat scene.
        """
        nearly_none = rng.random() < NEARLY_NONE
        near = float(0.05 + 0.65 * rng.random() ** 2)
        flat = rng.random() < 1 / 12
        # The haze of data sets is grey daylight; smog, dust and dusk are darker and coloured.
        by_day = rng.random() < 0.85
        # Dust and dusk are yellow, twilight is blue; no haze is green or purple.
        warmth = rng.normal(0, 0.03 if by_day else 0.1) * (rng.random() < 0.5 or not by_day)
        cast = warmth * np.array((1, 0.25, -1)) + rng.normal(0, 0.01, 3)
        light = np.clip(rng.uniform(0.7, 1) + cast if by_day else rng.uniform(0.25, 0.8) + cast, 0.2, 1)
        return cls(
            beta=float(rng.uniform(0.01, 0.08) if nearly_none else log_uniform(rng, 0.2, 3.5)),
            airlight=(float(light[0]), float(light[1]), float(light[2])),
            near=near,
            far=near if flat else float(near + (1 - near) * np.sqrt(rng.random())),
            gradient=float(rng.uniform(0, 1)),
            relief=float(rng.uniform(0, 0.6)),
            regions=float(rng.uniform(-0.4, 0.9)),
            horizon=float(rng.uniform(-1.5, 0.7)),
            unevenness=float(rng.uniform(0, 0.9)) if rng.random() < 0.35 else 0.0,
            glow=0.0 if by_day or nearly_none else float(rng.uniform(0, 1.5)),
        )


def haze(clean: Pixels, seed: int, params: HazeParams | None = None) -> Pixels:
    """Add haze to a photo; the same arguments give the same bytes.

    clean: uint8 (H, W, 3) RGB. seed: >= 0; seeds the depth, and the parameters if they are None. Returns uint8
    (H, W, 3). Raises ValueError for another array.
    """
    check_photo(clean)
    parameters, rng = generators(seed)
    if params is None:
        params = HazeParams.draw(parameters)
    height, width = clean.shape[:2]
    thickness = np.float32(params.beta) * depth(clean, params, rng)
    if params.unevenness > 0:
        thickness *= 1 + params.unevenness * (2 * smooth_field(rng, height, width, 4) - 1)
    transmission = np.exp(-thickness)[:, :, None]
    airlight = 255 * np.asarray(params.airlight, np.float32)
    if params.glow > 0:
        airlight = airlight + np.float32(params.glow) * _glow(clean)
    return to_photo(airlight + transmission * (clean - airlight))


def _glow(clean: Pixels) -> Field:
    """Light of the photo's bright parts, spread widely: (H, W, 3) float32 >= 0, grey levels."""
    height, width = clean.shape[:2]
    bright = np.clip(clean.astype(np.float32) - 200, 0, None) * (255 / 55)
    scale = min(1.0, _GRID / max(height, width))
    rows, columns = max(2, round(height * scale)), max(2, round(width * scale))
    spread = (gaussian_blur(resize(bright[..., i], rows, columns), _GRID / 12) for i in range(3))
    return np.stack([resize(field, height, width) for field in spread], axis=-1)


def depth(clean: Pixels, params: HazeParams, rng: np.random.Generator) -> Field:
    """Synthesise a plausible depth of the photo, (H, W) float32 in [params.near, params.far]."""
    height, width = clean.shape[:2]
    if params.near == params.far:
        return np.full((height, width), params.near, np.float32)
    scale = min(1.0, _GRID / max(height, width))
    rows, columns = max(2, round(height * scale)), max(2, round(width * scale))
    luminance: Field = clean @ (np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255))
    guide = resize(luminance, rows, columns)

    level = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    rise = np.clip((1 - level) / (1 - params.horizon), 0, 1) ** 2
    coarse: Field = params.gradient * rise + params.relief * smooth_field(rng, rows, columns, 3)
    coarse = coarse + np.float32(params.regions) * _box(guide, 2)
    slope, offset = _guided(coarse, guide)
    laid = resize(slope, height, width) * luminance + resize(offset, height, width)
    low, high = float(laid.min()), float(laid.max())
    unit = (laid - np.float32(low)) / np.float32(max(high - low, 1e-6))
    return (params.near + (params.far - params.near) * unit).astype(np.float32)


def _guided(target: Field, guide: Field) -> tuple[Field, Field]:
    """Slope and offset of the guided filter's local line target = slope guide + offset, each (h, w) float32."""
    radius, regularisation = 3, 0.01
    mean, mean_target = _box(guide, radius), _box(target, radius)
    variance = _box(guide * guide, radius) - mean * mean
    covariance = _box(guide * target, radius) - mean * mean_target
    slope = covariance / (variance + regularisation)
    return _box(slope.astype(np.float32), radius), _box(
        (mean_target - slope * mean).astype(np.float32), radius
    )


def _box(field: Field, radius: int) -> Field:
    """The mean over (2 radius + 1)^2 pixels around each, edges replicated, (h, w) float32."""
    size = 2 * radius + 1
    padded: NDArray[np.float64] = np.pad(field.astype(np.float64), radius + 1, mode="edge")[:-1, :-1]
    total = padded.cumsum(0).cumsum(1)
    area = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    return (area / size**2).astype(np.float32)
