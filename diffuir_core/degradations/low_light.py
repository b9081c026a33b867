"""Low light: a short exposure in linear light, with photon noise, developed to 8 bits.

    raw = cast 2^ev linear^gamma,    noisy = raw + sqrt(gain raw / photons + (gain read)^2) n,    n ~ N(0, 1)

The variance of shot noise is proportional to the signal, that of read noise is constant: the Gaussian
approximation of Poisson-Gaussian raw noise (Foi et al., "Practical Poissonian-Gaussian noise modeling and
fitting for single-image raw-data", IEEE TIP 2008, Eq. 3). A `gamma` above 1 crushes the shadows, `cast` is a
wrong white balance; LOL has both (Wei et al., "Deep Retinex Decomposition", BMVC 2018). A scene at night has
lamps: pools of light, warm or cold, that the exposure was made for, and sources that stay white however short it
is.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..pixels import Pixels
from ._fields import (
    NEARLY_NONE,
    Field,
    check_photo,
    clipped_lights,
    from_linear,
    generators,
    log_uniform,
    require_range,
    smooth_field,
    smooth_noise,
    to_linear,
    to_photo,
)


@dataclass(frozen=True, kw_only=True)
class LowLightParams:
    """Parameters of a dark photo. Raises ValueError with the name of a field that is out of its range."""

    ev: float
    """Exposure, stops, [-9, 0]."""
    gamma: float
    """Power of linear light before the exposure, [0.5, 3]; above 1 it darkens the shadows most."""
    cast: tuple[float, float, float]
    """Factors of a wrong white balance for R, G and B, each [0.3, 1.5]."""
    unevenness: float
    """Share of the light that the darkest part of the scene lacks, [0, 0.9]."""
    photons: float
    """Photons of full white, after the exposure, [50, 1e7]; fewer make more noise."""
    read_noise: float
    """Standard deviation of the read noise, as a share of full white, [0, 0.05]."""
    gains: tuple[float, float, float]
    """Gains of the camera's white balance, which amplify the noise of R, G and B, each [1, 4]."""
    smoothing: float
    """Strength of the camera's smoothing of the noise over neighbouring pixels, [0, 1]."""
    lamps: int = 0
    """Pools of lamplight, [0, 8]."""
    lamplight: float = 0.0
    """Light in the middle of a pool beyond that of the scene, stops, [0, 9]."""
    highlights: float = 0.0
    """Light of clipped white beyond full white, as a share of full white, [0, 500]."""

    def __post_init__(self) -> None:
        require_range(self, "ev", -9, 0)
        require_range(self, "gamma", 0.5, 3)
        require_range(self, "cast", 0.3, 1.5)
        require_range(self, "unevenness", 0, 0.9)
        require_range(self, "photons", 50, 1e7)
        require_range(self, "read_noise", 0, 0.05)
        require_range(self, "gains", 1, 4)
        require_range(self, "smoothing", 0, 1)
        require_range(self, "lamps", 0, 8)
        require_range(self, "lamplight", 0, 9)
        require_range(self, "highlights", 0, 500)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a dark photo: hardly darker in a share `NEARLY_NONE` of draws, by 0.8 to 6.5 stops otherwise."""
        nearly_none = rng.random() < NEARLY_NONE
        strength = 0.06 if nearly_none else 1.0
        cast = 2 ** np.clip(rng.normal(0, 0.25 * strength, 3), -1, 0.5)
        ev = float(-0.15 * rng.random() ** 2 if nearly_none else rng.uniform(-6.5, -0.8))
        is_lit = not nearly_none and rng.random() < 0.35
        return cls(
            ev=ev,
            gamma=float(1 + rng.uniform(-0.15, 0.7) * strength),
            cast=(float(cast[0]), float(cast[1]), float(cast[2])),
            unevenness=float(rng.uniform(0, 0.5) * strength) if rng.random() < 0.4 else 0.0,
            photons=log_uniform(rng, 1e5, 1e6) if nearly_none else log_uniform(rng, 3e3, 4e5),
            read_noise=log_uniform(rng, 2e-5, 1e-4) if nearly_none else log_uniform(rng, 5e-5, 1.2e-3),
            gains=(float(rng.uniform(1, 2.2)), 1.0, float(rng.uniform(1, 2))),
            smoothing=float(rng.uniform(0, 1)),
            lamps=int(rng.integers(1, 5)) if is_lit else 0,
            lamplight=float(rng.uniform(0.3, 1) * -ev) if is_lit else 0.0,
            highlights=float(2**-ev * rng.uniform(0.1, 2)) if is_lit or rng.random() < 0.2 else 0.0,
        )


def low_light(clean: Pixels, seed: int, params: LowLightParams | None = None) -> Pixels:
    """Darken a photo; the same arguments give the same bytes.

    clean: uint8 (H, W, 3) RGB. seed: >= 0; seeds the noise, and the parameters if they are None. Returns uint8
    (H, W, 3). Raises ValueError for another array.
    """
    check_photo(clean)
    parameters, rng = generators(seed)
    if params is None:
        params = LowLightParams.draw(parameters)
    height, width = clean.shape[:2]
    curve = to_linear(np.arange(256, dtype=np.uint8)) ** np.float32(params.gamma) * np.float32(2**params.ev)
    raw = curve[clean] * np.asarray(params.cast, np.float32)
    if params.unevenness > 0:
        raw *= (1 - params.unevenness * smooth_field(rng, height, width, 2))[:, :, None]
    if params.highlights > 0:
        raw *= (1 + np.float32(params.highlights) * clipped_lights(clean))[:, :, None]
    if params.lamps > 0:
        raw *= _lamplight(height, width, params, rng)
    noise = smooth_noise(rng.standard_normal(raw.shape, dtype=np.float32), params.smoothing)
    gains = np.asarray(params.gains, np.float32)
    noise *= np.sqrt(
        raw * (gains / np.float32(params.photons)) + (gains * np.float32(params.read_noise)) ** 2
    )
    return to_photo(from_linear(raw + noise))


def _lamplight(height: int, width: int, params: LowLightParams, rng: np.random.Generator) -> Field:
    """Factor by which lamps raise the light, (height, width, 3) float32 >= 1: soft pools, each of one colour."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    factor = np.ones((height, width, 3), np.float32)
    for _ in range(params.lamps):
        y, x = rng.uniform(-0.1, 1.1) * height, rng.uniform(-0.1, 1.1) * width
        radius = log_uniform(rng, 0.06, 0.5) * max(height, width)
        colour = np.array((1, rng.uniform(0.6, 1), rng.uniform(0.3, 1.1)), np.float32)
        distance = ((rows - np.float32(y)) ** 2 + (columns - np.float32(x)) ** 2) / np.float32(radius**2)
        pool = np.float32(2**params.lamplight * rng.uniform(0.3, 1)) / (1 + distance) ** 2
        factor += pool[:, :, None] * colour
    return factor
