"""Snow: layers of flakes at several depths in front of the photo, and a veil.

    O = (1 - a) (B (1 - M) + C M) + a A

M in [0, 1] is the flakes' opacity, C their colour, a and A the opacity and the light of the veil (Liu et al.,
"DesnowNet: Context-Aware Deep Network for Snow Removal", IEEE TIP 2018, Eq. 1, the model of Snow100K; Chen et al.,
"JSTASR", ECCV 2020, for the veil). Far flakes are many, small and faint; near ones are few, large, out of focus
and uneven in outline. A flake that moves during the exposure is elongated along its path.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..pixels import Pixels
from ._fields import (
    NEARLY_NONE,
    Field,
    check_photo,
    gaussian_blur,
    generators,
    log_uniform,
    require_range,
    smooth_field,
    splat,
    to_photo,
)

# Radius, in pixels, above which flakes are painted one by one with an outline of their own.
_PAINTED_RADIUS = 3.5


@dataclass(frozen=True, kw_only=True)
class FlakeLayer:
    """Flakes at one depth. Raises ValueError with the name of a field that is out of its range."""

    radius: float
    """Mean radius, pixels, [0.4, 40]."""
    coverage: float
    """Total area of the flakes over the photo's area, [0, 1]."""
    opacity: float
    """Opacity of the densest flake's middle, [0, 1]."""
    motion: float
    """Length of the path during the exposure, pixels, [0, 80]."""
    angle: float
    """Direction of the path from the vertical, degrees, [-90, 90]."""
    softness: float
    """Softness of the edge, [0, 1]: 0 is sharp, 1 fades from the middle outwards."""

    def __post_init__(self) -> None:
        require_range(self, "radius", 0.4, 40)
        require_range(self, "coverage", 0, 1)
        require_range(self, "opacity", 0, 1)
        require_range(self, "motion", 0, 80)
        require_range(self, "angle", -90, 90)
        require_range(self, "softness", 0, 1)


@dataclass(frozen=True, kw_only=True)
class SnowParams:
    """Parameters of a snowfall. Raises ValueError with the name of a field that is out of its range."""

    layers: tuple[FlakeLayer, ...]
    """The layers of flakes, one to eight, the far ones first."""
    colour: tuple[float, float, float]
    """Colour of the flakes, RGB, each [0.6, 1]."""
    veil: float
    """Opacity of the veil of distant snow, [0, 0.8]."""
    airlight: float
    """Brightness of the veil, as a share of full white, [0.5, 1]."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.layers) <= 8:
            raise ValueError(f"SnowParams.layers must hold 1 to 8 layers, not {len(self.layers)}")
        require_range(self, "colour", 0.6, 1)
        require_range(self, "veil", 0, 0.8)
        require_range(self, "airlight", 0.5, 1)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a snowfall: hardly any in a share `NEARLY_NONE` of draws, light to dense at up to four depths in
        the others.
        """
        nearly_none = rng.random() < NEARLY_NONE
        severity = 0.0 if nearly_none else float(rng.uniform(0.1, 1))
        angle = float(np.clip(rng.normal(0, 30), -80, 80))
        scale = log_uniform(rng, 0.6, 1.8)
        # Radii (pixels), densest coverage and probability of each depth.
        depths = (
            ((0.5, 1.0), 0.35, 0.9),
            ((0.9, 2.2), 0.25, 0.8),
            ((2.0, 4.5), 0.15, 0.55),
            ((4.0, 14.0), 0.12, 0.35),
        )
        layers = []
        for radius, densest, chance in depths:
            if rng.random() < (0.4 if nearly_none else chance):
                layers.append(_draw_layer(rng, radius, densest * severity, scale, angle, nearly_none))
        if not layers:
            layers.append(_draw_layer(rng, (0.5, 2.2), 0.3 * severity, scale, angle, nearly_none))
        grey = rng.uniform(0.85, 1)
        veiled = not nearly_none and rng.random() < 0.35
        return cls(
            layers=tuple(layers),
            colour=(
                float(grey * rng.uniform(0.96, 1)),
                float(grey),
                float(min(grey * rng.uniform(1, 1.04), 1)),
            ),
            veil=float(rng.uniform(0.02, 0.35)) if veiled else 0.0,
            airlight=float(rng.uniform(0.7, 1)),
        )


def _draw_layer(
    rng: np.random.Generator,
    radius: tuple[float, float],
    densest: float,
    scale: float,
    angle: float,
    nearly_none: bool,
) -> FlakeLayer:
    size = float(np.clip(scale * log_uniform(rng, *radius), 0.4, 40))
    moving = rng.random() < 0.6
    return FlakeLayer(
        radius=size,
        coverage=log_uniform(rng, 0.001, 0.01) if nearly_none else densest * log_uniform(rng, 0.08, 1),
        opacity=float(rng.uniform(0.1, 0.4) if nearly_none else rng.uniform(0.3, 1)),
        motion=float(min(size * log_uniform(rng, 0.5, 6), 80)) if moving else 0.0,
        angle=float(np.clip(angle + rng.normal(0, 8), -90, 90)),
        softness=float(rng.uniform(0.2, 1)),
    )


def snow(clean: Pixels, seed: int, params: SnowParams | None = None) -> Pixels:
    """Add falling snow to a photo; the same arguments give the same bytes.

    clean: uint8 (H, W, 3) RGB. seed: >= 0; seeds the flakes, and the parameters if they are None. Returns uint8
    (H, W, 3). Raises ValueError for another array.
    """
    check_photo(clean)
    parameters, rng = generators(seed)
    if params is None:
        params = SnowParams.draw(parameters)
    height, width = clean.shape[:2]
    clear = np.ones((height, width), np.float32)
    for layer in params.layers:
        paint = _paint_large_flakes if layer.radius > _PAINTED_RADIUS else _paint_small_flakes
        clear *= 1 - paint(layer, height, width, rng)
    colour = 255 * np.asarray(params.colour, np.float32)
    snowy = colour + clear[:, :, None] * (clean - colour)
    if params.veil > 0:
        opacity = params.veil * (0.6 + 0.4 * smooth_field(rng, height, width, 2))[:, :, None]
        snowy += opacity * (255 * np.float32(params.airlight) - snowy)
    return to_photo(snowy)


def _count(layer: FlakeLayer, height: int, width: int, margin: float, rng: np.random.Generator) -> int:
    """Draw the number of flakes on the photo and a margin of `margin` pixels around it."""
    flake = np.pi * layer.radius**2 + 2 * layer.radius * layer.motion
    return int(rng.poisson(layer.coverage * (height + 2 * margin) * (width + 2 * margin) / flake))


def _paint_small_flakes(layer: FlakeLayer, height: int, width: int, rng: np.random.Generator) -> Field:
    """Opacity of many small flakes, (height, width) float32 in [0, 1]: moving points, blurred and clipped."""
    margin = 0.6 * layer.motion + 2 * layer.radius
    count = _count(layer, height, width, margin, rng)
    y = rng.uniform(-margin, height + margin, count)
    x = rng.uniform(-margin, width + margin, count)
    angle = np.deg2rad(layer.angle + rng.normal(0, 6, count))
    length = layer.motion * rng.uniform(0.4, 1.2, count)
    # The clipping below turns a brighter flake into a larger one, so that one blur gives many sizes.
    weight = rng.lognormal(0, 0.6, count)

    samples = int(np.ceil(1.2 * layer.motion)) + 1
    along = (np.arange(samples) + 0.5) / samples - 0.5
    points = splat(
        height,
        width,
        y[:, None] + (length * np.cos(angle))[:, None] * along,
        x[:, None] + (length * np.sin(angle))[:, None] * along,
        np.repeat(weight[:, None] / samples, samples, axis=1),
    )
    sigma = 0.6 * layer.radius
    # The peak of a flake of weight 1; one that moves is spread over its path.
    spread = sigma**2 + 1 / 6
    peak = 1 / (2 * np.pi * spread) / (1 + layer.motion / np.sqrt(2 * np.pi * spread))
    gain = (1.8 - 0.8 * layer.softness) / peak
    return np.minimum(gaussian_blur(points, sigma) * np.float32(gain), 1) * np.float32(layer.opacity)


def _paint_large_flakes(layer: FlakeLayer, height: int, width: int, rng: np.random.Generator) -> Field:
    """Opacity of a few large flakes, (height, width) float32 in [0, 1], each with its own size and outline."""
    margin = 2 * layer.radius + 0.6 * layer.motion
    canvas = np.zeros((height, width), np.float32)
    for _ in range(_count(layer, height, width, margin, rng)):
        y, x = rng.uniform(-margin, height + margin), rng.uniform(-margin, width + margin)
        radius = layer.radius * rng.uniform(0.6, 1.4)
        angle = np.deg2rad(layer.angle + rng.normal(0, 6))
        half = layer.motion * rng.uniform(0.2, 0.6)
        lobes, phase = rng.integers(2, 6), rng.uniform(0, 2 * np.pi)
        uneven, strength = rng.uniform(0, 0.25), layer.opacity * rng.uniform(0.4, 1)
        reach = radius * 1.3 + half
        top, bottom = max(int(y - reach), 0), min(int(y + reach) + 2, height)
        left, right = max(int(x - reach), 0), min(int(x + reach) + 2, width)
        if top >= bottom or left >= right:
            continue
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
        dx = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
        along = dy * np.float32(np.cos(angle)) + dx * np.float32(np.sin(angle))
        across = dx * np.float32(np.cos(angle)) - dy * np.float32(np.sin(angle))
        along -= np.clip(along, -half, half)
        distance = np.hypot(along, across)
        outline = radius * (1 + uneven * np.sin(lobes * np.arctan2(across, along) + phase))
        edge = np.clip((outline - distance) / (radius * max(layer.softness, 0.15)), 0, 1)
        # A flake that moves covers each point for a part of the exposure only.
        strength *= radius / (radius + 0.5 * half)
        patch = canvas[top:bottom, left:right]
        patch += (1 - patch) * np.float32(strength) * edge
    return canvas
