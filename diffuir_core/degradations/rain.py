"""Rain: layers of streaks in front of the photo, and a veil of distant drops.

    O = (1 - a) (B + S - screen B S) + a A

B is the clean photo in [0, 1], S the sum of the streak layers (Yang et al., "Deep Joint Rain Detection and
Removal from a Single Image", CVPR 2017, Eq. 2: several directions overlap in heavy rain, and distant rain
accumulates to a mist of light A with opacity a). `screen` goes from plain addition (0, as in Rain100L and
Rain100H) to a screen blend (1). It is applied to the 8 bit sRGB values, as those data sets do.

Each streak is a line of its own angle, length and brightness: the image of a drop that falls during the
exposure (Garg & Nayar, "Vision and Rain", IJCV 2007), brightest in its middle. A real drop is transparent: it
shows the light of a wide part of the scene, and covers what is behind it for a part of the exposure only. With
`glow` the streaks are that: O = B + S (L - B) where the light of the sky L exceeds B, so that they vanish on a
bright sky; near ones are wide, soft and faint, out of focus.
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


@dataclass(frozen=True, kw_only=True)
class StreakLayer:
    """Streaks at one distance. Raises ValueError with the name of a field that is out of its range."""

    angle: float
    """Direction from the vertical, degrees, [-80, 80]; positive runs to the right on its way down."""
    spread: float
    """Standard deviation of the streaks' angles, degrees, [0, 20]."""
    length: float
    """Mean length, pixels, [1, 200]."""
    width: float
    """Full width at half maximum, pixels, [1, 12]."""
    coverage: float
    """Total area of the streaks over the photo's area, [0, 3]; above 1 they overlap."""
    intensity: float
    """Brightness of the brightest streak's middle, as a share of full white, [0, 1]."""

    def __post_init__(self) -> None:
        require_range(self, "angle", -80, 80)
        require_range(self, "spread", 0, 20)
        require_range(self, "length", 1, 200)
        require_range(self, "width", 1, 12)
        require_range(self, "coverage", 0, 3)
        require_range(self, "intensity", 0, 1)


@dataclass(frozen=True, kw_only=True)
class RainParams:
    """Parameters of a rain. Raises ValueError with the name of a field that is out of its range."""

    layers: tuple[StreakLayer, ...]
    """The layers of streaks, one to eight."""
    screen: float
    """Blend mode, [0, 1]: 0 adds the streaks, 1 screens them, so that they vanish on white."""
    unevenness: float
    """Variation of the streaks' brightness over the photo, [0, 1]."""
    tint: tuple[float, float, float]
    """Colour of the streaks, RGB, each [0.8, 1]."""
    veil: float
    """Opacity of the veil of distant rain, [0, 0.8]."""
    airlight: float
    """Brightness of the veil, as a share of full white, [0.4, 1]."""
    glow: float = -1.0
    """Light of transparent streaks, as a share of full white, [0, 1]; -1 adds or screens the streaks."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.layers) <= 8:
            raise ValueError(f"RainParams.layers must hold 1 to 8 layers, not {len(self.layers)}")
        require_range(self, "screen", 0, 1)
        require_range(self, "unevenness", 0, 1)
        require_range(self, "tint", 0.8, 1)
        require_range(self, "veil", 0, 0.8)
        require_range(self, "airlight", 0.4, 1)
        require_range(self, "glow", -1, 1)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a rain: hardly any in a share `NEARLY_NONE` of draws, heavy in half of them, light in the others.

        Heavy rain has up to five layers, each with a direction of its own. Three in ten rains are transparent,
        with layers at several distances.
        """
        kind = rng.random()
        layers: tuple[StreakLayer, ...]
        if kind < NEARLY_NONE:
            layers = (_draw_layer(rng, coverage=(0.002, 0.03), intensity=(0.03, 0.25), width=(1.0, 1.8)),)
        elif kind < 0.5:
            layers = tuple(
                _draw_layer(rng, coverage=(0.02, 0.3), intensity=(0.12, 0.6), width=(1.0, 3.0))
                for _ in range(1 + (rng.random() < 0.25))
            )
        else:
            main = rng.normal(0, 15)
            layers = tuple(
                _draw_layer(rng, coverage=(0.08, 0.8), intensity=(0.15, 0.85), width=(1.0, 4.5), around=main)
                for _ in range(rng.integers(1, 6))
            )
        is_transparent = kind >= NEARLY_NONE and rng.random() < (0.2 if kind >= 0.5 else 0.45)
        if is_transparent:
            layers = _draw_distances(rng, heavy=kind >= 0.5)
        veiled = kind >= 0.4 and rng.random() < (0.7 if is_transparent else 0.4)
        return cls(
            layers=layers,
            screen=float(rng.choice([0.0, rng.random(), 1.0], p=[0.5, 0.3, 0.2])),
            unevenness=float(rng.uniform(0, 0.8)),
            tint=(float(rng.uniform(0.93, 1)), float(rng.uniform(0.96, 1)), 1.0),
            veil=float(rng.uniform(0.02, 0.5)) if veiled else 0.0,
            airlight=float(rng.uniform(0.5, 1)),
            glow=float(rng.uniform(0.55, 1)) if is_transparent else -1.0,
        )


def _draw_distances(rng: np.random.Generator, heavy: bool) -> tuple[StreakLayer, ...]:
    """Layers of one rain from far to near: fine and dense, then long, wide, few and faint."""
    angle = float(np.clip(rng.normal(0, 15), -60, 60))
    size = log_uniform(rng, 0.6, 2)  # longer exposures and longer lenses draw longer streaks
    layers = []
    for distance, chance in enumerate((0.9, 0.9, 0.6, 0.35)):
        if distance and rng.random() > chance:
            continue
        width = float(np.clip(size * log_uniform(rng, 0.8, 1.3) * 1.9**distance, 1, 12))
        layers.append(
            StreakLayer(
                angle=float(np.clip(angle + rng.normal(0, 3), -80, 80)),
                spread=log_uniform(rng, 0.5, 5),
                length=float(np.clip(width * log_uniform(rng, 8, 30), 4, 200)),
                width=width,
                coverage=log_uniform(rng, 0.05, 0.9 if heavy else 0.25) / 1.5**distance,
                intensity=log_uniform(rng, 0.2, 0.95 if heavy else 0.6) / 1.4**distance,
            )
        )
    return tuple(layers)


def _draw_layer(
    rng: np.random.Generator,
    *,
    coverage: tuple[float, float],
    intensity: tuple[float, float],
    width: tuple[float, float],
    around: float = 0.0,
) -> StreakLayer:
    thickness = log_uniform(rng, *width)
    return StreakLayer(
        angle=float(np.clip(around + rng.normal(0, 18), -80, 80)),
        spread=log_uniform(rng, 0.3, 6),
        length=float(np.clip(thickness * log_uniform(rng, 5, 40), 4, 120)),
        width=thickness,
        coverage=log_uniform(rng, *coverage),
        intensity=log_uniform(rng, *intensity),
    )


def rain(clean: Pixels, seed: int, params: RainParams | None = None) -> Pixels:
    """Add rain to a photo; the same arguments give the same bytes.

    clean: uint8 (H, W, 3) RGB. seed: >= 0; seeds the streaks, and the parameters if they are None. Returns uint8
    (H, W, 3). Raises ValueError for another array.
    """
    check_photo(clean)
    parameters, rng = generators(seed)
    if params is None:
        params = RainParams.draw(parameters)
    height, width = clean.shape[:2]
    streaks = np.zeros((height, width), np.float32)
    for layer in params.layers:
        streaks += _streaks(layer, height, width, rng)
    streaks *= 1 - params.unevenness * smooth_field(rng, height, width, 2)
    light = streaks[:, :, None] * np.asarray(params.tint, np.float32)
    dry = clean.astype(np.float32)
    if params.glow >= 0:
        sky = 255 * np.float32(params.glow) * np.asarray(params.tint, np.float32)
        wet = dry + np.minimum(streaks, 0.95)[:, :, None] * np.maximum(sky - dry, 0)
    else:
        wet = dry + light * (255 - np.float32(params.screen) * dry)
    if params.veil > 0:
        opacity = params.veil * (0.7 + 0.3 * smooth_field(rng, height, width, 2))[:, :, None]
        wet = np.minimum(wet, 255)
        wet += opacity * (255 * np.float32(params.airlight) - wet)
    return to_photo(wet)


def _streaks(layer: StreakLayer, height: int, width: int, rng: np.random.Generator) -> Field:
    """Draw one layer of streaks, (height, width) float32 >= 0."""
    margin = 0.65 * layer.length + layer.width
    area = (height + 2 * margin) * (width + 2 * margin)
    count = rng.poisson(layer.coverage * area / (0.9 * layer.length * layer.width))
    y = rng.uniform(-margin, height + margin, count)
    x = rng.uniform(-margin, width + margin, count)
    angle = np.deg2rad(rng.normal(layer.angle, layer.spread, count))
    length = layer.length * rng.uniform(0.5, 1.3, count)
    brightness = layer.intensity * rng.uniform(0.4, 1, count)

    samples = int(np.ceil(1.3 * layer.length)) + 1
    along = (np.arange(samples) + 0.5) / samples - 0.5
    taper = 1 - np.abs(2 * along) ** 3
    # A line drawn between pixels is about one pixel wide already; the blur adds the rest of the width.
    sigma = np.sqrt(max((layer.width / 2.355) ** 2 - 1 / 6, 0.0))
    peak = np.sqrt(2 * np.pi * (sigma**2 + 1 / 6))
    line = splat(
        height,
        width,
        y[:, None] + (length * np.cos(angle))[:, None] * along,
        x[:, None] + (length * np.sin(angle))[:, None] * along,
        (brightness * peak * length / samples)[:, None] * taper,
    )
    return gaussian_blur(line, float(sigma))
